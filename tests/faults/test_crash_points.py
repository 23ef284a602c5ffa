"""A server killed in the middle of register, sign-in, rotation, revocation and refill (tests/faults/crashing.py).

Whatever was acknowledged is still there, and what was not is whole or not there; the client's retry is always right.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from authserver.clients import registration
from authserver.services import Services
from authserver.settings import Settings
from authserver.tokens import copy
from tests.application import Program
from tests.factories import PASSWORD, App, basic, bearer
from tests.faults import crashing
from tests.faults.crashing import CrashingProgram
from tests.servers import Valkey
from tests.stores import Stores

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
REVOKED_SECONDS = 10.0
"""Far more than reconciling needs, for a machine that does other things too."""

COMMIT = "sqlalchemy.ext.asyncio:AsyncSession.commit"
HASHED = "after authserver.users.passwords:Hasher.hash"
STARTED = "after authserver.sessions.lifecycle:Sessions.start"
ROTATED = "after authserver.sessions.lifecycle:Sessions.rotate"
DENIED = "after authserver.tokens.denylist:Denylist.deny"
FILL = "authserver.tokens.copy:Copy.fill"
ADD = "authserver.tokens.copy:Copy.add"
INSTALL = "authserver.tokens.copy:Copy.install"
POINTS = {
    "register, before the commit": f"{HASHED}, before {COMMIT}",
    "register, after the commit": f"{HASHED}, after {COMMIT}",
    "sign in, before the commit": f"{STARTED}, before {COMMIT}",
    "sign in, after the commit": f"{STARTED}, after {COMMIT}",
    "rotate, before the commit": f"{ROTATED}, before {COMMIT}",
    "rotate, after the commit": f"{ROTATED}, after {COMMIT}",
    "revoke, before the commit": f"{DENIED}, before {COMMIT}",
    "revoke, before Redis": f"{DENIED}, before {ADD}",
    "revoke, after Redis": f"{DENIED}, after {ADD}",
    "revoke, after distrust": f"{DENIED}, after {ADD}, after {COMMIT}",
    "refill, between two pages": f"after {FILL}",
    "refill, before the copy is installed": f"before {INSTALL}",
    "refill, before the state is committed": f"after {INSTALL}",
    "refill, after the state is committed": f"after {INSTALL}, after {COMMIT}",
}
MANY = 3000
"""Entries; more than one page of a refill."""


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@dataclass
class House:
    """Stores, settings for the servers that use them, and a client."""

    settings: dict[str, object]
    app: App
    directory: Path

    def start(self, point: str | None = None) -> Program:
        if point is None:
            return Program(self.directory, self.settings)
        return CrashingProgram(POINTS[point], self.directory, self.settings)


@dataclass
class Node:
    """A server, and how one speaks with it."""

    program: Program
    http: httpx.AsyncClient
    app: App

    async def register(self, name: str) -> httpx.Response:
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        return await self.http.post("/register", json=body)

    async def sign_in(self, name: str) -> httpx.Response:
        data = {"grant_type": "password", "username": name, "password": PASSWORD}
        return await self.http.post("/token", data=data, auth=basic(self.app))

    async def refresh(self, token: str) -> httpx.Response:
        data = {"grant_type": "refresh_token", "refresh_token": token}
        return await self.http.post("/token", data=data, auth=basic(self.app))

    async def revoke(self, token: str) -> httpx.Response:
        return await self.http.post("/revoke", data={"token": token}, auth=basic(self.app))

    async def is_active(self, token: str) -> bool:
        response = await self.http.post("/introspect", data={"token": token}, auth=basic(self.app))
        assert response.status_code == 200, response.text
        return bool(response.json()["active"])

    async def sessions(self, token: str) -> int:
        response = await self.http.get("/users/me/sessions", headers=bearer(token))
        assert response.status_code == 200, response.text
        return len(response.json()["sessions"])

    async def dies(self, request: Awaitable[httpx.Response]) -> None:
        """Let it be killed by a request, whose answer nobody gets."""
        with pytest.raises(httpx.TransportError):
            await request
        assert await asyncio.to_thread(self.program.process.wait, 10) == -9


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - it is about other processes
            await asyncio.sleep(0.05)


async def is_trusted(node: Node) -> bool:
    return "\nauthserver_denylist_trusted 1.0" in (await node.http.get("/metrics")).text


async def new_house(databases: Stores, redis_url: str, directory: Path) -> House:
    url = await databases.new_database("postgres")
    settings = {"database_url": url, "redis_url": redis_url, "argon2_memory_kib": 8, "argon2_time_cost": 1}
    async with Services.open(Settings(_env_file=None, **settings)) as services, services.db.write() as tx:
        new = registration.NewClient("crash", grants=["password", "refresh_token"])
        client, secret = registration.create(tx, services.clients, new)
    # A Redis that is only slow, because the machine is, must not lead past the points.
    shared = {"issuer": "http://127.0.0.1", "throttle_enabled": False, "redis_timeout_seconds": 0.15}
    return House(settings | shared, App(client.id, secret), directory)


@pytest.fixture(scope="module")
async def house(databases: Stores, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> House:
    return await new_house(databases, valkey.url(), tmp_path_factory.mktemp("crash"))


@pytest.fixture(scope="module")
async def other(house: House) -> AsyncIterator[Node]:
    """The node that stays."""
    async with running(house) as node:
        await eventually(lambda: is_trusted(node))
        yield node


@asynccontextmanager
async def running(house: House, point: str | None = None) -> AsyncIterator[Node]:
    program = house.start(point)
    try:
        await program.ready()
        async with httpx.AsyncClient(base_url=program.url, timeout=15) as http:
            yield Node(program, http, house.app)
    finally:
        program.kill()


def new_name() -> str:
    return f"user-{secrets.token_hex(6)}"


async def tokens_of(node: Node, name: str | None = None) -> dict[str, str]:
    """Sign somebody in; a new user if no name is given."""
    if name is None:
        name = new_name()
        assert (await node.register(name)).status_code == 201
    response = await node.sign_in(name)
    assert response.status_code == 200, response.text
    return dict(response.json())


# ── the instrument ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("point", POINTS)
def test_every_place_on_the_way_to_a_point_exists(point: str) -> None:
    for step in crashing.parse(POINTS[point]):
        step.owner()


async def test_a_place_that_was_renamed_lets_no_test_pass(house: House) -> None:
    program = CrashingProgram("after authserver.tokens.copy:Copy.added", house.directory, house.settings)
    with pytest.raises(RuntimeError, match="has no attribute 'added'"):
        await program.ready()


# ── register ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_registration_that_was_not_committed_is_not_there_and_can_be_repeated(
    house: House, other: Node
) -> None:
    name = new_name()
    async with running(house, "register, before the commit") as node:
        await node.dies(node.register(name))
    assert (await other.sign_in(name)).json()["error"] == "invalid_grant"
    assert (await other.register(name)).status_code == 201
    assert (await other.sign_in(name)).status_code == 200


async def test_a_registration_that_was_committed_is_whole(house: House, other: Node) -> None:
    name = new_name()
    async with running(house, "register, after the commit") as node:
        await node.dies(node.register(name))
    again = await other.register(name)
    assert (again.status_code, again.json()["type"].rpartition("#")[2]) == (409, "username-taken")
    tokens = await tokens_of(other, name)
    me = await other.http.get("/users/me", headers=bearer(tokens["access_token"]))
    assert (me.json()["username"], me.json()["email"]) == (name, f"{name}@example.com")


# ── sign in ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("point", "left_behind"), [("before the commit", 0), ("after the commit", 1)])
async def test_a_sign_in_without_an_answer_is_a_session_or_nothing(
    house: House, other: Node, point: str, left_behind: int
) -> None:
    name = new_name()
    assert (await other.register(name)).status_code == 201
    async with running(house, f"sign in, {point}") as node:
        await node.dies(node.sign_in(name))
    tokens = await tokens_of(other, name)
    assert await other.sessions(tokens["access_token"]) == left_behind + 1
    everywhere = await other.http.delete("/users/me/sessions", headers=bearer(tokens["access_token"]))
    assert everywhere.status_code == 204
    assert await other.sessions((await tokens_of(other, name))["access_token"]) == 1


# ── rotate ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_rotation_that_was_not_committed_has_not_used_the_token_up(house: House, other: Node) -> None:
    tokens = await tokens_of(other)
    async with running(house, "rotate, before the commit") as node:
        await node.dies(node.refresh(tokens["refresh_token"]))
    successor = (await other.refresh(tokens["refresh_token"])).json()["refresh_token"]
    assert (await other.refresh(successor)).status_code == 200


async def test_a_rotation_whose_answer_was_lost_gives_the_same_successor_everywhere(house: House, other: Node) -> None:
    tokens = await tokens_of(other)
    async with running(house, "rotate, after the commit") as node:
        await node.dies(node.refresh(tokens["refresh_token"]))
    async with running(house) as restarted:
        answers = [await node.refresh(tokens["refresh_token"]) for node in (other, restarted, other)]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        (successor,) = {answer.json()["refresh_token"] for answer in answers}
        assert await restarted.is_active(answers[0].json()["access_token"])
        assert (await restarted.refresh(successor)).status_code == 200
    assert await other.is_active(tokens["access_token"])


# ── revoke ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_revocation_that_was_not_committed_can_be_repeated(house: House, other: Node) -> None:
    tokens = await tokens_of(other)
    async with running(house, "revoke, before the commit") as node:
        await node.dies(node.revoke(tokens["access_token"]))
    assert await other.is_active(tokens["access_token"])
    assert (await other.revoke(tokens["access_token"])).status_code == 200
    assert not await other.is_active(tokens["access_token"])


@pytest.mark.parametrize(
    ("point", "kind"),
    [
        ("before Redis", "access_token"),
        ("before Redis", "refresh_token"),
        ("after Redis", "access_token"),
        ("after distrust", "refresh_token"),
    ],
)
async def test_a_revocation_that_was_committed_holds_on_the_other_node_within_seconds(
    house: House, other: Node, point: str, kind: str
) -> None:
    tokens = await tokens_of(other)
    await eventually(lambda: is_trusted(other))
    async with running(house, f"revoke, {point}") as node:
        if point == "after distrust":
            async with Redis.from_url(str(house.settings["redis_url"])) as redis:
                await redis.flushdb()
        await node.dies(node.revoke(tokens[kind]))

    async def is_dead() -> bool:
        return not await other.is_active(tokens["access_token"])

    await eventually(is_dead, REVOKED_SECONDS)
    assert (await other.revoke(tokens[kind])).status_code == 200
    for _ in range(10):
        assert await is_dead()
    if kind == "refresh_token":
        assert (await other.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


# ── refill ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey.url(1)) as redis:
        await redis.flushdb()
        yield redis


@pytest.fixture
async def full_house(databases: Stores, valkey: Valkey, redis: Redis, tmp_path: Path) -> House:
    """A house of its own with many revocations, an empty Redis and no server yet."""
    house = await new_house(databases, valkey.url(1), tmp_path)
    async with connected(house) as connection:
        await connection.execute(
            text(
                "INSERT INTO denylist_entries (entry, forget_at)"
                f" SELECT 'j:' || i, now() + interval '1 hour' FROM generate_series(1, {MANY}) AS i"
            )
        )
    return house


@asynccontextmanager
async def connected(house: House) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(str(house.settings["database_url"]))
    async with engine.begin() as connection:
        yield connection
    await engine.dispose()


async def test_refills_that_die_leave_no_incomplete_copy_that_is_believed(full_house: House, redis: Redis) -> None:
    for point in [point for point in POINTS if point.startswith("refill")]:
        program = full_house.start(point)
        try:
            assert await asyncio.to_thread(program.process.wait, 30) == -9, point
        finally:
            program.kill()
        async with connected(full_house) as connection:
            is_believed = bool(await connection.scalar(text("SELECT is_trusted FROM denylist_state")))
        assert is_believed == (point == "refill, after the state is committed"), point
    assert await redis.zcard(copy.KEY) == MANY + 1

    async with running(full_house) as node:
        tokens = await tokens_of(node)
        assert (await node.revoke(tokens["access_token"])).status_code == 200  # whatever the dead ones had locked
        assert not await node.is_active(tokens["access_token"])
        await eventually(lambda: is_trusted(node))
        assert await redis.zcard(copy.KEY) == MANY + 2
        assert not await node.is_active(tokens["access_token"])
