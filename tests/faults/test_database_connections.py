"""A transaction ends in time, whatever the network or another node does to it."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextvars import Context
from time import monotonic
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from authserver import patience
from authserver.clients import registration
from authserver.clients.authentication import Clients, Credentials
from authserver.db import Database
from authserver.errors import Busy, StoreUnavailable
from authserver.services import Services
from authserver.settings import Settings
from authserver.users import finding
from tests.laboratory.proxy import Proxy
from tests.stores import Stores

FAR_TOO_LONG_SECONDS = 20


@pytest.fixture
async def edge(databases: Stores) -> AsyncIterator[tuple[Database, Proxy]]:
    """A database, and the edge to it."""
    url = make_url(await databases.new_database("postgres"))
    assert url.port
    async with Proxy(url.port) as proxy:
        here = url.set(port=proxy.port).render_as_string(hide_password=False)
        database = Database(Settings(_env_file=None, database_url=here))
        yield database, proxy
        await proxy.mend()
        await database.close()


@pytest.mark.parametrize("moment", ["while it works", "before it ends"])
async def test_a_transaction_on_a_connection_that_goes_silent_ends_in_time(
    edge: tuple[Database, Proxy], moment: str
) -> None:
    database, proxy = edge

    async def use() -> None:
        async with database.read() as tx:
            await tx.execute(text("SELECT 1"))
            proxy.swallow()
            if moment == "while it works":
                await tx.execute(text("SELECT 1"))

    began = monotonic()
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(use(), FAR_TOO_LONG_SECONDS)
    assert monotonic() - began < FAR_TOO_LONG_SECONDS / 2


@pytest.mark.parametrize("after_bytes", [1, 100])
async def test_a_connection_that_is_reset_while_it_is_made_is_a_store_unavailable(
    edge: tuple[Database, Proxy], after_bytes: int
) -> None:
    database, proxy = edge
    proxy.cut(after_bytes)
    with pytest.raises(StoreUnavailable):
        await finding.by_id(database, uuid4())


async def test_the_transactions_of_a_request_share_its_time(edge: tuple[Database, Proxy]) -> None:
    database, proxy = edge
    answered = []

    async def ask(times: int) -> None:
        for _ in range(times):
            async with database.read() as tx:
                answered.append(await tx.scalar(text("SELECT 1")))

    await ask(1)
    proxy.delay(0.1)
    patience.begin_request()
    with pytest.raises(StoreUnavailable):
        await ask(times=12)
    assert len(answered) > 1


async def test_a_wait_that_a_request_has_no_time_for_is_refused_at_once() -> None:
    patience.begin_request()
    await patience.wait(1.0)
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(patience.wait(60.0), FAR_TOO_LONG_SECONDS)


async def test_who_waits_to_be_alone_gives_up_before_those_behind_it_must(edge: tuple[Database, Proxy]) -> None:
    database, _ = edge

    async def patience(*, shared: bool) -> float:
        began = monotonic()
        with pytest.raises(StoreUnavailable):
            await lock(shared=shared)
        return monotonic() - began

    async def lock(*, shared: bool) -> None:
        async with database.write() as tx:
            await database.lock(tx, "a lock", shared=shared)

    async with database.write() as tx:
        await database.lock(tx, "a lock")
        assert await patience(shared=False) < await patience(shared=True) / 2


async def test_a_node_that_stops_in_a_transaction_does_not_keep_its_locks(edge: tuple[Database, Proxy]) -> None:
    database, _ = edge
    began = monotonic()
    stopped = await database.engine.connect()
    await stopped.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('a lock', 0))"))
    is_free = False
    while not is_free:
        assert monotonic() - began < FAR_TOO_LONG_SECONDS / 3
        try:
            async with database.write() as tx:
                await database.lock(tx, "a lock", shared=True)
            is_free = True
        except StoreUnavailable:
            await asyncio.sleep(0.1)
    await stopped.invalidate()
    await stopped.close()


async def test_who_asks_for_a_client_after_a_fault_does_not_hear_of_it(edge: tuple[Database, Proxy]) -> None:
    """Who came before waits for an answer that is lost; who comes later is not joined to that question."""
    database, proxy = edge
    clients = Clients(Settings(_env_file=None, client_cache_seconds=0), database)
    async with database.write() as tx:
        client, secret = registration.create(tx, clients, registration.NewClient("one"))
    asked = Credentials(client.id, secret, "client_secret_basic")
    assert await clients.authenticate(asked, briefly_cached=True)
    proxy.swallow()
    before = asyncio.create_task(clients.authenticate(asked, briefly_cached=True))
    await asyncio.sleep(0.3)
    await proxy.mend()
    after = asyncio.create_task(clients.authenticate(asked, briefly_cached=True))
    with pytest.raises(StoreUnavailable):
        await before
    assert await after


async def test_a_request_that_waits_for_its_turn_to_write_has_no_more_time_than_others(databases: Stores) -> None:
    database = Database(Settings(_env_file=None, database_url=await databases.new_database("sqlite")))
    writes, is_over = asyncio.Event(), asyncio.Event()

    async def another() -> None:
        async with database.write():
            writes.set()
            await is_over.wait()

    patience.begin_request()
    await patience.wait(patience.REQUEST_SECONDS - 0.2)
    writing = asyncio.create_task(another(), context=Context())
    await writes.wait()
    began = monotonic()
    with pytest.raises(Busy):
        async with database.write():
            pytest.fail("two write at the same time")
    assert monotonic() - began < 1.0
    is_over.set()
    await writing
    await database.close()


async def test_a_request_does_not_wait_for_the_keys_longer_than_it_may(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = asyncio.Event()
    monkeypatch.setattr(services.keyring, "load", is_over.wait)
    patience.begin_request()
    await patience.wait(patience.REQUEST_SECONDS - 0.2)
    try:
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(services.keyring.find(secrets.token_urlsafe(32)), FAR_TOO_LONG_SECONDS / 2)
    finally:
        is_over.set()
