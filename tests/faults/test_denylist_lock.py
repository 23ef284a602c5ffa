"""The lock between who revokes and who counts revocations: nobody keeps it by standing still."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from authserver import clock
from authserver.db import Database
from authserver.errors import StoreUnavailable
from authserver.sessions import statements
from authserver.settings import Settings
from authserver.tokens import truth
from tests.faults.house import connected, eventually, new_house, running, tokens_of
from tests.servers import Valkey
from tests.stores import Stores

PATIENCE_SECONDS = 10.0
LEASE_SECONDS = 1.0
ALONE, SHARED = "pg_advisory_xact_lock", "pg_advisory_xact_lock_shared"


@pytest.fixture
async def url(databases: Stores) -> str:
    return await databases.new_database("postgres")


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


@asynccontextmanager
async def held(engine: AsyncEngine, lock: str) -> AsyncIterator[AsyncConnection]:
    """Another process that holds the lock in the block, and waits for it if it must."""
    async with engine.begin() as connection:
        await connection.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE_SECONDS:.0f}s'"))
        await connection.execute(text(f"SELECT {lock}(hashtextextended('denylist', 0))"))
        yield connection


async def is_waited_for(connection: AsyncConnection) -> bool:
    """Tell whether somebody waits for an advisory lock of this database."""
    here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    waiting = text(f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {here}")
    return bool(await connection.scalar(waiting))


async def count(database: Database) -> None:
    while True:
        with suppress(StoreUnavailable):  # it has less patience than this test
            await truth.count(database)
            return


async def write(database: Database) -> None:
    await truth.write_now(database, {"j:one": clock.now() + timedelta(hours=1)}, LEASE_SECONDS)


async def end(database: Database) -> None:
    values = {"these": [uuid4()], "now": clock.now(), "margin": timedelta(0), "because": "revoked"}
    await truth.write_by(database, statements.END, values, LEASE_SECONDS)


@pytest.mark.parametrize(("work", "others"), [(count, SHARED), (write, ALONE), (end, ALONE)])
async def test_a_process_that_stands_still_does_not_keep_the_lock(
    engine: AsyncEngine, url: str, work: Callable[[Database], Awaitable[None]], others: str
) -> None:
    """It has asked for the lock, and gets it when it does not run any more."""
    is_to_stand, stands, may_go_on = Event(), Event(), Event()

    async def process() -> None:
        # As behind a pooler: PostgreSQL does not end an idle transaction there.
        settings = Settings(_env_file=None, database_url=url, database_pooler=True, breaker_max_failures=10_000)
        database = Database(settings)
        working = asyncio.ensure_future(work(database))
        while not is_to_stand.is_set():  # noqa: ASYNC110 - another thread says so
            await asyncio.sleep(0.01)
        stands.set()
        may_go_on.wait(3 * PATIENCE_SECONDS)  # not one step of the loop meanwhile
        await asyncio.wait([working])
        await database.close()

    async with asyncio.TaskGroup() as tasks:
        try:
            async with held(engine, others) as connection:
                tasks.create_task(asyncio.to_thread(asyncio.run, process()))
                await eventually(lambda: is_waited_for(connection), PATIENCE_SECONDS)
                is_to_stand.set()
                assert await asyncio.to_thread(stands.wait, PATIENCE_SECONDS)
            async with held(engine, others):
                assert not may_go_on.is_set()
        finally:
            is_to_stand.set()
            may_go_on.set()


@pytest.mark.parametrize(
    ("before", "meanwhile", "lease_seconds", "is_read_again"),
    [
        ("FALSE", "TRUE", LEASE_SECONDS, True),  # a copy that lacks what is being written
        ("TRUE", "FALSE", LEASE_SECONDS, False),  # whoever makes another one will find what was written
        ("TRUE", "FALSE", 0.0, True),
    ],
)
async def test_a_state_from_before_the_lock_is_read_again_if_it_may_hide_a_new_copy(
    engine: AsyncEngine, url: str, before: str, meanwhile: str, lease_seconds: float, is_read_again: bool
) -> None:
    change = "UPDATE denylist_state SET is_trusted = {}, epoch = {}"
    async with engine.begin() as connection:
        await connection.execute(text(change.format(before, 7)))
    database = Database(Settings(_env_file=None, database_url=url))
    async with held(engine, ALONE) as connection:
        entries = {"j:one": clock.now() + timedelta(hours=1)}
        writing = asyncio.create_task(truth.write_now(database, entries, lease_seconds))
        await eventually(lambda: is_waited_for(connection), PATIENCE_SECONDS)
        await connection.execute(text(change.format(meanwhile, 8)))
    state = await writing
    assert (state.is_trusted, state.epoch) == ((meanwhile == "TRUE", 8) if is_read_again else (before == "TRUE", 7))
    await database.close()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


async def test_who_ends_a_session_has_the_lock_before_it_locks_the_session(
    databases: Stores, valkey: Valkey, tmp_path: Path
) -> None:
    """Otherwise it and somebody who has the lock and waits for the session would wait in a circle."""
    house = await new_house(databases, valkey.url(), tmp_path)
    engine = create_async_engine(str(house.settings["database_url"]))
    async with running(house) as node:
        tokens = await tokens_of(node)
        async with held(engine, ALONE) as connection, asyncio.TaskGroup() as tasks:
            revoking = tasks.create_task(node.revoke(tokens["refresh_token"]))
            await eventually(lambda: is_waited_for(connection), PATIENCE_SECONDS)
            async with connected(house) as other:
                assert len((await other.execute(text("SELECT id FROM user_sessions FOR UPDATE NOWAIT"))).all()) == 1
            await connection.rollback()
        assert revoking.result().status_code == 200
        assert not await node.is_active(tokens["access_token"])
    await engine.dispose()
