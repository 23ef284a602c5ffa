"""A running server with its stores and its people: what an operation is sent to."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from authserver.observability import metrics
from tests.bench import load
from tests.bench.load import http
from tests.bench.population import Population, populated
from tests.bench.servers import Node, Stores, production, serving

_TRUST_SECONDS = 60.0
Filling = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Site:
    """One server; several may share the stores."""

    stores: Stores
    node: Node
    population: Population


@asynccontextmanager
async def opened(
    stores: Stores, database: str, *, workers: int, fill: Filling | None = None, **changes: Any
) -> AsyncIterator[Site]:
    """Start a server on a database of its own with people in it, and wait until Redis has the denylist, if it is there.

    `fill` puts more into the database before anybody looks.
    """
    settings = await production(stores, database, **changes)
    if fill:
        await fill(stores.postgres.plain_url(database))
    async with serving(stores, settings, workers=workers) as node, populated(node.settings) as population:
        if settings["redis_url"].startswith(stores.valkey.url().rpartition("/")[0]):
            await trusted(node)
        yield Site(stores, node, population)


async def trusted(node: Node) -> None:
    """Wait until every worker answers for live tokens without the database."""
    deadline = time.monotonic() + _TRUST_SECONDS
    line = f"{metrics.DENYLIST_TRUSTED._name} 1.0"
    while line not in str((await asyncio.to_thread(load.ask, node.port, http("GET", "/metrics")))[1]):
        if time.monotonic() > deadline:
            raise RuntimeError("the copy of the denylist is not trusted")
        await asyncio.sleep(0.2)
