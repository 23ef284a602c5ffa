"""The copy of the denylist in a real Valkey: what it refuses."""

from collections.abc import AsyncIterator

import pytest

from authserver.redis import Redis
from authserver.settings import Settings
from authserver.tokens.copy import KEY, Copy, new_name
from tests.servers import Valkey


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
        assert await copy.add(run, "!1:marker", {"j:new": 1.0})
        assert (await copy.look(["j:new", "!1:marker"])).found == {"j:new", "!1:marker"}
    finally:
        await copy.line.close()
