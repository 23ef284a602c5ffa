"""A database, a Redis, a client, and servers that use them and can be made to crash."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from authserver.clients import registration
from authserver.services import Services
from authserver.settings import Settings
from tests.application import Program
from tests.factories import PASSWORD, App, basic, bearer
from tests.faults.crashing import CrashingProgram
from tests.stores import Stores


@dataclass
class House:
    """Stores, settings for the servers that use them, and a client."""

    settings: dict[str, object]
    app: App
    directory: Path

    def start(self, crash_point: str | None = None) -> Program:
        if crash_point is None:
            return Program(self.directory, self.settings)
        return CrashingProgram(crash_point, self.directory, self.settings)


@dataclass
class Node:
    """A server, and how one speaks with it."""

    program: Program
    http: httpx.AsyncClient
    app: App

    async def register(self, name: str) -> httpx.Response:
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        return await self.http.post("/register", json=body)

    async def sign_in(self, name: str) -> httpx.Response:
        data = {"grant_type": "password", "username": name, "password": PASSWORD}
        return await self.http.post("/token", data=data, auth=basic(self.app))

    async def refresh(self, token: str) -> httpx.Response:
        data = {"grant_type": "refresh_token", "refresh_token": token}
        return await self.http.post("/token", data=data, auth=basic(self.app))

    async def revoke(self, token: str) -> httpx.Response:
        return await self.http.post("/revoke", data={"token": token}, auth=basic(self.app))

    async def is_active(self, token: str) -> bool:
        response = await self.http.post("/introspect", data={"token": token}, auth=basic(self.app))
        assert response.status_code == 200, response.text
        return bool(response.json()["active"])

    async def sessions(self, token: str) -> int:
        response = await self.http.get("/users/me/sessions", headers=bearer(token))
        assert response.status_code == 200, response.text
        return len(response.json()["sessions"])

    async def dies(self, request: Awaitable[httpx.Response]) -> None:
        """Let it be killed by a request, whose answer nobody gets."""
        with pytest.raises(httpx.TransportError):
            await request
        await self.is_killed()

    async def is_killed(self) -> None:
        """Wait until it is."""
        assert await asyncio.to_thread(self.program.process.wait, 10) == -9


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - it is about other processes
            await asyncio.sleep(0.05)


async def is_trusted(node: Node) -> bool:
    return "\nauthserver_denylist_trusted 1.0" in (await node.http.get("/metrics")).text


async def new_house(databases: Stores, redis_url: str, directory: Path) -> House:
    """Take a new database of the tests' PostgreSQL."""
    return await new_house_at(await databases.new_database("postgres"), redis_url, directory)


async def new_house_at(url: str, redis_url: str, directory: Path) -> House:
    """Register a client in a migrated database."""
    settings: dict[str, Any] = {
        "database_url": url,
        "redis_url": redis_url,
        "argon2_memory_kib": 8,
        "argon2_time_cost": 1,
        "refresh_retry_seconds": 60,  # it may take long to start a server
    }
    async with Services.open(Settings(_env_file=None, **settings)) as services, services.db.write() as tx:
        new = registration.NewClient("crash", grants=["password", "refresh_token"])
        client, secret = registration.create(tx, services.clients, new)
    # A Redis that is only slow, because the machine is, must not lead past the points.
    shared = {"issuer": "http://127.0.0.1", "throttle_enabled": False, "redis_timeout_seconds": 0.15}
    return House(settings | shared, App(client.id, secret), directory)


@asynccontextmanager
async def running(house: House, crash_point: str | None = None) -> AsyncIterator[Node]:
    program = house.start(crash_point)
    try:
        await program.ready()
        async with httpx.AsyncClient(base_url=program.url, timeout=15) as http:
            yield Node(program, http, house.app)
    finally:
        program.kill()


def new_name() -> str:
    return f"user-{secrets.token_hex(6)}"


async def tokens_of(node: Node, name: str | None = None) -> dict[str, str]:
    """Sign somebody in; a new user if no name is given."""
    if name is None:
        name = new_name()
        assert (await node.register(name)).status_code == 201
    response = await node.sign_in(name)
    assert response.status_code == 200, response.text
    return dict(response.json())


@asynccontextmanager
async def connected(house: House) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(str(house.settings["database_url"]))
    async with engine.begin() as connection:
        yield connection
    await engine.dispose()


async def fill_denylist(house: House, many: int) -> None:
    """Revoke so many tokens that nobody has."""
    insert = (
        "INSERT INTO denylist_entries (entry, forget_at)"
        " SELECT 'j:' || i, now() + interval '1 hour' FROM generate_series(1, :many) AS i"
    )
    async with connected(house) as connection:
        await connection.execute(text(insert), {"many": many})
