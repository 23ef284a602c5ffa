"""One Redis: killed, hung, emptied, full, rolled back, refusing writes."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from functools import partial

from authserver.tokens import copy
from tests.laboratory.faults.fault import fault, meanwhile, wholly
from tests.laboratory.nodes import Laboratory
from tests.servers import Valkey

POLICIES = ("noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu",
            "volatile-random", "volatile-ttl")  # fmt: skip
_ROOM_BYTES = 300_000
"""Redis may grow by so much before it is full."""
_SAVE_SECONDS = 0.5
_OTHERS = 9
"""The database of the keys that push."""


@fault("none", "nothing is broken")
async def none(lab: Laboratory) -> AsyncIterator[None]:
    yield


@fault("redis-killed", "Redis is killed, and started empty later")
async def killed(lab: Laboratory) -> AsyncIterator[None]:
    lab.redis.kill()
    yield
    await asyncio.to_thread(lab.redis.start)


@fault("redis-hung", "Redis hangs (SIGSTOP)")
async def hung(lab: Laboratory) -> AsyncIterator[None]:
    lab.redis.hang()
    yield
    lab.redis.resume()


@fault("redis-restarted", "Redis is killed and started empty at once, again and again")
async def restarted(lab: Laboratory) -> AsyncIterator[None]:
    async def restart() -> None:
        while True:
            await wholly(partial(_restart, lab.redis))
            await asyncio.sleep(1)

    async with meanwhile(restart()):
        yield


@fault("redis-flapping", "Redis hangs and goes on, every half second")
async def flapping(lab: Laboratory) -> AsyncIterator[None]:
    async with meanwhile(flap(lab, 0.5, 0.5)):
        yield
    lab.redis.resume()


async def flap(lab: Laboratory, down_seconds: float, up_seconds: float) -> None:
    """Hang Redis and let it go on. Runs for ever."""
    while True:
        lab.redis.hang()
        await asyncio.sleep(down_seconds)
        lab.redis.resume()
        await asyncio.sleep(up_seconds)


@fault("redis-flushed", "FLUSHALL, every half second")
async def flushed(lab: Laboratory) -> AsyncIterator[None]:
    async def flush() -> None:
        async with lab.admin() as redis:
            while True:
                await redis.flushall()
                await asyncio.sleep(0.5)

    async with meanwhile(flush()):
        yield


@fault("redis-key-lost", "the copy alone is deleted, every 0.3 seconds")
async def key_lost(lab: Laboratory) -> AsyncIterator[None]:
    async def delete() -> None:
        async with lab.admin() as redis:
            while True:
                await redis.delete(copy.KEY)
                await asyncio.sleep(0.3)

    async with meanwhile(delete()):
        yield


async def full(policy: str, lab: Laboratory) -> AsyncIterator[None]:
    """Other keys push into a Redis that has no room, half of them with a time to live."""
    async with lab.admin() as redis:
        used = int((await redis.info("memory"))["used_memory"])
        await redis.config_set("maxmemory-policy", policy)
        await redis.config_set("maxmemory", used + _ROOM_BYTES)
        async with meanwhile(_push(lab)):
            yield
        await redis.config_set("maxmemory", 0)
        await redis.config_set("maxmemory-policy", "noeviction")
    async with lab.admin(database=_OTHERS) as others:
        await others.flushdb()


for _policy in POLICIES:
    fault(f"redis-full-{_policy}", f"maxmemory with {_policy}, while other keys push")(partial(full, _policy))


@fault("redis-old-dump", "Redis is killed and comes back with a dump that is a second old")
async def old_dump(lab: Laboratory) -> AsyncIterator[None]:
    dump = lab.redis.directory / "dump.rdb"
    async with lab.admin() as redis:
        await redis.save()
    await asyncio.sleep(1)
    lab.redis.kill()
    await asyncio.to_thread(lab.redis.start)
    yield
    dump.unlink()


@fault("redis-misconf", "Redis cannot write its dump (MISCONF) and refuses writes")
async def misconf(lab: Laboratory) -> AsyncIterator[None]:
    in_the_way = lab.redis.directory / "dump.rdb"
    in_the_way.mkdir()
    async with lab.admin() as redis:
        await redis.config_set("save", "3600 1")
        await redis.bgsave()
        await asyncio.sleep(_SAVE_SECONDS)
        assert (await redis.info("persistence"))["rdb_last_bgsave_status"] == "err"
        yield
        await redis.config_set("save", "")
        in_the_way.rmdir()
        await redis.bgsave()
    await asyncio.sleep(_SAVE_SECONDS)
    in_the_way.unlink()


@fault("redis-no-replicas", "Redis refuses writes (min-replicas-to-write)")
async def no_replicas(lab: Laboratory) -> AsyncIterator[None]:
    async with lab.admin() as redis:
        await redis.config_set("min-replicas-to-write", 1)
        yield
        await redis.config_set("min-replicas-to-write", 0)


def _restart(redis: Valkey) -> None:
    redis.kill()
    redis.start()


async def _push(lab: Laboratory) -> None:
    async with lab.admin(database=_OTHERS) as others:
        while True:
            async with others.pipeline(transaction=False) as pipe:
                for number in range(100):
                    _ = pipe.set(secrets.token_hex(8), "x" * 1000, ex=60 if number % 2 else None)
                await pipe.execute(raise_on_error=False)
            await asyncio.sleep(0.02)
