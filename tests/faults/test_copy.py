"""The copy of the denylist in a real Valkey: what it refuses."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from authserver.errors import StoreUnavailable
from authserver.redis import Redis
from authserver.settings import Settings
from authserver.tokens.copy import KEY, Copy, new_name
from tests.servers import Valkey, free_port


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    with Valkey() as server:
        redis = Redis(Settings(_env_file=None, redis_url=server.url()))
        redis.timeout = 5.0
        yield redis
        await redis.close()


async def test_an_entry_is_added_only_in_the_process_that_was_meant(redis: Redis) -> None:
    copy = Copy(redis)
    run, name = await copy.line.run(), new_name()
    await copy.fill(name, run, {"j:revoked": 1.0})
    assert await copy.install(name, run, "!1:marker", 1)
    try:
        # As after a failover: the marker is there, but some may still believe the process that was there before.
        assert not await copy.add("another process", "!1:marker", {"j:new": 1.0})
        assert not await copy.add(run, "!1:another", {"j:new": 1.0})
        assert await redis.ask(lambda client: client.zrange(KEY, 0, -1)) == ["j:revoked", "!1:marker"]
        # Two at a time: one who means a process that is gone does not keep the other from what he means.
        both = copy.add("another process", "!1:marker", {"j:lost": 1.0}), copy.add(run, "!1:marker", {"j:new": 1.0})
        assert list(await asyncio.gather(*both)) == [False, True]
        assert (await copy.look(["j:new", "!1:marker"])).found == {"j:new", "!1:marker"}
    finally:
        await copy.line.close()


@pytest.mark.parametrize("is_master_again", [False, True])
async def test_nothing_is_added_in_a_process_that_has_become_a_replica_or_was_one(
    redis: Redis, is_master_again: bool
) -> None:
    copy = Copy(redis)
    run, name = await copy.line.run(), new_name()
    assert await copy.install(name, run, "!1:marker", 0)
    # Since it was asked for its name; and it is one that takes writes all the same.
    await redis.ask(lambda client: client.config_set("replica-read-only", "no"))
    await redis.ask(lambda client: client.replicaof("127.0.0.1", free_port()))
    if is_master_again:
        await redis.ask(lambda client: client.replicaof("NO", "ONE"))
    try:
        assert not await copy.add(run, "!1:marker", {"j:new": 1.0})
        assert await redis.ask(lambda client: client.zrange(KEY, 0, -1)) == ["!1:marker"]
    finally:
        await copy.line.close()


async def test_a_new_copy_is_not_begun_in_another_process(redis: Redis) -> None:
    copy = Copy(redis)
    try:
        with pytest.raises(StoreUnavailable, match="another process answers"):
            await copy.fill(new_name(), "another process", {"j:revoked": 1.0})
        assert await redis.ask(lambda client: client.dbsize()) == 0
        assert redis.breaker.state == "closed"
        assert not await copy.install(new_name(), "another process", "!1:marker", 0)
        assert not await redis.ask(lambda client: client.exists(KEY))
    finally:
        await copy.line.close()
