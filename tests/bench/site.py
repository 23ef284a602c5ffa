"""A running server with its stores and its people: what an operation is sent to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.bench.population import Population, populated
from tests.bench.servers import Node, Stores, production, serving


@dataclass(frozen=True)
class Site:
    """One server; several may share the stores."""

    stores: Stores
    node: Node
    population: Population


@asynccontextmanager
async def opened(stores: Stores, database: str, *, workers: int, **changes: Any) -> AsyncIterator[Site]:
    """Start a server on a database of its own, and fill that."""
    settings = await production(stores, database, **changes)
    async with serving(stores, settings, workers=workers) as node, populated(node.settings) as population:
        yield Site(stores, node, population)
