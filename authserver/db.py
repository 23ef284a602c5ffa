"""The database: its transactions, and the one exception that every way of not having it becomes.

`async with db.write() as tx:` commits at the end of the block, so what a request did is durable before its answer
leaves; a refusal that is *returned* from the block commits too, an exception rolls back.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
from sqlalchemy import DateTime, Dialect, MetaData, TypeDecorator, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session

from authserver import patience
from authserver.breaker import Breaker
from authserver.errors import Busy, StoreUnavailable
from authserver.settings import Settings

log = logging.getLogger(__name__)

# asyncpg raises InternalClientError, which is no PostgresError, when the peer of a pooled connection has just vanished.
FAILURES = (DBAPIError, PoolTimeout, OSError, TimeoutError, asyncpg.InternalClientError, asyncpg.InterfaceError)

_CROWD = 20
"""So many times the connections may be asked for at a time; the next one would wait too long anyway."""
_WITH_WAIT = 1.6
"""So many times DATABASE_TIMEOUT_SECONDS a transaction may take if it first had to wait for a connection."""
_ALONE = 0.25
"""Such a part of DATABASE_TIMEOUT_SECONDS one may wait for a lock that nobody else may share."""
_DRIVER = "driver connection"


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


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that is given up without a good-bye: a hung server would not answer it either."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's own parameter
        if timeout is not None:  # SQLAlchemy gives a timeout only when it drops a connection that failed
            self.terminate()
        else:
            await super().close()


class _Session(Session):
    """Knows the connection of its transaction."""


@event.listens_for(_Session, "after_begin")
def _note_connection(session: Session, _transaction: Any, connection: Any) -> None:
    session.info[_DRIVER] = connection.connection.driver_connection


class Database:
    """Transactions on SQLite or PostgreSQL, behind a breaker, each bounded in time."""

    def __init__(self, settings: Settings) -> None:
        # To wait for a connection, and then to use it: together less than the two seconds that a caller waits.
        self._timeout = settings.database_timeout_seconds * _WITH_WAIT
        self.engine = _engine(settings)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.breaker = Breaker("database", settings.breaker_max_failures, settings.breaker_probe_seconds)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False, sync_session_class=_Session)
        self._alone = {"milliseconds": str(int(settings.database_timeout_seconds * 1000 * _ALONE))}
        self._room = settings.database_pool_size * _CROWD
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

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for the others of this process to have written, where only one can."""
        if not self.is_sqlite:
            yield
            return
        try:
            await asyncio.wait_for(self._only_writer.acquire(), self._timeout)
        except TimeoutError:
            raise Busy("too many wait to write") from None
        try:
            yield
        finally:
            self._only_writer.release()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncSession]:
        if self._room <= 0:
            raise Busy("too many wait for a database connection")
        self._room -= 1
        try:
            async with self._admitted() as tx:
                yield tx
        finally:
            self._room += 1

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[AsyncSession]:
        with self.breaker.admit((StoreUnavailable,)):
            try:
                with patience.share(self._timeout) as seconds:
                    async with asyncio.timeout(seconds), _bounded(self._sessions(), seconds) as tx:
                        yield tx
            except (IntegrityError, DataError):
                raise
            except PoolTimeout as full:  # our own crowd; says nothing against the database
                raise Busy("all database connections are in use") from full
            except FAILURES as failure:
                log.warning("database_unavailable", extra={"reason": _reason(failure)})
                raise StoreUnavailable("database", _reason(failure)) from failure

    async def lock(self, tx: AsyncSession, name: str, *, shared: bool = False) -> None:
        """Let one transaction of all nodes at a time past this point, or many that share; each holds it to its end.

        On SQLite a writing transaction is alone anyway.
        """
        if self.is_sqlite:
            return
        if not shared:
            # Who waits to be alone keeps out who would share, and may wait for a node that has stopped: not for long.
            await tx.execute(text("SELECT set_config('lock_timeout', :milliseconds, true)"), self._alone)
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        await tx.execute(text(f"SELECT {function}(hashtextextended(:name, 0))"), {"name": name})

    async def ping(self) -> None:
        """Ask the database for a sign of life, past the breaker; one of `FAILURES` if there is none."""
        async with asyncio.timeout(self._timeout), self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def watch(self) -> None:
        """Look for the database while its breaker is open. Runs for ever."""
        await self.breaker.watch(self.ping, FAILURES)

    async def close(self) -> None:
        """Give all connections back."""
        await self.engine.dispose()


def _engine(settings: Settings) -> AsyncEngine:
    url = make_url(settings.database_url.get_secret_value())
    timeout = settings.database_timeout_seconds
    milliseconds = str(int(timeout * 1000))
    pool: dict[str, Any] = {
        "pool_size": settings.database_pool_size,
        "max_overflow": 0,
        "pool_timeout": timeout,
        "hide_parameters": True,  # they would be in the logs of every failed statement
    }
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(url, connect_args={"timeout": timeout}, **pool)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    engine = create_async_engine(
        url,
        connect_args={
            "timeout": timeout,
            "connection_class": _Connection,
            "server_settings": {
                "application_name": "authserver",
                "statement_timeout": milliseconds,
                "lock_timeout": milliseconds,
                # Longer than any transaction of a node that is alive; a dead one must not keep its locks.
                "idle_in_transaction_session_timeout": str(int(timeout * 1000 * _WITH_WAIT * 1.25)),
            },
        },
        **pool,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


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


def _refuse_closed(dbapi_connection: Any, _record: Any, _proxy: Any) -> None:
    """Have the pool replace a connection that the server has closed meanwhile; costs no round trip."""
    if dbapi_connection.driver_connection.is_closed():
        raise DisconnectionError("closed by the server")


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: it would begin them DEFERRED, and two writers would fail.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


def _reason(failure: BaseException) -> str:
    """Say in one line what happened, without statement and parameters."""
    cause = failure.orig if isinstance(failure, DBAPIError) and failure.orig else failure
    return f"{type(cause).__name__}: {cause}".split("\n")[0][:200]
