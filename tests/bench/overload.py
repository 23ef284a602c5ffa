"""Three times as much as the server can do, for a while: what still gets done, how the rest ends, and what is left."""

import statistics
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tests.bench import pace, report, site
from tests.bench.operations import KINDS, Operation
from tests.bench.pace import Answered, Paced, Plan, percentile
from tests.bench.processes import peak_mib, resident_mib
from tests.bench.report import Options, Outcome
from tests.bench.servers import both_stores

_TIMES_CAPACITY = 3
_LONGER = 12
"""The overload lasts so many times --seconds: a minute by default."""
_CALM_SHARE = 0.5
"""Of the capacity: the load before and after."""
_CONNECTIONS = 512
_RECOVERED = 3.0
"""A second has recovered when its p99 is at most so many times that of before, and all its answers are good."""


@dataclass(frozen=True)
class _Run:
    title: str
    capacity: tuple[float, float]
    """Good answers a second, as wrk gets them, before and after: the machine may have become slower meanwhile."""
    before: Paced
    overload: Paced
    after: Paced
    mib: tuple[float, float, float]
    """Resident: before, the most, after."""


async def overload(options: Options) -> Outcome:
    """Overload introspection, then sign-ins."""
    async with AsyncExitStack() as stack:
        options.say("starting authserver and filling its database …")
        stores = await stack.enter_async_context(both_stores())
        place = await stack.enter_async_context(site.opened(stores, "overload", workers=options.workers))
        pool = await stack.enter_async_context(pace.generators(1))
        operations = [Operation(name, KINDS[name], place) for name in ("introspect", "password")]
        runs = [await _overloaded(pool, operation, options) for operation in operations]
    columns = [_figures(run) for run in runs]
    lines = [(label, *(column[label][0] for column in columns), target) for label, (_, target) in columns[0].items()]
    head = ("", *(run.title for run in runs), "target")
    return Outcome(report.table(head, lines), {run.title: column for run, column in zip(runs, columns, strict=True)})


async def _overloaded(pool: ProcessPoolExecutor, operation: Operation, options: Options) -> _Run:
    workers = operation.site.node.workers()
    capacity = (await operation.measure(options.seconds)).per_second
    calm = await _plan(operation, capacity * _CALM_SHARE, options.seconds)
    before, before_mib = await pace.follow(pool, calm), resident_mib(workers)
    options.say(f"  {operation.title}: {capacity * _TIMES_CAPACITY:,.0f}/s for {options.seconds * _LONGER:.0f} s")
    async with peak_mib(workers) as peak:
        plan = await _plan(operation, capacity * _TIMES_CAPACITY, options.seconds * _LONGER)
        overload = await pace.follow(pool, plan)
    after = await pace.follow(pool, await _plan(operation, capacity * _CALM_SHARE, options.seconds * 2))
    after_mib = resident_mib(workers)
    both = capacity, (await operation.measure(options.seconds)).per_second
    return _Run(operation.title, both, before, overload, after, (before_mib, peak[0], after_mib))


async def _plan(operation: Operation, per_second: float, seconds: float) -> Plan:
    sent = await operation.prepared(seconds)
    return Plan(operation.site.node.port, sent.requests, per_second, seconds, _CONNECTIONS)


def _figures(run: _Run) -> dict[str, tuple[str, str]]:
    """Return what was measured and what it should be, by what it is."""
    good = run.overload.having(200)
    lasted = max((answer.at + answer.seconds for answer in run.overload.answers), default=1.0)
    goodput = len(good) / lasted / statistics.mean(run.capacity)
    refused = run.overload.having(429, 503)
    before, most, after = run.mib
    return {
        "capacity before, after": ("{:,.0f}, {:,.0f} a second".format(*run.capacity), ""),
        "goodput": (f"{goodput:.0%}", "≥ 80 % of their mean"),
        "p50 of the good": (f"{percentile(good, 50):,.0f} ms", ""),
        "p99 of the good": (f"{percentile(good, 99):,.0f} ms", ""),
        "ended": (pace.ends(run.overload.answers), "200, 503, or the caller's own pool was empty"),
        "p99 of the refused": (f"{percentile(refused, 99):,.0f} ms" if refused else "–", "fast"),
        "recovered after": (_recovery(run), "≤ 5 s"),
        "p99 before, after": (
            f"{percentile(run.before.having(200), 99):,.0f}, {percentile(run.after.having(200), 99):,.0f} ms",
            "",
        ),
        "memory before, most, after": (f"{before:.0f}, {most:.0f}, {after:.0f} MiB", "does not grow"),
        "generator": (f"{run.overload.processor_share:.0%} of a core", ""),
    }


def _recovery(run: _Run) -> str:
    """Say in which second after the overload everything was as before."""
    usual = percentile(run.before.having(200), 99)
    seconds: dict[int, list[Answered]] = {}
    for answer in run.after.answers:
        seconds.setdefault(int(answer.at), []).append(answer)
    for second, answers in sorted(seconds.items()):
        if all(answer.status == 200 for answer in answers) and percentile(answers, 99) <= _RECOVERED * usual:
            return f"{second} s"
    return "never"
