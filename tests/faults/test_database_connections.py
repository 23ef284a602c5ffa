"""A transaction ends in time, whatever the network between us and PostgreSQL does to it."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from authserver.db import Database
from authserver.errors import StoreUnavailable
from authserver.settings import Settings
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
    began = monotonic()
    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(FAR_TOO_LONG_SECONDS), database.read() as tx:
            await tx.execute(text("SELECT 1"))
            proxy.swallow()
            if moment == "while it works":
                await tx.execute(text("SELECT 1"))
    assert monotonic() - began < FAR_TOO_LONG_SECONDS / 2


async def test_a_connection_that_has_gone_silent_is_not_used_again(edge: tuple[Database, Proxy]) -> None:
    database, proxy = edge
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            async with database.read() as tx:
                await tx.execute(text("SELECT 1"))
                proxy.swallow()
        await proxy.mend()
        async with database.read() as tx:
            assert await tx.scalar(text("SELECT 1")) == 1
