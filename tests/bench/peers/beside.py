"""Ours and theirs, driven by the same generator, after one another in each round."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from tests.bench import contest, report, site
from tests.bench.contest import Contestant, median
from tests.bench.operations import supported
from tests.bench.peers import django_oauth_toolkit, glewlwyd, node_oidc_provider
from tests.bench.peers.peer import NoPeer, PeerOperation
from tests.bench.picture import Dots, picture
from tests.bench.report import Options, Outcome
from tests.bench.servers import Stores, both_stores

NAMES = ("introspect", "refresh", "refresh-openid", "revoke", "client_credentials", "userinfo", "jwks", "password")
"""What any of them has too."""
_Start = Callable[[Stores, int], AbstractAsyncContextManager[Sequence[PeerOperation]]]
_PEERS: tuple[tuple[str, str, _Start], ...] = (
    (node_oidc_provider.NAME, "#bc4c00", node_oidc_provider.node_oidc_provider),
    (django_oauth_toolkit.NAME, "#1a7f37", django_oauth_toolkit.django_oauth_toolkit),
    (glewlwyd.NAME, "#8250df", glewlwyd.glewlwyd),
)
"""Their names, their colours in the picture, and what starts them."""


async def peers(options: Options) -> Outcome:
    """Measure the operations that ours and at least one of theirs have; NoPeer if there is none of them."""
    async with AsyncExitStack() as stack:
        options.say("starting authserver …")
        stores = await stack.enter_async_context(both_stores())
        place = await stack.enter_async_context(site.opened(stores, "peers", workers=options.workers))
        ours = {one.name: one for one in await supported(place, NAMES, options.say)}
        theirs: dict[str, Sequence[PeerOperation]] = {}
        for name, _, start in _PEERS:
            options.say(f"starting {name} …")
            try:
                theirs[name] = await stack.enter_async_context(start(stores, options.workers))
            except NoPeer as missing:
                options.say(f"left out: {missing}")
        if not theirs:
            raise NoPeer("there is nothing to measure beside authserver")
        in_turns = _ordered(ours, [one for each in theirs.values() for one in each])
        samples = await contest.take_turns(in_turns, options.rounds, options.seconds, options.say)
    figures = {one.name: (one.title, median(samples[one.name]).server_us) for one in in_turns}
    groups = [Dots("authserver", "#0969da", [figures[name] for name in ours if name in figures])]
    groups += [
        Dots(name, colour, [figures[one.name] for one in theirs[name]]) for name, colour, _ in _PEERS if name in theirs
    ]
    shown = picture("Processor time a request", groups)
    return Outcome(report.samples_table(in_turns, samples), contest.as_json(samples), shown)


def _ordered(ours: Mapping[str, Contestant], theirs: Sequence[PeerOperation]) -> list[Contestant]:
    """Return each operation of ours, followed by the same of theirs."""
    in_turns: list[Contestant] = []
    for name in NAMES:
        same = [one for one in theirs if one.operation == name]
        if same:
            in_turns += [*([ours[name]] if name in ours else []), *same]
    return in_turns
