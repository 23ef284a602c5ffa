"""How to get to the database: the pool of connections, what each is told first, and what can go wrong on the way."""

from math import inf
from time import monotonic
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    DBAPIError,
    DisconnectionError,
    EmulatedDBAPIException,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from authserver.settings import Settings

# asyncpg raises InternalClientError, which is no PostgresError, when the peer of a pooled connection has just vanished.
# A connection that is lent out raw is made without SQLAlchemy's DBAPIError around what goes wrong meanwhile.
_OF_THE_DRIVER = (asyncpg.PostgresError, asyncpg.InternalClientError, asyncpg.InterfaceError, EmulatedDBAPIException)
FAILURES = (DBAPIError, PoolTimeout, OSError, TimeoutError, *_OF_THE_DRIVER)

ISOLATION = "READ COMMITTED"
"""Each statement sees what was committed before it: who has waited for a lock must see what the others did."""
_MOST_IDLE_SECONDS = 120
"""Firewalls and load balancers forget a connection that is not used, often after four minutes, and tell neither end."""
_RETURNED_AT = "returned at"
_PLANNED_ANEW_SECONDS = 10
"""PostgreSQL keeps the plan of a statement as long as the statement; one made for an empty table reads all of the table
until autovacuum has looked at it, which takes minutes: so long a new installation became slower with each sign-in."""
WITH_WAIT = 1.6
"""So many times DATABASE_TIMEOUT_SECONDS a transaction may take if it first had to wait for a connection."""


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that is given up without a good-bye: a hung server would not answer it either."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's own parameter
        if timeout is not None:  # SQLAlchemy gives a timeout only when it drops a connection that failed
            self.terminate()
        else:
            await super().close()


def lacks_tables(failure: BaseException | None) -> bool:
    """Tell a database without our tables from one that does not answer: neither can be asked."""
    return isinstance(failure, ProgrammingError | asyncpg.UndefinedTableError | asyncpg.UndefinedColumnError) or (
        isinstance(failure, OperationalError) and "no such" in str(failure)
    )


def create(settings: Settings) -> AsyncEngine:
    """Make the pool of connections; nothing connects before it is used."""
    url = make_url(settings.database_url.get_secret_value())
    timeout = settings.database_timeout_seconds
    milliseconds = str(int(timeout * 1000))
    pool: dict[str, Any] = {
        "pool_size": settings.database_pool_size,
        "max_overflow": 0,
        "pool_use_lifo": True,  # PostgreSQL has a process for each: few of them that work much are quicker than many
        "pool_timeout": timeout,
        "hide_parameters": True,  # they would be in the logs of every failed statement
    }
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(url, connect_args={"timeout": timeout}, **pool)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    told = {"application_name": "authserver"}
    arguments: dict[str, Any] = {"timeout": timeout, "connection_class": _Connection, "server_settings": told}
    if settings.database_pooler:
        # The next transaction may be on another connection, which knows nothing of the statements of this one.
        arguments["statement_cache_size"] = 0
    else:
        arguments["max_cached_statement_lifetime"] = _PLANNED_ANEW_SECONDS
        told |= {
            "statement_timeout": milliseconds,
            "lock_timeout": milliseconds,
            "default_transaction_isolation": ISOLATION.lower(),  # of what goes past SQLAlchemy
            # Longer than any transaction of a node that is alive; a dead one must not keep its locks.
            "idle_in_transaction_session_timeout": str(int(timeout * 1000 * WITH_WAIT * 1.25)),
        }
    engine = create_async_engine(url, connect_args=arguments, isolation_level=ISOLATION, **pool)
    event.listen(engine.sync_engine, "checkin", _note_return)
    event.listen(engine.sync_engine, "checkout", _refuse_dead)
    return engine


def _note_return(_dbapi_connection: Any, record: Any) -> None:
    record.info[_RETURNED_AT] = monotonic()


def _refuse_dead(dbapi_connection: Any, record: Any, _proxy: Any) -> None:
    """Have the pool replace a connection that has been closed meanwhile, or may have been; costs no round trip."""
    if dbapi_connection.driver_connection.is_closed():
        raise DisconnectionError("closed by the server")
    if monotonic() - record.info.get(_RETURNED_AT, inf) > _MOST_IDLE_SECONDS:
        raise DisconnectionError("unused for so long that a firewall may have forgotten it")


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


def reason(failure: BaseException) -> str:
    """Say in one line what happened, without statement and parameters."""
    cause = failure.orig if isinstance(failure, DBAPIError) and failure.orig else failure
    return f"{type(cause).__name__}: {cause}".split("\n")[0][:200]
