"""A storm of sign-ins: what becomes of introspection, of the surplus, and of the memory."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

from tests.bench import pace, report, site
from tests.bench.limits import raw_argon2
from tests.bench.operations import KINDS, Operation
from tests.bench.pace import Paced, Plan, percentile
from tests.bench.processes import peak_mib
from tests.bench.report import Options, Outcome
from tests.bench.servers import both_stores
from tests.bench.site import Site

PROBES_A_SECOND = 200
"""Introspections: few enough for their time to be that of waiting, not of work."""
_TIMES_CAPACITY = 3
_CONNECTIONS = 512


@dataclass(frozen=True)
class _Round:
    calm: Paced
    """Introspections with nothing else to do."""
    stormy: Paced
    """Introspections beside the sign-ins."""
    sign_ins: Paced
    calm_mib: float
    stormy_mib: float
    """The most that the workers had resident."""


async def storm(options: Options) -> Outcome:
    """Let calm and storm alternate."""
    async with AsyncExitStack() as stack:
        options.say("starting authserver and filling its database …")
        stores = await stack.enter_async_context(both_stores())
        place = await stack.enter_async_context(site.opened(stores, "storm", workers=options.workers))
        pool = await stack.enter_async_context(pace.generators(2))
        raw = await raw_argon2(place.node.settings).measure(options.seconds)
        await Operation("password", KINDS["password"], place).measure(options.seconds)  # warms up
        rounds = []
        for number in range(1, options.rounds + 1):
            options.say(f"  {number}/{options.rounds} calm, then a storm of {raw.per_second * _TIMES_CAPACITY:.0f}/s")
            rounds.append(await _round(pool, place, raw.per_second * _TIMES_CAPACITY, options.seconds))
    return _outcome(rounds, raw.per_second, options)


async def _round(pool: ProcessPoolExecutor, place: Site, sign_ins_a_second: float, seconds: float) -> _Round:
    workers = place.node.workers()
    probes = await _plan(place, "introspect", PROBES_A_SECOND, seconds)
    sign_ins = await _plan(place, "password", sign_ins_a_second, seconds)
    async with peak_mib(workers) as calm_mib:
        calm = await pace.follow(pool, probes)
    async with peak_mib(workers) as stormy_mib:
        stormy, signed_in = await asyncio.gather(pace.follow(pool, probes), pace.follow(pool, sign_ins))
    return _Round(calm, stormy, signed_in, calm_mib[0], stormy_mib[0])


async def _plan(place: Site, name: str, per_second: float, seconds: float) -> Plan:
    sent = await Operation(name, KINDS[name], place).prepared(seconds)
    return Plan(place.node.port, sent.requests, per_second, seconds, _CONNECTIONS)


def _outcome(rounds: Sequence[_Round], raw: float, options: Options) -> Outcome:
    calm, stormy = (median(percentile(p.having(200), 99) for p in those)
                    for those in ([r.calm for r in rounds], [r.stormy for r in rounds]))  # fmt: skip
    surplus = [answer for r in rounds for answer in r.sign_ins.having(503)]
    introspections = [answer for r in rounds for answer in r.stormy.answers]
    sign_ins = [answer for r in rounds for answer in r.sign_ins.answers]
    signed_in = sum(len(r.sign_ins.having(200)) for r in rounds)
    took = median(max(a.at + a.seconds for a in r.sign_ins.having(200)) for r in rounds) * len(rounds)
    grown = max(r.stormy_mib - r.calm_mib for r in rounds)
    hashes = max(options.workers, len(os.sched_getaffinity(0)))
    figures = [
        ("introspection p99, calm", f"{calm:.1f} ms", ""),
        ("introspection p99, storm", f"{stormy:.1f} ms", "≤ 3 × calm"),
        ("ratio", f"{stormy / calm:.1f}", "≤ 3"),
        ("introspections in the storm ended", pace.ends(introspections), "all × 200"),
        ("sign-ins a second", f"{signed_in / took:.1f}", f"≥ {0.95 * raw:.1f} (0.95 × argon2 alone)"),
        ("sign-ins ended", pace.ends(sign_ins), "200 or 503"),
        ("surplus without Retry-After", str(sum(not answer.is_told_when for answer in surplus)), "0"),
        ("surplus, p50", f"{percentile(surplus, 50):.1f} ms", "at once"),
        ("surplus, p99", f"{percentile(surplus, 99):.1f} ms", "at once"),
        ("memory above calm, all workers", f"{grown:.1f} MiB", f"≤ {hashes * 19} MiB ({hashes} hashes of 19 MiB)"),
    ]
    text = report.table(("", "measured", "target"), figures)
    return Outcome(text, {"storm": {name: value for name, value, _ in figures}})
