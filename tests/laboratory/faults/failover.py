"""Two Redis: a replica that lags takes over, both think they are the primary, the primary is demoted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.laboratory.faults.fault import fault
from tests.laboratory.nodes import Laboratory
from tests.laboratory.proxy import Proxy
from tests.servers import LOOPBACK

_SYNC_SECONDS = 10.0


@fault("redis-failover", "a replica that lags by a second takes the place of a killed Redis; later the old one, empty")
async def failover(lab: Laboratory) -> AsyncIterator[None]:
    async with _replica(lab) as replication:
        replication.swallow()
        await asyncio.sleep(1)
        lab.redis.kill()
        await _promote(lab)
        for edge in lab.edges("redis"):
            edge.switch(lab.spare.port)
        yield
        await asyncio.to_thread(lab.redis.start)
        _back(lab)


@fault("redis-failover-quiet", "a replica that lags takes over while the connections to the old Redis stay")
async def failover_quiet(lab: Laboratory) -> AsyncIterator[None]:
    async with _replica(lab) as replication:
        replication.swallow()
        await asyncio.sleep(1)
        await _promote(lab)
        lab.b.to_redis.switch(lab.spare.port)
        await asyncio.sleep(1)
        lab.a.to_redis.switch(lab.spare.port)
        yield
        _back(lab)


@fault("redis-split-brain", "a replica is promoted: node A speaks with the old primary, node B with the new one")
async def split_brain(lab: Laboratory) -> AsyncIterator[None]:
    async with _replica(lab):
        await _promote(lab)
        lab.b.to_redis.switch(lab.spare.port)
        yield
        _back(lab)


@fault("redis-demoted", "Redis becomes the replica of an empty one, while the nodes stay connected to it")
async def demoted(lab: Laboratory) -> AsyncIterator[None]:
    async with lab.admin() as redis:
        await redis.replicaof(LOOPBACK, lab.spare.port)
        yield
        await redis.replicaof("NO", "ONE")


@asynccontextmanager
async def _replica(lab: Laboratory) -> AsyncIterator[Proxy]:
    """Have the spare Redis follow the first one, through a proxy."""
    async with Proxy(lab.redis.port) as replication, lab.admin(lab.spare) as spare:
        await spare.replicaof(LOOPBACK, replication.port)
        async with asyncio.timeout(_SYNC_SECONDS):
            while (await spare.info("replication"))["master_link_status"] != "up":  # noqa: ASYNC110 - it is not ours
                await asyncio.sleep(0.02)
        yield replication
        await spare.replicaof("NO", "ONE")
        await spare.flushall()


async def _promote(lab: Laboratory) -> None:
    async with lab.admin(lab.spare) as spare:
        await spare.replicaof("NO", "ONE")


def _back(lab: Laboratory) -> None:
    for edge in lab.edges("redis"):
        edge.switch(lab.redis.port)
