"""The signing keys of several nodes on one database: they agree, one rotates, and no clock of a node matters."""

import asyncio
import base64
import json
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jws import JWSRegistry
from sqlalchemy import func, select, update

from authserver import clock
from authserver.audit import AuditEvent
from authserver.db import Database
from authserver.errors import StoreUnavailable
from authserver.keys import keyring, pairs
from authserver.keys.keyring import Keyring
from authserver.keys.models import SigningKey
from authserver.keys.pairs import EDDSA, ES256, RS256, Algorithm
from authserver.services import Services
from authserver.settings import Settings
from authserver.tokens.explanation import explain
from tests import application
from tests.factories import NewClient, NewUser, basic, sign_in
from tests.stores import Backend, Stores

DAY = timedelta(days=1)
NewNode = Callable[..., Keyring]


@pytest.fixture
async def new_node(databases: Stores, backend: Backend) -> AsyncIterator[NewNode]:
    """Make a node of a site of its own: `node = new_node(key_rotation_seconds=60)`."""
    url = await databases.new_database(backend)
    async with AsyncExitStack() as stack:

        def new_node(**changes: Any) -> Keyring:
            settings = Settings(_env_file=None, database_url=url, **changes)
            db = Database(settings)
            stack.push_async_callback(db.close)
            return Keyring(settings, db)

        yield new_node


async def let_time_pass(node: Keyring, time: timedelta) -> None:
    """Move all dates of the keys into the past: nobody can move the database's clock."""
    async with node._db.write() as tx:
        for row in await tx.scalars(select(SigningKey)):
            row.signs_from -= time
            row.verifies_until = row.verifies_until and row.verifies_until - time
    await node.load()


def kids(node: Keyring) -> set[str]:
    return {key.kid for key in node.published()}


async def test_nodes_that_start_together_have_the_same_first_keys(new_node: NewNode) -> None:
    nodes = [new_node() for _ in range(4)]
    await asyncio.gather(*(insisting(node.load) for node in nodes))
    for algorithm in (ES256, RS256):
        assert len({node.signing_key(algorithm).kid for node in nodes}) == 1
    assert {len(kids(node)) for node in nodes} == {2}


async def insisting(work: Callable[[], Awaitable[None]]) -> None:
    """Do it as `watch` does: on a slow machine one node may hold the lock for longer than the others wait for it."""
    for _ in range(20):
        try:
            return await work()
        except StoreUnavailable:
            pass
    pytest.fail("the lock was never free")


async def test_when_the_time_has_come_one_node_rotates(new_node: NewNode) -> None:
    nodes = [new_node() for _ in range(4)]
    await asyncio.gather(*(insisting(node.load) for node in nodes))
    before = nodes[0].signing_key().kid
    await let_time_pass(nodes[0], 90 * DAY - timedelta(seconds=400))
    await asyncio.gather(*(insisting(node.load) for node in nodes))
    await asyncio.gather(*(insisting(node.rotate_due) for node in nodes))
    assert kids(nodes[0]) == kids(nodes[3])
    assert len(kids(nodes[0])) == 2  # too early by a moment

    await let_time_pass(nodes[0], timedelta(seconds=60))
    await asyncio.gather(*(insisting(node.load) for node in nodes))
    await asyncio.gather(*(insisting(node.rotate_due) for node in nodes))
    await asyncio.gather(*(insisting(node.load) for node in nodes))
    assert all(len(kids(node)) == 4 for node in nodes)  # of each algorithm the old one, and one successor
    assert {node.signing_key().kid for node in nodes} == {before}
    async with nodes[0]._db.read() as tx:
        rotated = select(func.count()).where(AuditEvent.event == "signing_key_rotated")
        assert await tx.scalar(rotated) == 2

    await let_time_pass(nodes[0], timedelta(seconds=361))
    await asyncio.gather(*(insisting(node.load) for node in nodes))
    [now] = {node.signing_key().kid for node in nodes}
    assert now != before
    assert before in kids(nodes[0])
    await let_time_pass(nodes[0], DAY + timedelta(seconds=61))
    assert before not in kids(nodes[0])


async def test_zero_means_that_keys_rotate_only_by_hand(new_node: NewNode) -> None:
    node = new_node(key_rotation_seconds=0)
    await node.load()
    await let_time_pass(node, 4000 * DAY)
    await node.rotate_due()
    assert len(kids(node)) == 2
    assert [outlook.next_rotation for outlook in node.outlooks()] == [None, None]
    await node.rotate()
    assert len(kids(node)) == 3


async def test_an_installation_from_before_gets_its_rsa_key_announced(new_node: NewNode) -> None:
    node = new_node()
    await node.load()
    async with node._db.write() as tx:
        for row in await tx.scalars(select(SigningKey).where(SigningKey.alg == RS256)):
            await tx.delete(row)
    await node.load()
    await node.rotate_due()
    [made] = [key for key in node.published() if key.algorithm == RS256]
    assert node.state(made) == "announced"
    with pytest.raises(StoreUnavailable):
        node.signing_key(RS256)
    await let_time_pass(node, timedelta(seconds=361))
    assert node.signing_key(RS256).kid == made.kid


async def test_an_algorithm_that_somebody_asks_for_has_one_first_key(new_node: NewNode) -> None:
    nodes = [new_node() for _ in range(3)]
    await asyncio.gather(*(insisting(node.load) for node in nodes))
    await asyncio.gather(*(insisting(partial(node.introduce, EDDSA)) for node in nodes))
    assert [key.algorithm for key in nodes[0].published()].count(EDDSA) == 1
    await nodes[0].introduce(EDDSA)
    assert [key.algorithm for key in nodes[0].published()].count(EDDSA) == 1


async def test_whoever_cannot_read_the_keys_makes_none(new_node: NewNode) -> None:
    node, stranger = new_node(), new_node(secret_key="another secret key of enough characters")
    await node.load()
    await let_time_pass(node, 400 * DAY)
    await stranger.load()
    await stranger.rotate_due()
    await node.load()
    assert len(kids(node)) == 2


@pytest.mark.parametrize("error", [-400 * DAY, 400 * DAY], ids=["behind", "ahead"])
@pytest.mark.parametrize("backend", ["postgres"], indirect=True, scope="session")  # SQLite's clock is the node's
async def test_a_node_whose_clock_is_wrong_agrees_with_the_others(
    new_node: NewNode, error: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, wrong = new_node(), new_node()
    await node.load()
    made = await node.rotate()
    signing = node.signing_key().kid

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + error

    monkeypatch.setattr(clock, "datetime", Wrong)
    await wrong.load()
    await wrong.rotate_due()
    assert wrong.signing_key().kid == signing
    assert kids(wrong) == kids(node)
    successor = await wrong.rotate()
    await node.load()
    [row] = [key for key in node.published() if key.kid == successor]
    assert abs(row.signs_from - datetime.now(UTC) - timedelta(seconds=360)) < timedelta(seconds=30)
    assert made in kids(node)


async def test_a_node_that_cannot_read_the_keys_signs_and_promises_less(
    new_node: NewNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, later = new_node(), 0.0
    await node.load()
    assert node.max_age_seconds() == 300
    began = asyncio.get_running_loop().time()
    monkeypatch.setattr(keyring, "_loop_seconds", lambda: began + later)
    later = 100.0
    assert 225 <= node.max_age_seconds() <= 230
    node.signing_key()
    later = 350.0
    assert node.max_age_seconds() == 0
    node.signing_key()
    later = 370.0  # others may sign with a key that it has never seen
    assert node.published()
    with pytest.raises(StoreUnavailable):
        node.signing_key()


@pytest.mark.parametrize("algorithm", [ES256, RS256, EDDSA])
async def test_each_algorithm_signs_what_its_published_key_verifies(new_node: NewNode, algorithm: Algorithm) -> None:
    node = new_node()
    await node.load()
    await node.rotate(algorithm, at_once=True)
    key = node.signing_key(algorithm)
    assert key.public_jwk["alg"] == algorithm
    assert key.private is not None
    header, registry = {"alg": algorithm, "kid": key.kid}, JWSRegistry(algorithms=[algorithm])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # joserfc would have Ed25519 (RFC 9864); OIDC says EdDSA
        signed = jws.serialize_compact(header, b"{}", key.private, registry=registry)
    explained = explain(signed, node.published())
    assert explained is not None
    assert explained.is_ours


async def test_the_event_loop_goes_on_while_a_key_is_made(new_node: NewNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node, generated, has_gone_on = new_node(), pairs._generated, threading.Event()
    await node.load()

    def slowly(algorithm: Algorithm) -> pairs.Pair:
        assert has_gone_on.wait(10), "the event loop waits for the key"
        return generated(algorithm)

    monkeypatch.setattr(pairs, "_generated", slowly)
    made = asyncio.create_task(node.rotate(RS256))
    await asyncio.sleep(0.05)
    has_gone_on.set()
    assert await made in kids(node)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Keyring]:
    """Who has read the keys."""
    found: list[Keyring] = []
    read = Keyring._read

    async def counted(node: Keyring) -> Any:
        found.append(node)
        return await read(node)

    monkeypatch.setattr(Keyring, "_read", counted)
    return found


async def test_a_name_that_is_nobodys_is_looked_for_once(new_node: NewNode, readings: list[Keyring]) -> None:
    node = new_node()
    await node.load()
    readings.clear()
    for number in range(10):
        assert await node.find("A" * 43) is None
        assert await node.find(f"rubbish {number}") is None  # cannot be a name
    assert readings.count(node) == 1


async def test_names_that_nobody_has_share_readings(new_node: NewNode, readings: list[Keyring]) -> None:
    node = new_node()
    await node.load()
    readings.clear()
    found = await asyncio.gather(*[node.find(f"{number:043}") for number in range(500)])
    assert found == [None] * 500
    assert readings.count(node) == 1


async def test_a_key_that_another_node_made_a_moment_ago_is_found_whatever_rubbish_came_before(
    new_node: NewNode,
) -> None:
    node, other = new_node(), new_node()
    await node.load()
    for number in range(5):
        assert await node.find(f"{number:043}") is None
        kid = await other.rotate(at_once=True)
        found = await asyncio.gather(node.find(kid), node.find(f"{number:043}"), node.find(kid))
        assert [key and key.kid for key in found] == [kid, None, kid]


async def test_a_name_is_looked_for_again_after_a_reading_that_failed_or_began_too_early(
    new_node: NewNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, other = new_node(), new_node()
    await node.load()
    kid = await other.rotate(at_once=True)

    async def fails(_: Keyring) -> Any:
        raise StoreUnavailable("database", "for the test")

    with monkeypatch.context() as patch:
        patch.setattr(Keyring, "_read", fails)
        with pytest.raises(StoreUnavailable):
            await node.find(kid)
    found = await node.find(kid)
    assert found is not None


async def test_an_access_token_is_never_one_signed_for_something_else(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser, services: Services
) -> None:
    app = await new_client()
    token = (await sign_in(client, app, await new_user())).json()["access_token"]
    header = {"alg": "ES256", "typ": "at+jwt", "kid": services.keyring.signing_key(RS256).kid}
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    forged = ".".join([head, *token.split(".")[1:]])
    answer = await client.post("/introspect", data={"token": forged}, auth=basic(app))
    assert answer.json() == {"active": False}


async def test_metrics_and_the_jwks_tell_how_it_stands(app_with: Callable[..., Awaitable[FastAPI]]) -> None:
    app = await app_with(key_rotation_seconds=90 * 86_400)
    services: Services = app.state.services
    async with services.db.write() as tx:
        signing = services.keyring.signing_key(RS256).kid
        long_ago = clock.now() - timedelta(days=7)
        await tx.execute(update(SigningKey).where(SigningKey.kid == signing).values(signs_from=long_ago))
    await services.keyring.load()
    async with application.client_of(app) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("authserver_signing_key_"))
    assert float(values['authserver_signing_key_age_seconds{alg="RS256"}']) >= 7 * 86_400
    following = float(values['authserver_signing_key_next_rotation_timestamp_seconds{alg="RS256"}'])
    assert abs(following - (clock.now() + timedelta(days=83)).timestamp()) < 120
