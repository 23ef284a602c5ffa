"""The clock tells a stranger nothing: who exists, who is disabled, which client is registered.

Real argon2 parameters, throttling on, medians of interleaved requests. What is measured is the processor time that the
server takes, for the time that passes tells more about who else is at work on the machine: a test suite, for one.
A round may still be spoilt, so there are three: a difference that is really there shows in each.

Not collected with the suite, for a clock on a busy machine proves nothing: name the file to pytest to run it.
"""

import itertools
import secrets
import statistics
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from authserver.services import Services
from authserver.settings import Settings
from authserver.users.models import User
from tests.bench.processes import processor_seconds
from tests.factories import PASSWORD, App, NewClient, basic
from tests.interop.conftest import program

ROUNDS = 3
SAMPLES = 30
TOLERANCE = 1.15

pytestmark = pytest.mark.slow

Node = tuple[httpx.AsyncClient, int]
"""A client of a server process, and the process' id."""
Requests = dict[str, Callable[[], dict[str, Any]]]


@pytest.fixture(scope="module")
async def node(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    """A server as it is by default."""
    running = program(
        settings,
        tmp_path_factory.mktemp("default"),
        throttle_enabled=True,
        throttle_account_free_failures=100,
        throttle_address_failures_per_minute=1_000_000,
        throttle_client_failures_per_minute=1_000_000,
        throttle_client_secret_failures_per_minute=1_000_000,
        argon2_memory_kib=19_456,
        argon2_time_cost=2,
    )
    try:
        await running.ready()
        async with httpx.AsyncClient(base_url=running.url, timeout=30) as client:
            yield client, running.process.pid
    finally:
        running.kill()


async def medians(node: Node, path: str, requests: Requests, expected: tuple[int, str]) -> dict[str, float]:
    client, process = node
    seconds: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(SAMPLES):
        for name in sorted(requests, key=lambda _: secrets.randbits(16)):
            asked = requests[name]()
            before = processor_seconds(process)
            answer = await client.post(path, **asked)
            seconds[name].append(processor_seconds(process) - before)
            assert (answer.status_code, answer.json()["error"]) == expected, (name, answer.text)
    return {name: statistics.median(samples) for name, samples in seconds.items()}


async def assert_equal(node: Node, path: str, requests: Requests, expected: tuple[int, str]) -> None:
    for _ in range(ROUNDS):
        took = await medians(node, path, requests, expected)
        if max(took.values()) / min(took.values()) <= TOLERANCE:
            return
    pytest.fail(f"the answers differ in time: {took}")


async def test_no_user_can_be_told_from_another(node: Node, new_client: NewClient, services: Services) -> None:
    app, (client, _) = await new_client(), node

    async def register() -> str:
        name = f"user-{secrets.token_hex(6)}"
        user = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        assert (await client.post("/register", json=user)).status_code == 201
        return name

    # Enough for nobody to come to the hundredth wrong password.
    users, disabled = [await register() for _ in range(ROUNDS)], [await register() for _ in range(2 * ROUNDS)]
    async with services.db.write() as tx:
        await tx.execute(update(User).where(User.username.in_(disabled)).values(is_active=False))
    the_next_user, the_next_disabled = itertools.cycle(users), itertools.cycle(disabled)

    def sign_in(username: str, password: str = "this is not the password") -> dict[str, Any]:
        return {"data": {"grant_type": "password", "username": username, "password": password}, "auth": basic(app)}

    requests: Requests = {
        "wrong password": lambda: sign_in(next(the_next_user)),
        "unknown user": lambda: sign_in(f"nobody-{secrets.token_hex(6)}"),
        "disabled user": lambda: sign_in(next(the_next_disabled)),
        "disabled user, right password": lambda: sign_in(next(the_next_disabled), PASSWORD),
    }
    await assert_equal(node, "/token", requests, (400, "invalid_grant"))


@pytest.mark.parametrize("path", ["/token", "/introspect", "/revoke"])
async def test_no_client_can_be_told_from_another(node: Node, new_client: NewClient, path: str) -> None:
    app, public, disabled = await new_client(), await new_client(is_public=True), await new_client(is_active=False)

    def ask(client_id: str) -> dict[str, Any]:
        wrong = App(client_id, "authserver_cs_" + secrets.token_urlsafe(32))
        return {"data": {"grant_type": "refresh_token", "token": "x"}, "auth": basic(wrong)}

    requests: Requests = {
        "wrong secret": lambda: ask(app.client_id),
        "unknown client": lambda: ask(secrets.token_hex(16)),
        "public client with a secret": lambda: ask(public.client_id),
        "disabled client": lambda: ask(disabled.client_id),
    }
    await assert_equal(node, path, requests, (401, "invalid_client"))
