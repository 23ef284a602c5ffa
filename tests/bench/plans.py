"""Which statements the server really runs, and how PostgreSQL goes about them."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

_LOOK_SECONDS = 0.003
_SEEN = "SELECT query FROM pg_stat_activity WHERE application_name = 'authserver' AND datname = current_database()"
_OF_THE_DRIVER = "typeinfo_tree"
"""In what asyncpg asks about types, once for each connection."""
_PLANNED = re.compile(r"(SELECT|INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[dict[str, str]]:
    """Note what the server asks this database during the block; at its end each statement has its plan."""
    connection = await asyncpg.connect(url)
    plans: dict[str, str] = {}
    seen: set[str] = set()
    watching = asyncio.create_task(_watch(connection, seen))
    try:
        yield plans
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await connection.close()
        connection = await asyncpg.connect(url)
        # The plan that PostgreSQL keeps for a prepared statement: it must do whatever the parameters are.
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        for statement in sorted(filter(_PLANNED.match, seen)):
            if _OF_THE_DRIVER in statement:
                continue
            plans[" ".join(statement.split())] = await _plan(connection, statement)
    finally:
        watching.cancel()
        await connection.close()


async def _watch(connection: asyncpg.Connection, seen: set[str]) -> None:
    look = await connection.prepare(_SEEN)
    while True:
        seen.update(row["query"] for row in await look.fetch())
        await asyncio.sleep(_LOOK_SECONDS)


async def _plan(connection: asyncpg.Connection, statement: str) -> str:
    count = max((int(number) for number in re.findall(r"\$(\d+)", statement)), default=0)
    parameters = f"({', '.join(['NULL'] * count)})" if count else ""
    try:
        await connection.execute(f"PREPARE looked_at AS {statement}")
        rows = await connection.fetch(f"EXPLAIN (COSTS OFF) EXECUTE looked_at{parameters}")
        await connection.execute("DEALLOCATE looked_at")
    except asyncpg.PostgresError as error:
        return f"no plan: {error}"
    return "\n".join(row[0] for row in rows)
