"""Whatever becomes of a connection to Redis is a StoreUnavailable. The server runs on uvloop, so these tests do too."""

import asyncio
import time
from collections.abc import Awaitable
from time import monotonic

import pytest
import uvloop
from redis.asyncio.connection import AbstractConnection

from authserver import patience
from authserver.errors import StoreUnavailable
from authserver.redis import Redis
from authserver.settings import Settings
from authserver.tokens.copy import Copy
from tests.servers import Valkey


def test_a_connection_that_is_reset_as_soon_as_it_is_made_is_a_store_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    introduce = AbstractConnection.on_connect_check_health

    async def be_reset_first(connection: AbstractConnection, check_health: bool = True) -> None:
        assert connection._writer
        connection._writer.transport.abort()
        await introduce(connection, check_health)

    monkeypatch.setattr(AbstractConnection, "on_connect_check_health", be_reset_first)

    async def ask(url: str) -> None:
        line = Redis(Settings(_env_file=None, redis_url=url)).line("x")
        try:
            with pytest.raises(StoreUnavailable):
                await line.ask(("GET", "x"))
        finally:
            await line.close()

    with Valkey() as valkey, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask(valkey.url()))


async def test_who_asks_a_silent_redis_in_a_crowd_does_not_wait_for_all_before() -> None:
    with Valkey() as valkey:
        line = Redis(Settings(_env_file=None, redis_url=valkey.url(), breaker_max_failures=100)).line("x")
        await line.ask(("GET", "x"))
        valkey.hang()
        began = monotonic()
        crowd = [asyncio.create_task(line.ask(("GET", "x"))) for _ in range(40)]
        await asyncio.wait(crowd[:1])
        first = monotonic() - began
        await asyncio.wait(crowd)
        assert monotonic() - began < 10 * first
        assert {type(task.exception()) for task in crowd} == {StoreUnavailable}
        valkey.resume()
        assert (await line.ask(("GET", "x")))[0] == [None]
        await line.close()


async def test_what_ran_out_of_time_while_the_process_stood_still_says_nothing_against_redis() -> None:
    with Valkey() as valkey:
        redis = Redis(Settings(_env_file=None, redis_url=valkey.url(), breaker_max_failures=2))
        waiting = [asyncio.create_task(redis.ask(lambda client: client.blpop(["x"], 0.1))) for _ in range(4)]
        while len(await redis.ask(lambda client: client.client_list())) <= len(waiting):  # noqa: ASYNC110 - it is about Redis
            await asyncio.sleep(0.01)
        time.sleep(1)  # noqa: ASYNC251 - that is the standstill
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(end) for end in ended} == {StoreUnavailable}
        assert await redis.ask(lambda client: client.get("x")) is None
        await redis.close()


async def test_a_silent_redis_is_waited_for_once_whatever_the_steps_of_a_round_trip() -> None:
    with Valkey() as valkey:
        redis = Redis(Settings(_env_file=None, redis_url=valkey.url()))
        redis.timeout = 0.6
        copy = Copy(redis)
        await copy.line.run()
        valkey.hang()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            await copy.look(["x"])
        assert 0.5 < time.monotonic() - began < 1.1
        await copy.line.close()
        await redis.close()


@pytest.mark.parametrize("kind", ["ask", "look", "add"])
async def test_a_request_that_has_waited_for_redis_has_less_time_for_the_database(kind: str) -> None:
    with Valkey() as valkey:
        redis = Redis(Settings(_env_file=None, redis_url=valkey.url()))
        copy = Copy(redis)
        run = await copy.line.run()
        valkey.hang()
        patience.begin_request()
        asking: Awaitable[object]
        if kind == "ask":
            asking = redis.ask(lambda client: client.get("x"))
        elif kind == "look":
            asking = copy.look(["x"])
        else:
            asking = copy.add(run, "marker", {"x": 1.0})
        with pytest.raises(StoreUnavailable, match=r"in time|Timeout reading"):  # the operator reads why
            await asking
        with patience.share(patience.REQUEST_SECONDS) as left:
            assert left < patience.REQUEST_SECONDS - 0.9 * redis.timeout
        await copy.line.close()
        await redis.close()
