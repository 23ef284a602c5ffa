"""The database's connections: shared fairly, given back whatever happens; the quick way says what the slow one says."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import DateTime, QueuePool, String, bindparam, column, func, select, table, text

from authserver import engine
from authserver.clients.models import Client
from authserver.db import Base, Database
from authserver.errors import Busy, StoreUnavailable
from authserver.sessions import statements
from authserver.settings import Settings
from authserver.statement import Statement
from authserver.users.models import User
from tests.factories import NewClient, NewUser
from tests.stores import Stores

FIND = Statement(select(*Client.__table__.columns).where(Client.id == bindparam("this", type_=String)))


@pytest.fixture
async def narrow(settings: Settings) -> AsyncIterator[Database]:
    """A database with two connections."""
    db = Database(Settings(_env_file=None, **(settings.model_dump() | {"database_pool_size": 2})))
    yield db
    await db.close()


def _names(model: type[Base]) -> list[str]:
    return [one.name for one in model.__table__.columns]


def taken(db: Database) -> int:
    assert isinstance(db.engine.pool, QueuePool)
    return db.engine.pool.checkedout()


async def test_nobody_who_waits_is_passed_by_those_who_come_again_at_once(narrow: Database) -> None:
    """Asyncio's queue, on which SQLAlchemy's pool stands, would have let some wait until they gave up."""
    order: list[int] = []

    async def ask_often(number: int) -> None:
        for _ in range(20):
            await narrow.ask(FIND, {"this": "nobody"})
            order.append(number)

    await asyncio.gather(*(ask_often(number) for number in range(12)))
    assert len(set(order[:36])) == 12  # all had a turn before anybody had many
    assert taken(narrow) == 0


async def test_more_than_can_be_served_in_time_are_told_so(narrow: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "_patience", 0.05)
    release = asyncio.Event()

    async def hold() -> None:
        async with narrow.read():
            await release.wait()

    holders = [asyncio.create_task(hold()) for _ in range(2)]
    await asyncio.sleep(0.02)
    with pytest.raises(Busy):
        await narrow.ask(FIND, {"this": "nobody"})
    release.set()
    await asyncio.gather(*holders)
    assert await narrow.ask(FIND, {"this": "nobody"}) is None
    assert not narrow.breaker.is_open


async def test_a_caller_who_gives_up_leaves_no_connection_taken(narrow: Database) -> None:
    slow = Statement(select(func.pg_sleep(0.5))) if not narrow.is_sqlite else FIND
    for _ in range(4):
        asking = asyncio.create_task(narrow.ask(slow, {"this": "x"}))
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
    assert taken(narrow) == 0
    assert await narrow.ask(FIND, {"this": "nobody"}) is None


async def test_what_ran_out_of_time_while_the_process_stood_still_says_nothing_against_the_database(
    settings: Settings,
) -> None:
    """As a stopped one (SIGSTOP), or one on a machine that is moved, which would else refuse what comes next."""
    changed = settings.model_dump() | {"database_timeout_seconds": 0.2, "breaker_max_failures": 2}
    db = Database(Settings(_env_file=None, **changed))
    try:
        await stand_still_while_it_is_used(db)
        assert not db.breaker.is_open
    finally:
        await db.close()


async def stand_still_while_it_is_used(db: Database) -> None:
    inside = asyncio.Semaphore(0)

    async def use() -> None:
        async with db.read() as tx:
            await tx.scalar(select(1))
            inside.release()
            await asyncio.sleep(0.05)

    users = [asyncio.create_task(use()) for _ in range(4)]
    for _ in users:
        await inside.acquire()
    time.sleep(1)  # noqa: ASYNC251 - that is the standstill
    ended = await asyncio.gather(*users, return_exceptions=True)
    assert {type(end) for end in ended} == {StoreUnavailable}


async def test_a_statement_that_fails_is_a_store_that_cannot_be_asked(narrow: Database) -> None:
    broken = Statement(select(func.no_such_function().label("x")))
    with pytest.raises(StoreUnavailable):
        await narrow.ask(broken, {})
    assert taken(narrow) == 0


async def test_the_quick_way_answers_what_the_orm_answers(
    narrow: Database, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(audience=["a", "b"]), await new_user()
    async with narrow.read() as tx:
        client_row: Any = await tx.get_one(Client, app.client_id)
        user_row: Any = await tx.get_one(User, user.id)
        in_session = await narrow.ask(FIND, {"this": app.client_id}, tx)
    quick = await narrow.ask(FIND, {"this": app.client_id})
    assert quick == in_session == {name: getattr(client_row, name) for name in _names(Client)}
    find_user = Statement(select(*User.__table__.columns).where(User.username == bindparam("this", type_=String)))
    assert await narrow.ask(find_user, {"this": user.username}) == {
        name: getattr(user_row, name) for name in _names(User)
    }
    assert await narrow.ask(statements.FIND, {"family_hash": "none"}) is None


@pytest.fixture
async def postgres(databases: Stores) -> AsyncIterator[Database]:
    db = Database(Settings(_env_file=None, database_url=await databases.new_database("postgres")))
    yield db
    await db.close()


async def process(db: Database) -> int:
    """Return the number of the process of PostgreSQL that answers."""
    row = await db.ask(Statement(select(func.pg_backend_pid().label("number"))), {})
    assert row
    return int(row["number"])


async def two_processes(db: Database) -> set[int]:
    async with db.read() as one, db.read() as another:
        return {await tx.scalar(select(func.pg_backend_pid())) or 0 for tx in (one, another)}


async def test_the_connection_that_was_used_last_is_used_next(postgres: Database) -> None:
    assert len(await two_processes(postgres)) == 2
    assert len({await process(postgres) for _ in range(10)}) == 1


async def test_a_connection_that_was_not_used_for_long_is_replaced(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_MOST_IDLE_SECONDS", 1.0)
    before = await two_processes(postgres)
    at_work = await process(postgres)
    for _ in range(5):
        await asyncio.sleep(0.25)
        assert await process(postgres) == at_work
    after = await two_processes(postgres)
    assert before & after == {at_work}
    assert taken(postgres) == 0


async def test_a_statement_is_planned_anew_from_time_to_time(
    databases: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a plan that was made for an empty table is not kept when the table has grown."""
    monkeypatch.setattr(engine, "_PLANNED_ANEW_SECONDS", 0.5)
    db = Database(Settings(_env_file=None, database_url=await databases.new_database("postgres")))
    # The old one is closed when there is something else to be said.
    when = Statement(
        select(func.max(column("prepare_time", DateTime)).label("latest")).select_from(table("pg_prepared_statements"))
    )
    planned = [await db.ask_all(when, {})]
    await asyncio.sleep(0.7)
    planned.append(await db.ask_all(when, {}))
    await db.close()
    assert planned[1][0]["latest"] > planned[0][0]["latest"]


async def test_the_quick_way_has_the_same_isolation_whatever_the_database_s_default(databases: Stores) -> None:
    url = await databases.new_database("postgres")
    database = Database(Settings(_env_file=None, database_url=url))
    async with database.write() as tx:
        name = await tx.scalar(select(func.current_database()))
        await tx.execute(text(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'serializable'"))
    await database.engine.dispose()
    level = Statement(select(func.current_setting("transaction_isolation").label("level")))
    assert await database.ask(level, {}) == {"level": "read committed"}
    await database.close()
