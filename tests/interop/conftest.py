"""A server process for each backend, which the tests of this directory share."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from authserver.settings import Settings
from tests.application import Program
from tests.factories import PASSWORD, App, NewClient, NewUser, Person, basic

FREE_HASHING = {"argon2_memory_kib": 8, "argon2_time_cost": 1}


def program(settings: Settings, directory: Any, **changes: Any) -> Program:
    """Start `authserver serve` on the databases of these settings."""
    base = {
        "database_url": settings.database_url.get_secret_value(),
        "redis_url": settings.redis_url.get_secret_value(),
        "throttle_enabled": False,
        **FREE_HASHING,
    }
    return Program(directory, base | changes)


@pytest.fixture(scope="package")  # not longer: it would deliver the notices of logout of other tests
async def server(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Program]:
    """`authserver serve`; issuer is where it listens, nothing is throttled, hashing costs next to nothing."""
    running = program(settings, tmp_path_factory.mktemp("server"))
    try:
        await running.ready()
        yield running
    finally:
        running.kill()


@pytest.fixture
async def http(server: Program) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client of the server."""
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        yield client


@dataclass(frozen=True)
class Actors:
    """Who takes part in most tests: a user, three kinds of clients."""

    user: Person
    confidential: App
    public: App
    resource_server: App
    """May introspect, and nothing else."""


@pytest.fixture
async def actors(new_user: NewUser, new_client: NewClient) -> Actors:
    """New ones for this test."""
    return Actors(
        user=await new_user(),
        confidential=await new_client(),
        public=await new_client(is_public=True),
        resource_server=await new_client(grants=(), may_introspect=True),
    )


async def tokens(http: httpx.AsyncClient, actors: Actors, **form: str) -> dict[str, Any]:
    """Sign the user in through the confidential client; return the answer."""
    data = {"grant_type": "password", "username": actors.user.username, "password": PASSWORD, **form}
    answer = await http.post("/token", data=data, auth=basic(actors.confidential))
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def introspect(http: httpx.AsyncClient, asker: App, token: str) -> dict[str, Any]:
    """Return what a client learns of a token."""
    answer = await http.post("/introspect", data={"token": token}, auth=basic(asker))
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document
