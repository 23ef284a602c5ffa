"""Nobody guesses passwords or secrets for long: counted by the minute, for each address and client."""

import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from freezegun import freeze_time
from sqlalchemy import func, select

from authserver import clock, throttle
from authserver.errors import TooManyAttempts
from authserver.redis import Redis
from authserver.services import Services
from authserver.settings import Settings
from authserver.throttle import CLIENT_SECRETS, Throttle, address_key
from authserver.users.models import AccountAttempts
from tests.application import client_of
from tests.factories import App, NewClient, NewUser, Person, sign_in
from tests.servers import LOOPBACK, free_port
from tests.test_register import assert_problem, somebody

WRONG = "not the right password"
SURE = {"throttle_enabled": True, "redis_timeout_seconds": 0.15}
"""Even on a busy machine Redis answers in time: what it did not count in time, each process counts for itself."""

AppWith = Callable[..., Awaitable[FastAPI]]
ClientWith = Callable[..., Awaitable[httpx.AsyncClient]]


def an_address() -> str:
    """Return an address that no other test has: the counters in Redis are shared."""
    return f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::1"


def later(seconds: float) -> Any:
    return freeze_time(clock.now() + timedelta(seconds=seconds), tick=True, real_asyncio=True)


def assert_throttled(response: httpx.Response) -> int:
    assert response.status_code == 429, response.text
    assert response.json()["error"] == "temporarily_unavailable"
    return int(response.headers["retry-after"])


async def guess(client: httpx.AsyncClient, app: App, user: Person, times: int, name: str | None = None) -> None:
    for _ in range(times):
        response = await sign_in(client, app, user, username=name, password=WRONG)
        assert response.status_code == 400, response.text


async def test_one_address_guesses_at_few_accounts_a_minute(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    node = await app_with(**SURE, throttle_address_failures_per_minute=5)
    app, network = await new_client(), an_address().removesuffix("::1")
    async with client_of(node, f"{network}::1") as guesser, client_of(node, f"{network}:1:2:3:4") as same_network:
        for _ in range(5):
            await guess(guesser, app, await new_user(), 1)
        for client in (guesser, same_network):
            assert 1 <= assert_throttled(await sign_in(client, app, await new_user())) <= 60
    async with client_of(node, an_address()) as other:
        assert (await sign_in(other, app, await new_user())).status_code == 200


async def test_through_one_client_only_so_many_guesses_a_minute_are_made(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    node = await app_with(**SURE, throttle_client_failures_per_minute=5)
    app, other_app = await new_client(), await new_client()
    for _ in range(5):
        async with client_of(node, an_address()) as client:
            await guess(client, app, await new_user(), 1)
    async with client_of(node, an_address()) as client:
        assert_throttled(await sign_in(client, app, await new_user()))
        assert (await sign_in(client, other_app, await new_user())).status_code == 200


async def test_one_address_registers_only_so_many_users_a_minute(client_with: ClientWith) -> None:
    client = await client_with(address=an_address(), **SURE, throttle_registrations_per_minute=5)
    for _ in range(5):
        assert (await client.post("/register", json=somebody())).status_code == 201
    response = await client.post("/register", json=somebody())
    assert_problem(response, 429, "too-many-requests")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    # What is not acceptable anyway says so.
    assert_problem(await client.post("/register", json=somebody(password="short")), 422, "invalid-input")


async def test_one_address_guesses_at_few_client_secrets_a_minute(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    node = await app_with(**SURE, throttle_client_secret_failures_per_minute=5)
    app, user = await new_client(), await new_user()
    wrong = App(app.client_id, "authserver_cs_" + "x" * 43)
    async with client_of(node, an_address()) as client:
        for _ in range(5):
            assert (await sign_in(client, wrong, user)).status_code == 401
        assert_throttled(await sign_in(client, wrong, user))
        assert (await sign_in(client, app, user)).status_code == 200


async def test_without_throttling_nothing_is_counted(
    client: httpx.AsyncClient, services: Services, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(), await new_user()
    async with services.db.read() as tx:
        before = await tx.scalar(select(func.count()).select_from(AccountAttempts))
    await guess(client, app, user, 15)
    assert (await sign_in(client, app, user)).status_code == 200
    async with services.db.read() as tx:
        assert await tx.scalar(select(func.count()).select_from(AccountAttempts)) == before


async def use_up(counting: Throttle, key: str) -> None:
    for _ in range(3):
        await counting.check(CLIENT_SECRETS, key)
        await counting.count(CLIENT_SECRETS, key)


async def test_nodes_with_a_redis_count_together(settings: Settings, services: Services) -> None:
    one_setting = settings.model_copy(
        update={"throttle_enabled": True, "throttle_client_secret_failures_per_minute": 3}
    )
    key = secrets.token_hex(8)
    await use_up(Throttle(one_setting, services.redis), key)
    other = Throttle(one_setting, services.redis)
    if not services.redis.is_configured:
        await other.check(CLIENT_SECRETS, key)  # each process counts for itself
        return
    with pytest.raises(TooManyAttempts) as refused:
        await other.check(CLIENT_SECRETS, key)
    assert 1 <= refused.value.retry_after <= 60


async def test_a_redis_that_is_down_is_made_up_for_in_memory() -> None:
    settings = Settings(
        _env_file=None,
        redis_url=f"redis://{LOOPBACK}:{free_port()}/0",
        throttle_client_secret_failures_per_minute=3,
    )
    redis = Redis(settings)
    counting = Throttle(settings, redis)
    await use_up(counting, "somebody")
    with pytest.raises(TooManyAttempts):
        await counting.check(CLIENT_SECRETS, "somebody")
    await counting.check(CLIENT_SECRETS, "somebody else")
    with later(61):
        await counting.check(CLIENT_SECRETS, "somebody")
    await redis.close()


async def test_the_memory_for_counters_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_MAX_COUNTERS", 100)
    settings = Settings(_env_file=None, throttle_client_secret_failures_per_minute=3)
    counting = Throttle(settings, Redis(settings))
    for number in range(1000):
        await counting.count(CLIENT_SECRETS, str(number))
    await use_up(counting, "somebody")
    with pytest.raises(TooManyAttempts):
        await counting.check(CLIENT_SECRETS, "somebody")
    assert len(counting._in_memory.storage._counters) <= 100  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("ip", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        (None, "unknown"),
        ("a unix socket", "unknown"),
    ],
)
def test_an_ipv6_customer_is_one_address(ip: str | None, key: str) -> None:
    assert address_key(ip) == key
