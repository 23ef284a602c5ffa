"""Ours and theirs, driven by the same generator, after one another in each round."""

from contextlib import AsyncExitStack

from tests.bench import contest, report, site
from tests.bench.contest import Contestant, median
from tests.bench.operations import supported
from tests.bench.peers.node_oidc_provider import NAMES, node_oidc_provider
from tests.bench.picture import Dots, picture
from tests.bench.report import Options, Outcome
from tests.bench.servers import both_stores


async def peers(options: Options) -> Outcome:
    """Measure the operations that both have."""
    async with AsyncExitStack() as stack:
        options.say("starting authserver and node-oidc-provider …")
        stores = await stack.enter_async_context(both_stores())
        place = await stack.enter_async_context(site.opened(stores, "peers", workers=options.workers))
        ours = {one.name: one for one in await supported(place, NAMES, options.say)}
        theirs = await stack.enter_async_context(node_oidc_provider(stores, options.workers))
        in_turns: list[Contestant] = []
        for one in theirs:
            mine = ours.get(one.operation)
            if mine and mine not in in_turns:
                in_turns.append(mine)
            in_turns.append(one)
        samples = await contest.take_turns(in_turns, options.rounds, options.seconds, options.say)
    figures = {one.name: (one.title, median(samples[one.name]).server_us) for one in in_turns}
    groups = [
        Dots("authserver", "#0969da", [figures[name] for name in ours]),
        Dots("node-oidc-provider", "#bc4c00", [figures[one.name] for one in theirs]),
    ]
    shown = picture("Processor time a request", groups)
    return Outcome(report.samples_table(in_turns, samples), contest.as_json(samples), shown)
