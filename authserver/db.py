"""The database: its transactions, and the one exception that every way of not having it becomes.

`async with db.write() as tx:` commits at the end of the block, so what a request did is durable before its answer
leaves; a refusal that is *returned* from the block commits too, an exception rolls back.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
from sqlalchemy import (
    ColumnElement,
    DateTime,
    Dialect,
    MetaData,
    String,
    TypeDecorator,
    bindparam,
    case,
    event,
    func,
    literal_column,
    select,
    text,
    true,
)
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Session

from authserver import clock, engine, patience
from authserver.breaker import Breaker
from authserver.engine import FAILURES, WITH_WAIT, lacks_tables, reason
from authserver.errors import Busy, StoreUnavailable
from authserver.settings import Settings
from authserver.statement import Row, Statement

log = logging.getLogger(__name__)

_CROWD = 20
"""So many times the connections may be asked for at a time; the next one would wait too long anyway."""
_ALONE = 0.25
"""Such a part of DATABASE_TIMEOUT_SECONDS one may wait for a lock that nobody else may share."""
_DRIVER = "driver connection"


def sharing(name: str) -> ColumnElement[bool]:
    """Return a condition, true when its statement shares the lock of that name; before it touches a row. PostgreSQL."""
    return select(func.pg_advisory_xact_lock_shared(_number(name)).is_not(None)).scalar_subquery()


def alone(name: str) -> ColumnElement[bool]:
    """Return a condition, true when its statement alone has the lock of that name; `Database.alone` are its parameters.

    What else the statement sees may be as it was before it had the lock. PostgreSQL.
    """
    # Who waits to be alone keeps out who would share, and may wait for a node that has stopped: not for long.
    is_set = func.set_config("lock_timeout", bindparam("milliseconds", type_=String), true()).is_not(None)
    return select(case((is_set, func.pg_advisory_xact_lock(_number(name)).is_not(None)))).scalar_subquery()


def _number(name: str) -> ColumnElement[int]:
    """Return what PostgreSQL knows a lock by; the names are constants of ours."""
    return func.hashtextextended(literal_column(f"'{name}'"), literal_column("0"))


class Base(DeclarativeBase):
    """The base of all tables; constraints have names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UTCDateTime(TypeDecorator[datetime]):
    """`timestamptz`, aware on both databases (SQLite hands timestamps back naive)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Store UTC; a naive value is a mistake."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class _Session(Session):
    """Knows the connection of its transaction."""


@event.listens_for(_Session, "after_begin")
def _note_connection(session: Session, _transaction: Any, connection: Any) -> None:
    session.info[_DRIVER] = connection.connection.driver_connection


class Database:
    """Transactions on SQLite or PostgreSQL, behind a breaker, each bounded in time."""

    def __init__(self, settings: Settings) -> None:
        # To wait for a connection, and then to use it: together less than the two seconds that a caller waits.
        self._timeout = settings.database_timeout_seconds * WITH_WAIT
        self.engine = engine.create(settings)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.breaker = Breaker("database", settings.breaker_max_failures, settings.breaker_probe_seconds)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False, sync_session_class=_Session)
        self._patience = settings.database_timeout_seconds
        self.alone = {"milliseconds": str(int(settings.database_timeout_seconds * 1000 * _ALONE))}
        self._room = settings.database_pool_size * _CROWD
        self._turns = asyncio.Semaphore(settings.database_pool_size)
        """First come, first served; the pool lets who gives a connection back take it again before those who wait."""
        self._only_writer = asyncio.Lock()
        """SQLite has one writer at a time; those who wait for their turn here do not fight for it there."""

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A transaction for reading; StoreUnavailable when the database cannot be asked, Busy when too many do."""
        async with self._transaction() as tx:
            yield tx

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction that is committed at the end; StoreUnavailable when it failed or its outcome is unknown.

        IntegrityError passes through: it says something about the data.
        """
        async with self._turn(), self._transaction() as tx:
            if self.is_sqlite:
                _ = await tx.connection(execution_options={"sqlite_begin": "IMMEDIATE"})
            yield tx
            await tx.commit()

    async def ask(self, statement: Statement, values: Mapping[str, Any], tx: AsyncSession | None = None) -> Row | None:
        """Run one statement, in a transaction of its own unless there is one; return its row, if it has one.

        StoreUnavailable when it failed or its outcome is unknown, Busy when too many wait for a connection.
        """
        if tx is not None:
            row = (await tx.execute(statement.construct, values)).one_or_none()
            return dict(row._mapping) if row else None  # noqa: SLF001 - the public name of a row's mapping
        if self.is_sqlite:
            async with self.write() if statement.writes else self.read() as own:
                return await self.ask(statement, values, own)
        async with self._driver() as driver:
            prepared = statement.prepared(self.engine.dialect)
            return prepared.row(await driver.fetchrow(prepared.text, *prepared.arguments(values)))

    async def ask_all(
        self, statement: Statement, values: Mapping[str, Any], tx: AsyncSession | None = None
    ) -> list[Row]:
        """Run one statement as `ask` does, and return all its rows; on PostgreSQL."""
        if tx is not None:
            return [dict(row._mapping) for row in await tx.execute(statement.construct, values)]  # noqa: SLF001 - as above
        async with self._driver() as driver:
            prepared = statement.prepared(self.engine.dialect)
            return prepared.rows(await driver.fetch(prepared.text, *prepared.arguments(values)))

    @asynccontextmanager
    async def _driver(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend asyncpg's own connection out of the pool; whoever fails with it does not give it back."""
        async with self._admitted():
            connection = await self.engine.raw_connection()
            try:
                yield connection.driver_connection
            except BaseException:
                connection.invalidate()  # an answer may still be under way, or a transaction open
                raise
            finally:
                connection.close()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for the others of this process to have written, where only one can."""
        if not self.is_sqlite:
            yield
            return
        try:
            with patience.share(self._timeout) as seconds:
                async with asyncio.timeout(seconds):
                    await self._only_writer.acquire()
        except TimeoutError:
            raise Busy("too many wait to write") from None
        try:
            yield
        finally:
            self._only_writer.release()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncSession]:
        async with self._admitted() as seconds, _bounded(self._sessions(), seconds) as tx:
            yield tx

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[float]:
        """Let a bounded number of users in, through the breaker, for some seconds; translate what goes wrong."""
        if self._room <= 0:
            raise Busy("too many wait for a database connection")
        self._room -= 1
        try:
            with self.breaker.admit((StoreUnavailable,), self._timeout):
                try:
                    with patience.share(self._timeout) as seconds:
                        async with asyncio.timeout(seconds), self._connection_turn():
                            yield seconds
                except (IntegrityError, DataError):
                    raise
                except PoolTimeout as full:  # our own crowd; says nothing against the database
                    raise Busy("all database connections are in use") from full
                except FAILURES as failure:
                    log.warning("database_unavailable", extra={"reason": reason(failure)})
                    raise StoreUnavailable("database", reason(failure)) from failure
        finally:
            self._room += 1

    @asynccontextmanager
    async def _connection_turn(self) -> AsyncIterator[None]:
        if self._turns.locked():
            try:
                async with asyncio.timeout(self._patience):
                    await self._turns.acquire()
            except TimeoutError:
                raise Busy("all database connections are in use") from None
        else:
            await self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()

    async def lock(self, tx: AsyncSession, name: str, *, shared: bool = False) -> None:
        """Let one transaction of all nodes at a time past this point, or many that share; each holds it to its end.

        On SQLite a writing transaction is alone anyway.
        """
        if not self.is_sqlite:
            await tx.execute(select(sharing(name) if shared else alone(name)), None if shared else self.alone)

    async def try_lock(self, tx: AsyncSession, name: str) -> bool:
        """Take the lock of that name until the transaction ends; False, at once, if another one has it.

        On SQLite a writing transaction is alone anyway.
        """
        if self.is_sqlite:
            return True
        return bool(await tx.scalar(select(func.pg_try_advisory_xact_lock(_number(name)))))

    async def now(self, tx: AsyncSession) -> datetime:
        """Return the database's time, the same for all nodes; on SQLite that is this machine's."""
        if self.is_sqlite:
            return clock.now()
        return (await tx.scalars(select(func.now()))).one()

    async def ping(self) -> None:
        """Ask the database for a sign of life, past the breaker; one of `FAILURES` if there is none."""
        async with asyncio.timeout(self._timeout), self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def revision(self) -> str | None:
        """Return which revision of the schema is there, past the breaker; None before any, one of `FAILURES`."""
        async with asyncio.timeout(self._timeout), self.engine.connect() as connection:
            try:
                revision: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
            except DBAPIError as failure:
                if lacks_tables(failure):
                    return None
                raise
            return revision

    async def migrated(self) -> None:
        """Return when the database is there and has tables. Waits for ever."""
        revision = None
        while revision is None:
            try:
                revision = await self.revision()
            except FAILURES as failure:
                log.debug("database_not_there_yet", extra={"reason": reason(failure)})
            if revision is None:
                await asyncio.sleep(self.breaker.probe_seconds)

    async def watch(self) -> None:
        """Look for the database while its breaker is open. Runs for ever."""
        await self.breaker.watch(self.ping, FAILURES)

    async def close(self) -> None:
        """Give all connections back."""
        await self.engine.dispose()


@asynccontextmanager
async def _bounded(tx: AsyncSession, seconds: float) -> AsyncIterator[AsyncSession]:
    """Cut a session's connection when its time is over: SQLAlchemy's rollback would wait for a hung server.

    It does so even when it is cancelled, so the time-out around it does not end that.
    """
    end = asyncio.get_running_loop().call_later(seconds, _cut, tx)
    try:
        async with tx:
            yield tx
    finally:
        end.cancel()


def _cut(tx: AsyncSession) -> None:
    driver = tx.info.get(_DRIVER)
    if isinstance(driver, asyncpg.Connection):
        driver.terminate()
