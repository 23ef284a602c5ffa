"""A server killed in the middle of register, sign-in, rotation, revocation and refill (tests/faults/crashing.py).

Whatever was acknowledged is still there, and what was not is whole or not there; the client's retry is always right.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from authserver.tokens import copy
from tests.factories import bearer
from tests.faults import crashing
from tests.faults.crashing import CrashingProgram
from tests.faults.house import (
    House,
    Node,
    connected,
    eventually,
    fill_denylist,
    is_trusted,
    new_house,
    new_name,
    running,
    tokens_of,
)
from tests.servers import Valkey
from tests.stores import Stores

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
REVOKED_SECONDS = 10.0
"""Far more than reconciling needs, for a machine that does other things too."""

COMMIT = "sqlalchemy.ext.asyncio:AsyncSession.commit"
HASHED = "after authserver.users.passwords:Hasher.hash"
STATEMENT, STATEMENT_OF_MANY = "authserver.db:Database.ask", "authserver.db:Database.ask_all"
"""One statement past the ORM: its commit too, unless it stands in a transaction."""
STARTING = "before authserver.sessions.lifecycle:Sessions._start_together"
ROTATING = "before authserver.sessions.lifecycle:Sessions._rotate_together"
WRITE = "authserver.tokens.truth:_write"
FILL = "authserver.tokens.copy:Copy.fill"
ADD = "authserver.tokens.copy:Copy.add"
INSTALL = "authserver.tokens.copy:Copy.install"
POINTS = {
    "register, before the commit": f"{HASHED}, before {COMMIT}",
    "register, after the commit": f"{HASHED}, after {COMMIT}",
    "sign in, before the commit": f"{STARTING}, before {STATEMENT_OF_MANY}",
    "sign in, after the commit": f"{STARTING}, after {STATEMENT_OF_MANY}",
    "rotate, before the commit": f"{ROTATING}, before {STATEMENT_OF_MANY}",
    "rotate, after the commit": f"{ROTATING}, after {STATEMENT_OF_MANY}",
    "revoke, before the commit": f"before {WRITE}",
    "revoke, after the commit": f"before {WRITE}, after {STATEMENT}",
    "revoke, before Redis": f"after {WRITE}, before {ADD}",
    "revoke, after Redis": f"after {WRITE}, after {ADD}",
    "revoke, after distrust": f"after {WRITE}, after {ADD}, after {COMMIT}",
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


@pytest.fixture(scope="module")
async def house(databases: Stores, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> House:
    return await new_house(databases, valkey.url(), tmp_path_factory.mktemp("crash"))


@pytest.fixture(scope="module")
async def other(house: House) -> AsyncIterator[Node]:
    """The node that stays."""
    async with running(house) as node:
        await eventually(lambda: is_trusted(node))
        yield node


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
    async with running(house, POINTS["register, before the commit"]) as node:
        await node.dies(node.register(name))
    assert (await other.sign_in(name)).json()["error"] == "invalid_grant"
    assert (await other.register(name)).status_code == 201
    assert (await other.sign_in(name)).status_code == 200


async def test_a_registration_that_was_committed_is_whole(house: House, other: Node) -> None:
    name = new_name()
    async with running(house, POINTS["register, after the commit"]) as node:
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
    async with running(house, POINTS[f"sign in, {point}"]) as node:
        await node.dies(node.sign_in(name))
    tokens = await tokens_of(other, name)
    assert await other.sessions(tokens["access_token"]) == left_behind + 1
    everywhere = await other.http.delete("/users/me/sessions", headers=bearer(tokens["access_token"]))
    assert everywhere.status_code == 204
    assert await other.sessions((await tokens_of(other, name))["access_token"]) == 1


# ── rotate ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_rotation_that_was_not_committed_has_not_used_the_token_up(house: House, other: Node) -> None:
    tokens = await tokens_of(other)
    async with running(house, POINTS["rotate, before the commit"]) as node:
        await node.dies(node.refresh(tokens["refresh_token"]))
    successor = (await other.refresh(tokens["refresh_token"])).json()["refresh_token"]
    assert (await other.refresh(successor)).status_code == 200


async def test_a_rotation_whose_answer_was_lost_gives_the_same_successor_everywhere(house: House, other: Node) -> None:
    tokens = await tokens_of(other)
    async with running(house, POINTS["rotate, after the commit"]) as node:
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
    async with running(house, POINTS["revoke, before the commit"]) as node:
        await node.dies(node.revoke(tokens["access_token"]))
    assert await other.is_active(tokens["access_token"])
    assert (await other.revoke(tokens["access_token"])).status_code == 200
    assert not await other.is_active(tokens["access_token"])


@pytest.mark.parametrize(
    ("point", "kind"),
    [
        ("after the commit", "access_token"),
        ("after the commit", "refresh_token"),
        ("before Redis", "access_token"),
        ("before Redis", "refresh_token"),
        ("after Redis", "access_token"),
        ("after distrust", "refresh_token"),
    ],
)
async def test_a_revocation_that_was_committed_holds_on_the_other_node_within_seconds(
    house: House, other: Node, point: str, kind: str
) -> None:
    async with running(house, POINTS[f"revoke, {point}"]) as node:
        while True:
            tokens = await tokens_of(other)
            await eventually(lambda: is_trusted(other))
            if point == "after distrust":
                async with Redis.from_url(str(house.settings["redis_url"])) as redis:
                    await redis.flushdb()
            try:
                answer = await node.revoke(tokens[kind])
            except httpx.TransportError:
                break
            # Reconcile, on either node, may be the first to find that the copy is gone.
            assert (point, answer.status_code) == ("after distrust", 200)
        await node.is_killed()

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
    await fill_denylist(house, MANY)
    return house


async def test_refills_that_die_leave_no_incomplete_copy_that_is_believed(full_house: House, redis: Redis) -> None:
    for point in [point for point in POINTS if point.startswith("refill")]:
        program = full_house.start(POINTS[point])
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
