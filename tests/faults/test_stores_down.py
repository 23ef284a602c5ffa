"""PostgreSQL and Redis killed, hung, read-only, flushed and full under two running servers (docs/reliability.md).

No answer is ever false: 200s are true, everything else is a 503 with Retry-After within two seconds, and both servers
recover by themselves.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from authserver import migrations
from authserver.clients import registration
from authserver.services import Services
from authserver.settings import Settings
from authserver.tokens import copy
from tests.application import Program
from tests.factories import PASSWORD, App, basic, bearer
from tests.servers import Postgres, Valkey

pytestmark = pytest.mark.timeout(120)
READING = {
    "introspect",
    "introspect rubbish",
    "introspect a refresh token",
    "introspect as nobody",
    "sign in as nobody",
    "userinfo",
    "me",
    "sessions",
}
REDIS_FAULTS = ["killed", "hung", "flushed", "read-only", "full"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@dataclass
class Nodes:
    """Two servers on one PostgreSQL and one Redis, a client, and a user with tokens."""

    a: httpx.AsyncClient
    b: httpx.AsyncClient
    app: App
    username: str

    async def sign_in(self) -> dict[str, str]:
        data = {"grant_type": "password", "username": self.username, "password": PASSWORD}
        response = await self.a.post("/token", data=data, auth=basic(self.app))
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def introspect(self, node: httpx.AsyncClient, token: str) -> httpx.Response:
        return await node.post("/introspect", data={"token": token}, auth=basic(self.app))

    async def revoke(self, node: httpx.AsyncClient, token: str) -> httpx.Response:
        return await node.post("/revoke", data={"token": token}, auth=basic(self.app))

    async def refresh(self, node: httpx.AsyncClient, token: str) -> httpx.Response:
        data = {"grant_type": "refresh_token", "refresh_token": token}
        return await node.post("/token", data=data, auth=basic(self.app))

    async def is_active(self, node: httpx.AsyncClient, token: str) -> bool:
        response = await self.introspect(node, token)
        assert response.status_code == 200, response.text
        return bool(response.json()["active"])


@pytest.fixture(scope="module")
async def nodes(postgres: Postgres, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    url, directory = postgres.url(), tmp_path_factory.mktemp("nodes")
    settings = Settings(_env_file=None, database_url=url, argon2_memory_kib=8, argon2_time_cost=1)
    await asyncio.to_thread(migrations.upgrade, settings)
    async with Services.open(settings) as services, services.db.write() as tx:
        new = registration.NewClient("nodes", grants=["password", "refresh_token"])
        client, secret = registration.create(tx, services.clients, new)
    env = {
        "database_url": url,
        "redis_url": valkey.url(),
        "issuer": "http://127.0.0.1",
        "throttle_enabled": False,
        "argon2_memory_kib": 8,
        "argon2_time_cost": 1,
    }
    programs = [Program(directory, env) for _ in range(2)]
    try:
        for program in programs:
            await program.ready()
        async with (
            httpx.AsyncClient(base_url=programs[0].url, timeout=10) as a,
            httpx.AsyncClient(base_url=programs[1].url, timeout=10) as b,
        ):
            name = f"user-{secrets.token_hex(6)}"
            body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
            assert (await a.post("/register", json=body)).status_code == 201
            yield Nodes(a, b, App(client.id, secret), name)
    finally:
        for program in programs:
            program.kill()


async def eventually(holds: Callable[[], Any], seconds: float = 10) -> float:
    """Wait until `holds` does; return after how many seconds."""
    start = time.monotonic()
    while not await holds():
        assert time.monotonic() < start + seconds, "did not come to pass"
        await asyncio.sleep(0.05)
    return time.monotonic() - start


async def is_ready(node: httpx.AsyncClient, status: str = "ok") -> bool:
    response = await node.get("/health/ready")
    return bool(response.json()["status"] == status)


@pytest.fixture
async def healthy(nodes: Nodes) -> Nodes:
    """The nodes, both ready."""
    for node in (nodes.a, nodes.b):
        await eventually(partial(is_ready, node))
    return nodes


def assert_unavailable(response: httpx.Response, seconds: float) -> None:
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) >= 1
    assert seconds < 2
    if response.headers["content-type"] == "application/json":
        assert response.json()["error"] == "temporarily_unavailable"
    else:
        assert response.headers["content-type"] == "application/problem+json"


async def break_redis(valkey: Valkey, how: str) -> None:
    if how == "killed":
        valkey.kill()
    elif how == "hung":
        valkey.hang()
    else:
        async with Redis.from_url(valkey.url()) as redis:
            if how == "flushed":
                await redis.flushall()
            elif how == "read-only":
                await redis.config_set("min-replicas-to-write", 1)
            else:
                await redis.config_set("maxmemory", 1)


async def mend_redis(valkey: Valkey, how: str) -> None:
    if how == "killed":
        valkey.start()
    elif how == "hung":
        valkey.resume()
    else:
        async with Redis.from_url(valkey.url()) as redis:
            await redis.config_set("min-replicas-to-write", 0)
            await redis.config_set("maxmemory", 0)


@pytest.mark.parametrize("how", REDIS_FAULTS)
async def test_without_redis_everything_is_answered_and_true(healthy: Nodes, valkey: Valkey, how: str) -> None:
    nodes = healthy
    revoked_before, live, revoked_meanwhile = [await nodes.sign_in() for _ in range(3)]
    assert (await nodes.revoke(nodes.a, revoked_before["refresh_token"])).status_code == 200
    await break_redis(valkey, how)
    try:
        for round_ in range(8):  # before, while and after the breaker opens
            for node in (nodes.a, nodes.b):
                start = time.monotonic()
                assert not await nodes.is_active(node, revoked_before["access_token"])
                assert await nodes.is_active(node, live["access_token"])
                assert time.monotonic() - start < 2
            if round_ == 0:
                assert (await nodes.revoke(nodes.a, revoked_meanwhile["access_token"])).status_code == 200
            assert not await nodes.is_active(nodes.b, revoked_meanwhile["access_token"])
        assert (await nodes.refresh(nodes.b, live["refresh_token"])).status_code == 200
        assert (await nodes.a.get("/health/ready")).status_code == 200
    finally:
        await mend_redis(valkey, how)
    for node in (nodes.a, nodes.b):
        await eventually(partial(is_ready, node))
        assert not await nodes.is_active(node, revoked_before["access_token"])
        assert not await nodes.is_active(node, revoked_meanwhile["access_token"])
        assert await nodes.is_active(node, live["access_token"])


async def requests_that_need_the_database(
    nodes: Nodes, node: httpx.AsyncClient, tokens: dict[str, str]
) -> dict[str, Callable[[], Any]]:
    app, token = nodes.app, tokens["access_token"]
    name = f"user-{secrets.token_hex(6)}"
    new = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    password = {"grant_type": "password", "username": nodes.username, "password": PASSWORD}
    change = {"current_password": PASSWORD, "new_password": "another good long sentence"}
    stranger = httpx.BasicAuth("nobody", "nothing")
    return {
        "introspect": lambda: nodes.introspect(node, token),
        "introspect rubbish": lambda: nodes.introspect(node, "rubbish"),
        "introspect a refresh token": lambda: nodes.introspect(node, tokens["refresh_token"]),
        "introspect as nobody": lambda: node.post("/introspect", data={"token": token}, auth=stranger),
        "revoke": lambda: nodes.revoke(node, token),
        "revoke a refresh token": lambda: nodes.revoke(node, tokens["refresh_token"]),
        "refresh": lambda: nodes.refresh(node, tokens["refresh_token"]),
        "sign in": lambda: node.post("/token", data=password, auth=basic(app)),
        "sign in as nobody": lambda: node.post("/token", data=password, auth=stranger),
        "register": lambda: node.post("/register", json=new),
        "userinfo": lambda: node.get("/userinfo", headers=bearer(token)),
        "me": lambda: node.get("/users/me", headers=bearer(token)),
        "sessions": lambda: node.get("/users/me/sessions", headers=bearer(token)),
        "password": lambda: node.post("/users/me/password", json=change, headers=bearer(token)),
        "delete me": lambda: node.delete("/users/me", headers=bearer(token)),
    }


async def set_read_only(postgres: Postgres, is_on: bool) -> None:
    engine = create_async_engine(postgres.url(), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if is_on else 'off'}"))
        await connection.execute(text("SELECT pg_reload_conf()"))
    await engine.dispose()


@pytest.mark.parametrize("how", ["killed", "hung"])
async def test_without_the_database_every_answer_is_a_503(healthy: Nodes, postgres: Postgres, how: str) -> None:
    nodes = healthy
    tokens, revoked = await nodes.sign_in(), await nodes.sign_in()
    assert (await nodes.revoke(nodes.a, revoked["refresh_token"])).status_code == 200
    await asyncio.sleep(1.1)  # nobody may live on the short memory of clients
    postgres.kill() if how == "killed" else postgres.hang()
    try:
        for _ in range(2):
            for node in (nodes.a, nodes.b):
                for what, ask in (await requests_that_need_the_database(nodes, node, tokens)).items():
                    start = time.monotonic()
                    response = await ask()
                    seconds = time.monotonic() - start
                    assert response.status_code == 503, (what, response.text)
                    assert_unavailable(response, seconds)
                for path in ("/health/live", "/.well-known/jwks.json", "/.well-known/openid-configuration"):
                    assert (await node.get(path)).status_code == 200
                assert (await node.get("/health/ready")).status_code == 503
    finally:
        postgres.start() if how == "killed" else postgres.resume()
    for node in (nodes.a, nodes.b):
        assert await eventually(partial(is_ready, node)) < 5
    assert await nodes.is_active(nodes.a, tokens["access_token"])
    assert not await nodes.is_active(nodes.b, revoked["access_token"])
    assert (await nodes.refresh(nodes.b, tokens["refresh_token"])).status_code == 200  # it was not used up


async def test_a_read_only_database_refuses_writes_with_a_503(healthy: Nodes, postgres: Postgres) -> None:
    nodes = healthy
    tokens = await nodes.sign_in()
    await set_read_only(postgres, True)
    try:
        await asyncio.sleep(0.5)
        for what, ask in (await requests_that_need_the_database(nodes, nodes.a, tokens)).items():
            start = time.monotonic()
            response = await ask()
            if response.status_code == 503:
                assert_unavailable(response, time.monotonic() - start)
            else:  # reading goes on, and stays true
                assert what in READING, (what, response.text)
                assert response.status_code == (401 if "nobody" in what else 200)
    finally:
        await set_read_only(postgres, False)
    await eventually(partial(is_ready, nodes.a))
    assert (await nodes.refresh(nodes.a, tokens["refresh_token"])).status_code == 200


async def test_a_hundred_refreshes_on_two_nodes_have_one_successor(healthy: Nodes) -> None:
    nodes = healthy
    token = (await nodes.sign_in())["refresh_token"]
    answers = await asyncio.gather(*(nodes.refresh(node, token) for node in (nodes.a, nodes.b) for _ in range(50)))
    good = [answer.json()["refresh_token"] for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert len(set(good)) == 1
    assert (await nodes.refresh(nodes.b, good[0])).status_code == 200


async def test_a_revocation_on_one_node_holds_on_the_other_at_once(healthy: Nodes) -> None:
    nodes = healthy
    for _ in range(20):
        tokens = await nodes.sign_in()
        assert await nodes.is_active(nodes.b, tokens["access_token"])
        assert (await nodes.revoke(nodes.a, tokens["refresh_token"])).status_code == 200
        assert not await nodes.is_active(nodes.b, tokens["access_token"])


async def test_a_redis_that_lies_by_forgetting_revives_nothing(healthy: Nodes, valkey: Valkey, tmp_path: Path) -> None:
    nodes = healthy
    tokens = await nodes.sign_in()
    assert (await nodes.revoke(nodes.a, tokens["access_token"])).status_code == 200
    async with Redis.from_url(valkey.url()) as redis:
        assert await redis.zcard(copy.KEY) >= 1
        await redis.delete(copy.KEY)
    for node in (nodes.a, nodes.b):
        assert not await nodes.is_active(node, tokens["access_token"])


async def test_a_hit_in_redis_is_believed_without_the_database(healthy: Nodes, postgres: Postgres) -> None:
    nodes = healthy
    tokens = await nodes.sign_in()
    assert (await nodes.revoke(nodes.a, tokens["access_token"])).status_code == 200
    await asyncio.sleep(1.1)
    assert not await nodes.is_active(nodes.a, tokens["access_token"])  # now the client is remembered for a second
    postgres.hang()
    try:
        assert not await nodes.is_active(nodes.a, tokens["access_token"])
    finally:
        postgres.resume()
