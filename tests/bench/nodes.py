"""One, two and four nodes on one PostgreSQL and one Valkey."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import psutil

from tests.bench import contest, report, site
from tests.bench.contest import Sample
from tests.bench.operations import KINDS, Operation
from tests.bench.report import Options, Outcome
from tests.bench.servers import both_stores, serving, settings_of
from tests.bench.site import Site
from tests.pgbouncer import PgBouncer

_COUNTS = (1, 2, 4)
_NAMES = ("introspect", "refresh", "revoke", "password")


@dataclass(frozen=True)
class Cluster:
    """One operation on several nodes at the same time."""

    name: str
    title: str
    operations: Sequence[Operation]

    async def measure(self, seconds: float) -> Sample:
        """Drive all nodes, each with connections of its own."""
        # First all of it for all of them: who prepares keeps this process busy, and the nodes are to be so together.
        prepared = [(operation, await operation.prepared(seconds)) for operation in self.operations]
        samples = await asyncio.gather(*(operation.driven(load, seconds) for operation, load in prepared))
        rate = sum(sample.per_second for sample in samples)
        # Each sample has its own node's processor time, but all of the stores'.
        server = sum(sample.server_us * sample.per_second for sample in samples)
        stores = sum((sample.stores_us or 0) * sample.per_second for sample in samples) / len(samples)
        return Sample(
            per_second=rate,
            p50_ms=max(sample.p50_ms for sample in samples),
            p99_ms=max(sample.p99_ms for sample in samples),
            server_us=server / rate if rate else 0.0,
            stores_us=stores / rate if rate else 0.0,
            generator_share=sum(sample.generator_share or 0 for sample in samples),
            failures=sum(sample.failures for sample in samples),
            notes=[note for sample in samples for note in sample.notes],
        )


async def nodes(options: Options) -> Outcome:
    """Measure some operations on one node of one process, on two, on four."""
    async with AsyncExitStack() as stack:
        options.say("starting the nodes …")
        stores = await stack.enter_async_context(both_stores())
        first = await stack.enter_async_context(site.opened(stores, "nodes", workers=1))
        sites = [first, *[await _another(stack, first) for _ in range(max(_COUNTS) - 1)]]
        pooler = stack.enter_context(PgBouncer(stores.postgres.url())) if PgBouncer.program() else None
        pooled = [await _another(stack, first, **_behind(pooler)) for _ in range(2)] if pooler else []
        clusters = [
            Cluster(f"{count} {name}", f"{KINDS[name].title}, {count} node{'s' * (count > 1)}",
                    [Operation(name, KINDS[name], place) for place in sites[:count]])
            for name in _NAMES for count in _COUNTS
        ] + [
            Cluster(f"pooled {name}", f"{KINDS[name].title}, 2 nodes through PgBouncer",
                    [Operation(name, KINDS[name], place) for place in pooled])
            for name in _NAMES if pooled
        ]  # fmt: skip
        samples = await contest.take_turns(clusters, options.rounds, options.seconds, options.say)
        connections = sum(_connections(place) for place in sites)
    said = f"PostgreSQL connections of {len(sites)} nodes with one process each: {connections}."
    text = f"{report.samples_table(clusters, samples)}\n\n{said}"
    return Outcome(text, {**contest.as_json(samples), "connections": connections})


def _behind(pooler: PgBouncer) -> dict[str, object]:
    return {"database_url": pooler.url("nodes"), "database_pooler": True}


async def _another(stack: AsyncExitStack, first: Site, **changes: object) -> Site:
    """Start one more node with the settings of the first, the issuer included."""
    node = await stack.enter_async_context(serving(first.stores, settings_of(first.node) | changes, workers=1))
    await site.trusted(node)
    return replace(first, node=node)


def _connections(place: Site) -> int:
    """Return how many connections to PostgreSQL a node's workers have."""
    port = place.stores.postgres.port
    open_ones = [one for pid in place.node.workers() for one in psutil.Process(pid).net_connections()]
    return sum(one.status == psutil.CONN_ESTABLISHED and one.raddr.port == port for one in open_ones)
