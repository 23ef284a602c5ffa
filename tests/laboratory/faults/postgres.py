"""PostgreSQL: killed, hung, restarted, read-only, full."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
from sqlalchemy.engine import make_url

from tests.laboratory.disk import SmallDiskPostgres
from tests.laboratory.faults.fault import fault, meanwhile, wholly
from tests.laboratory.nodes import Laboratory
from tests.servers import Postgres


@fault("postgres-killed", "PostgreSQL is killed", without_database="AB")
async def killed(lab: Laboratory) -> AsyncIterator[None]:
    await asyncio.to_thread(lab.postgres.kill)
    yield
    await asyncio.to_thread(lab.postgres.start)


@fault("postgres-hung", "PostgreSQL hangs (SIGSTOP)", without_database="AB")
async def hung(lab: Laboratory) -> AsyncIterator[None]:
    lab.postgres.hang()
    yield
    lab.postgres.resume()


@fault("postgres-restarted", "PostgreSQL is killed and started at once, every two seconds", without_database="AB")
async def restarted(lab: Laboratory) -> AsyncIterator[None]:
    async def restart() -> None:
        while True:
            await wholly(partial(_restart, lab.postgres))
            await asyncio.sleep(2)

    async with meanwhile(restart()):
        yield


@fault("postgres-read-only", "PostgreSQL takes no writes", without_database="AB")
async def read_only(lab: Laboratory) -> AsyncIterator[None]:
    await _execute(lab, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    yield
    await _execute(lab, "ALTER SYSTEM SET default_transaction_read_only = off", "SELECT pg_reload_conf()")


def _why_not(lab: Laboratory) -> str:
    return lab.postgres.reason if isinstance(lab.postgres, SmallDiskPostgres) else "its disk is everybody's"


@fault("postgres-disk-full", "the disk of PostgreSQL is full", without_database="AB", why_not=_why_not)
async def disk_full(lab: Laboratory) -> AsyncIterator[None]:
    assert isinstance(lab.postgres, SmallDiskPostgres)
    await asyncio.to_thread(lab.postgres.fill)
    yield
    lab.postgres.empty()
    if not await asyncio.to_thread(lab.postgres.is_running):  # it gives up when its journal has no room
        await asyncio.to_thread(lab.postgres.start)


@fault("everything-killed", "PostgreSQL and Redis are killed at once", without_database="AB")
async def everything_killed(lab: Laboratory) -> AsyncIterator[None]:
    lab.redis.kill()
    await asyncio.to_thread(lab.postgres.kill)
    yield
    await asyncio.to_thread(lab.redis.start)
    await asyncio.to_thread(lab.postgres.start)


def _restart(postgres: Postgres) -> None:
    postgres.kill()
    postgres.start()


async def _execute(lab: Laboratory, *statements: str) -> None:
    url = make_url(lab.postgres.url()).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    for statement in statements:
        await connection.execute(statement)
    await connection.close()
