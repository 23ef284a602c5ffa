"""How much machine so many people need: the arithmetic of docs/capacity.md, with figures measured here."""

import math
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import asyncpg
from redis.asyncio import Redis

from authserver.settings import Settings
from authserver.tokens.copy import KEY
from authserver.tokens.denylist import MARGIN
from tests.bench import contest, crowd, report, site
from tests.bench.contest import Sample, median
from tests.bench.operations import KINDS, THROTTLED, Operation
from tests.bench.report import Options, Outcome
from tests.bench.servers import both_stores

_NAMES = ("introspect", "refresh", "revoke", THROTTLED)
_PEOPLE = 100_000
_TABLES = ("users", "user_sessions", "denylist_entries")
_BUSY = 0.6
"""Of the processors, at most: the rest is for bad minutes and for a node that is missing."""
_CORES = 4
"""Of a node, with as many workers."""
_STAY_SECONDS = 1800
"""Somebody who signs in stays so long, refreshes meanwhile, and signs out."""


@dataclass(frozen=True)
class _Demand:
    people: int
    sign_ins: int
    """A second, at the busiest time."""
    introspections: int
    """A second."""


_DEMANDS = (_Demand(100_000, 5, 500), _Demand(1_000_000, 50, 5_000), _Demand(10_000_000, 500, 50_000))


async def capacity(options: Options) -> Outcome:
    """Measure what everything takes, and do the arithmetic for three sizes."""
    async with AsyncExitStack() as stack:
        options.say("filling a database, starting authserver …")
        stores = await stack.enter_async_context(both_stores())
        fill = partial(crowd.fill, people=_PEOPLE, revocations=_PEOPLE)
        place = await stack.enter_async_context(
            site.opened(stores, "capacity", workers=options.workers, fill=fill, throttle_enabled=True)
        )
        room = await _bytes_a_row(stores.postgres.plain_url("capacity"))
        room["Redis"] = await _bytes_an_entry(stores.valkey.url())
        operations = [Operation(name, KINDS[name], place) for name in _NAMES]
        samples = await contest.take_turns(operations, options.rounds, options.seconds, options.say)
        settings = place.node.settings
    costs = {name: median(samples[name]) for name in _NAMES}
    text = "\n\n".join(
        [
            "What one takes:",
            report.table(("", "server, µs", "PostgreSQL and Redis, µs"), [
                (KINDS[name].title, f"{cost.server_us:,.0f}", f"{cost.stores_us or 0:,.0f}")
                for name, cost in costs.items()
            ]),
            report.table(("", "bytes"), [
                ("a user in PostgreSQL, indexes included", f"{room['users']:,.0f}"),
                ("a session in PostgreSQL", f"{room['user_sessions']:,.0f}"),
                ("a revocation in PostgreSQL", f"{room['denylist_entries']:,.0f}"),
                ("a revocation in Redis (MEMORY USAGE)", f"{room['Redis']:,.0f}"),
            ]),
            "What that comes to:",
            _arithmetic(costs, room, settings),
        ]
    )  # fmt: skip
    return Outcome(text, {**contest.as_json(samples), "bytes": room})


def _arithmetic(costs: Mapping[str, Sample], room: Mapping[str, float], settings: Settings) -> str:
    columns = []
    for demand in _DEMANDS:
        refreshes = demand.sign_ins * _STAY_SECONDS / settings.access_token_seconds
        rates = {"introspect": demand.introspections, "refresh": refreshes, "revoke": demand.sign_ins,
                 THROTTLED: demand.sign_ins}  # fmt: skip
        cores = sum(rate * costs[name].server_us for name, rate in rates.items()) / 1e6 / _BUSY
        store_cores = sum(rate * (costs[name].stores_us or 0) for name, rate in rates.items()) / 1e6 / _BUSY
        nodes = max(2, math.ceil(cores / _CORES) + 1)
        entries = demand.sign_ins * (settings.access_token_seconds + MARGIN.total_seconds())
        sessions = demand.sign_ins * settings.refresh_token_idle_seconds
        columns.append([
            f"{demand.people:,}", f"{demand.sign_ins:,}", f"{demand.introspections:,}", f"{refreshes:,.0f}",
            f"{cores:,.1f}", f"{nodes}", f"{nodes * _CORES * settings.database_pool_size}", f"{store_cores:,.1f}",
            f"{entries:,.0f}", f"{2 * entries * room['Redis'] / 2**20:,.1f} MiB",
            f"{(demand.people * room['users'] + sessions * room['user_sessions']) / 2**30:,.1f} GiB",
        ])  # fmt: skip
    labels = ("people", "sign-ins a second", "introspections a second", "refreshes a second", "cores",
              f"nodes of {_CORES} cores, one to spare", "PostgreSQL connections at most", "cores of both stores",
              "revocations remembered", "Redis, while a copy is made anew", "PostgreSQL's tables")  # fmt: skip
    lines = [(label, *(column[number] for column in columns)) for number, label in enumerate(labels)]
    return report.table(("", "small", "middle", "large"), lines)


async def _bytes_a_row(url: str) -> dict[str, float]:
    """Return what a row takes in each table, indexes included."""
    connection = await asyncpg.connect(url)
    try:
        return {
            table: await connection.fetchval(f"SELECT pg_total_relation_size('{table}') / count(*)::float FROM {table}")
            for table in _TABLES
        }
    finally:
        await connection.close()


async def _bytes_an_entry(url: str) -> float:
    async with Redis.from_url(url) as redis:
        used, count = await redis.memory_usage(KEY, samples=0), await redis.zcard(KEY)
    return int(used or 0) / count
