"""Scratch databases for the tests: each one migrated, none shared between two test processes."""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import asyncpg
from redis.asyncio import Redis
from sqlalchemy.engine import URL, make_url

from authserver import migrations
from authserver.settings import Settings

Backend = Literal["sqlite", "postgres"]


class Stores:
    """Makes databases on the servers of a run, for one test process; drops them when it is closed."""

    def __init__(self, postgres_url: str, redis_url: str, directory: Path) -> None:
        self._postgres = make_url(postgres_url).set(drivername="postgresql+asyncpg")
        self._redis_url = redis_url
        self._directory = directory
        self._prefix = f"authserver_test_{secrets.token_hex(4)}"
        self._count = 0
        self._to_drop: list[str] = []
        self._templates: dict[Backend, str] = {}

    def redis_url(self, backend: Backend) -> str:
        """Return what the tests on a backend use for REDIS_URL: SQLite stands for the installation without Redis."""
        return self._redis_url if backend == "postgres" else ""

    async def empty_database(self, backend: Backend) -> str:
        """Make a database without any table; return its URL."""
        return _text(await self._create(backend, template=None))

    async def new_database(self, backend: Backend) -> str:
        """Make a migrated database; return its URL. Only the first one of a backend takes the time to migrate."""
        if backend not in self._templates:
            url = await self._create(backend, template=None)
            settings = Settings(_env_file=None, database_url=_text(url))
            await asyncio.to_thread(migrations.upgrade, settings)
            self._templates[backend] = str(url.database)
        return _text(await self._create(backend, template=self._templates[backend]))

    async def close(self) -> None:
        """Drop what was made, and empty the Redis database."""
        async with self._administration() as connection:
            for name in self._to_drop:
                await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        async with Redis.from_url(self._redis_url) as redis:
            await redis.flushdb()

    async def _create(self, backend: Backend, template: str | None) -> URL:
        self._count += 1
        name = f"{self._prefix}_{self._count}"
        if backend == "sqlite":
            path = self._directory / f"{name}.db"
            if template:
                shutil.copyfile(template, path)
            return URL.create("sqlite+aiosqlite", database=str(path))
        async with self._administration() as connection:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template or "template0"}"')
        self._to_drop.append(name)
        return self._postgres.set(database=name)

    @asynccontextmanager
    async def _administration(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(_text(self._postgres.set(drivername="postgresql")))
        try:
            yield connection
        finally:
            await connection.close()


def numbered(redis_url: str, worker: str) -> str:
    """Give a test process a Redis database of its own: `gw3` takes the one three after the URL's."""
    url = make_url(redis_url)
    number = int(worker.removeprefix("gw")) if worker.startswith("gw") else 0  # "master" runs the tests alone
    return _text(url.set(database=str(int(url.database or 0) + number)))


async def assert_empty(redis_url: str) -> None:
    """Refuse to work, and in the end to FLUSHDB, where somebody keeps data."""
    async with Redis.from_url(redis_url) as redis:
        if await redis.dbsize():
            number = make_url(redis_url).database
            raise RuntimeError(f"database {number} of AUTHSERVER_TEST_REDIS_URL is not empty; the tests would flush it")


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
