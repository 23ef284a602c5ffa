"""A thousand people against a million: what costs more when the tables are large?"""

import asyncio
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial

from tests.application import environment
from tests.bench import contest, crowd, pace, plans, report, site
from tests.bench.contest import Sample, median
from tests.bench.operations import KINDS, WITHOUT_REDIS, Operation
from tests.bench.pace import Paced, Plan, percentile
from tests.bench.report import Options, Outcome
from tests.bench.servers import both_stores, serving, settings_of
from tests.bench.site import Site
from tests.servers import LOOPBACK, free_port

_SIZES = {"small": (1_000, 100), "large": (1_000_000, 100_000)}
"""People, each with a session, and revocations."""
_NAMES = ("introspect", "introspect-revoked", "introspect-refresh", WITHOUT_REDIS, "refresh", "revoke", "userinfo",
          "users-me", "password", "register")  # fmt: skip
_PROBES_A_SECOND = 100
_MOST_PRUNING_SLICES = 60
_CALM_SLICES = 6
"""Before, and after. A machine is disturbed now and then, so the median of the slices' p99 counts."""


@dataclass(frozen=True)
class _Pruning:
    calm: list[Paced]
    meanwhile: list[Paced]
    seconds: float
    deleted: int


async def flat(options: Options, sizes: Mapping[str, tuple[int, int]] = _SIZES) -> Outcome:
    """Measure each operation on a small and on a large database, in turns; then prune the large one beside traffic."""
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(both_stores())
        contestants: list[Operation] = []
        for number, (size, (people, revocations)) in enumerate(sizes.items()):
            options.say(f"filling a database with {people:,} people, starting authserver …")
            place = await stack.enter_async_context(
                site.opened(
                    stores,
                    size,
                    workers=options.workers,
                    redis_url=stores.valkey.url(number),
                    fill=partial(crowd.fill, people=people, revocations=revocations),
                    prune_enabled=False,  # `authserver prune` does it, where it is measured
                )
            )
            blind = await _without_redis(stack, place, options.workers)
            contestants += [
                Operation(f"{size} {name}", KINDS[name], blind if name == WITHOUT_REDIS else place) for name in _NAMES
            ]
        in_turns = sorted(contestants, key=lambda operation: _NAMES.index(operation.name.partition(" ")[2]))
        samples = await contest.take_turns(in_turns, options.rounds, options.seconds, options.say)
        options.say("once more, to see the statements …")
        large = [operation for operation in in_turns if operation.name.startswith("large")]
        async with plans.watched(stores.postgres.plain_url("large")) as seen:
            await contest.take_turns(large, 1, 1, options.say)
        pool = await stack.enter_async_context(pace.generators(1))
        options.say("pruning all sessions of the crowd beside traffic …")
        pruning = await _prune(pool, place, options.seconds)
    text = "\n\n".join([_comparison(samples), _pruned(pruning), "How PostgreSQL goes about it:", _plans(seen)])
    return Outcome(text, {**contest.as_json(samples), "plans": seen})


async def _without_redis(stack: AsyncExitStack, place: Site, workers: int) -> Site:
    """Start one more node on the same database that cannot reach Redis."""
    same = settings_of(place.node) | {"redis_url": f"redis://{LOOPBACK}:{free_port()}/0", "prune_enabled": False}
    node = await stack.enter_async_context(serving(place.stores, same, workers=workers))
    return replace(place, node=node)


def _comparison(samples: Mapping[str, Sequence[Sample]]) -> str:
    lines = []
    for name in _NAMES:
        small, large = (median(samples[f"{size} {name}"]) for size in _SIZES)
        lines.append(
            (KINDS[name].title, f"{small.p99_ms:.1f}", f"{large.p99_ms:.1f}", _ratio(large.p99_ms, small.p99_ms),
             f"{small.server_us:,.0f}", f"{large.server_us:,.0f}", _ratio(large.server_us, small.server_us),
             f"{small.stores_us or 0:,.0f}", f"{large.stores_us or 0:,.0f}")
        )  # fmt: skip
    head = ("1,000 against 1,000,000 people", "p99 ms", "p99 ms", "ratio", "CPU µs", "CPU µs", "ratio", "stores µs",
            "stores µs")  # fmt: skip
    return report.table(head, lines) + "\n\nTarget: both ratios at most 1.2."


async def _prune(pool: ProcessPoolExecutor, place: Site, seconds: float) -> _Pruning:
    url = place.stores.postgres.plain_url("large")
    await crowd.let_sessions_run_out(url)
    there = await crowd.count_sessions(url)
    sent = await Operation("users-me", KINDS["users-me"], place).prepared(seconds)
    plan = Plan(place.node.port, sent.requests, _PROBES_A_SECOND, seconds)
    calm = [await pace.follow(pool, plan) for _ in range(_CALM_SLICES)]
    settings = place.node.settings
    own = {
        "AUTHSERVER_DATABASE_URL": settings.database_url.get_secret_value(),
        "AUTHSERVER_REDIS_URL": settings.redis_url.get_secret_value(),
    }
    loop = asyncio.get_running_loop()
    began = loop.time()
    command = [sys.executable, "-m", "authserver", "prune"]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(own), cwd=place.stores.directory, stdout=subprocess.DEVNULL
    )
    finished = asyncio.create_task(process.wait())
    meanwhile: list[Paced] = []
    while not finished.done() and len(meanwhile) < _MOST_PRUNING_SLICES:
        meanwhile.append(await pace.follow(pool, plan))
    took = loop.time() - began
    if not finished.done():
        process.terminate()
    await finished
    deleted = there - await crowd.count_sessions(url)
    calm += [await pace.follow(pool, plan) for _ in range(_CALM_SLICES)]
    return _Pruning(calm, meanwhile, took, deleted)


def _pruned(pruning: _Pruning) -> str:
    lines = [
        (title, f"{_typical(slices, 50):.1f}", f"{_typical(slices, 99):.1f}",
         pace.ends([answer for slice_ in slices for answer in slice_.answers]))
        for title, slices in (("before and after", pruning.calm), ("while it prunes", pruning.meanwhile))
    ]  # fmt: skip
    head = (f"/users/me, {_PROBES_A_SECOND} a second", "p50 ms", "p99 ms", "ended")
    ratio = _ratio(_typical(pruning.meanwhile, 99), _typical(pruning.calm, 99))
    return "\n\n".join(
        [
            f"`authserver prune` deleted {pruning.deleted:,} sessions in {pruning.seconds:.0f} s, and was then ended.",
            report.table(head, lines),
            f"p99 while it prunes: {ratio} × (target: 1.2).",
        ]
    )


def _typical(slices: Sequence[Paced], rank: int) -> float:
    """Return the median of a percentile of each slice."""
    return statistics.median(percentile(slice_.answers, rank) for slice_ in slices)


def _ratio(one: float, other: float) -> str:
    return f"{one / other:.2f}" if other else "–"


def _plans(seen: Mapping[str, str]) -> str:
    shown = [f"{statement}\n{_indented(plan)}" for statement, plan in seen.items()]
    return "```text\n" + "\n\n".join(shown) + "\n```"


def _indented(plan: str) -> str:
    return "\n".join(f"    {line}" for line in plan.splitlines())
