"""Every operation beside the limits of the machine."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from tests.bench import contest, report, site
from tests.bench.contest import Contestant, Sample, median
from tests.bench.limits import limits
from tests.bench.operations import KINDS, THROTTLED, WITHOUT_REDIS, Operation, supported
from tests.bench.picture import Dots, picture
from tests.bench.report import Options, Outcome
from tests.bench.servers import Stores, both_stores
from tests.servers import LOOPBACK, free_port


async def speed(options: Options, names: Sequence[str] = tuple(KINDS)) -> Outcome:
    """Measure the named operations and all limits."""
    async with AsyncExitStack() as stack:
        options.say("starting authserver and filling its database …")
        stores = await stack.enter_async_context(both_stores())
        operations = await _operations(stack, stores, names, options)
        settings = operations[0].site.node.settings
        floor = await stack.enter_async_context(limits(stores, settings, workers=options.workers))
        contestants: list[Contestant] = [*operations, *floor]
        samples = await contest.take_turns(contestants, options.rounds, options.seconds, options.say)
    ours, machine = (report.samples_table(those, samples) for those in (operations, floor))
    text = f"{ours}\n\nThe limits of the machine, in the same rounds:\n\n{machine}"
    groups = [
        Dots("authserver", "#0969da", _microseconds(operations, samples)),
        Dots("limits of the machine", "#8c959f", _microseconds(floor, samples)),
    ]
    return Outcome(text, contest.as_json(samples), picture("Processor time a request", groups))


def _microseconds(
    contestants: Sequence[Contestant], samples: Mapping[str, Sequence[Sample]]
) -> list[tuple[str, float]]:
    return [(one.title, median(samples[one.name]).server_us) for one in contestants]


async def _operations(stack: AsyncExitStack, stores: Stores, names: Sequence[str], options: Options) -> list[Operation]:
    """Start the servers that these operations need."""
    servers: dict[str, dict[str, Any]] = {
        "usual": {},
        WITHOUT_REDIS: {"redis_url": f"redis://{LOOPBACK}:{free_port()}/0"},  # nobody is there
        THROTTLED: {"throttle_enabled": True},
    }
    operations = []
    for server, changes in servers.items():
        there = [name for name in names if name == server or (server == "usual" and name not in servers)]
        if there:
            database = server.replace("-", "_")
            place = await stack.enter_async_context(site.opened(stores, database, workers=options.workers, **changes))
            operations += await supported(place, there, options.say)
    return operations
