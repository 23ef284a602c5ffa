"""Whatever becomes of a connection to Redis is a StoreUnavailable. The server runs on uvloop, so these tests do too."""

import asyncio

import pytest
import uvloop
from redis.asyncio.connection import AbstractConnection

from authserver.errors import StoreUnavailable
from authserver.redis import Redis
from authserver.settings import Settings
from tests.servers import Valkey


def test_a_connection_that_is_reset_as_soon_as_it_is_made_is_a_store_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    introduce = AbstractConnection.on_connect

    async def be_reset_first(connection: AbstractConnection) -> None:
        assert connection._writer
        connection._writer.transport.abort()
        await introduce(connection)

    monkeypatch.setattr(AbstractConnection, "on_connect", be_reset_first)

    async def ask(url: str) -> None:
        line = Redis(Settings(_env_file=None, redis_url=url)).line("x")
        try:
            with pytest.raises(StoreUnavailable):
                await line.ask(("GET", "x"))
        finally:
            await line.close()

    with Valkey() as valkey, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask(valkey.url()))
