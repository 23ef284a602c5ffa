"""What all tests stand on: real servers, a migrated database for each backend, the application, a client to talk to it.

Every test that uses `backend`, or a fixture made from it, runs twice: on SQLite alone (`sqlite`), and on PostgreSQL
with Valkey (`postgres`). Tests share a database; each makes users and clients of its own (tests/factories.py).
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock

import freezegun
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete

from authserver.services import Services
from authserver.sessions.logout_delivery import LogoutDelivery
from authserver.sessions.models import LogoutNotice
from authserver.settings import Settings
from tests import application, servers, stores
from tests.code_flow import new_flow
from tests.factories import new_client, new_user
from tests.signed_in import me
from tests.stores import Backend, Stores

__all__ = ["me", "new_client", "new_flow", "new_user"]  # fixtures

SERVERS = pytest.StashKey[dict[str, str]]()
OWN_SERVERS = {"postgres": "AUTHSERVER_TEST_DATABASE_URL", "redis": "AUTHSERVER_TEST_REDIS_URL"}


def pytest_configure(config: pytest.Config) -> None:
    """Note which servers the caller has; no other setting of the caller's may change a test."""
    # The stores are watched between tests too: what that measures must not begin in one time and end in another.
    freezegun.configure(extend_ignore_list=["authserver.breaker", "authserver.tokens.denylist"])
    config.stash[SERVERS] = {server: os.environ[name] for server, name in OWN_SERVERS.items() if os.environ.get(name)}
    for name in [name for name in os.environ if name.startswith("AUTHSERVER_")]:
        del os.environ[name]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the servers that the caller does not have: in the process that the others are started from, before them."""
    config = session.config
    if hasattr(config, "workerinput"):
        config.stash[SERVERS] = config.workerinput["servers"]
    elif not config.option.collectonly and len(config.stash[SERVERS]) < len(OWN_SERVERS):
        own = ExitStack()
        config.stash[SERVERS] = own.enter_context(servers.started()) | config.stash[SERVERS]
        config.add_cleanup(own.close)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist where the servers are."""
    node.workerinput["servers"] = node.config.stash[SERVERS]


@pytest.fixture(scope="session")
async def databases(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> AsyncIterator[Stores]:
    """Scratch databases: `await databases.new_database(backend)` is an URL of a migrated one."""
    urls = request.config.stash[SERVERS]
    redis_url = stores.numbered(urls["redis"], worker_id)
    await stores.assert_empty(redis_url)
    made = Stores(urls["postgres"], redis_url, tmp_path_factory.mktemp("databases"))
    yield made
    await made.close()


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Run the test once on SQLite, and once on PostgreSQL with Valkey."""
    return cast("Backend", request.param)


@pytest.fixture(scope="session")
async def settings(backend: Backend, databases: Stores) -> Settings:
    """The settings that most tests run with: nothing throttles or prunes, hashing costs next to nothing."""
    return Settings(
        _env_file=None,
        issuer=application.ISSUER,
        database_url=await databases.new_database(backend),
        redis_url=databases.redis_url(backend),
        throttle_enabled=False,
        prune_enabled=False,
        key_rotation_seconds=0,
        argon2_memory_kib=8,
        argon2_time_cost=1,
    )


@pytest.fixture(scope="session")
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application, started up."""
    async with application.running(settings) as app:
        yield app


@pytest.fixture(scope="session")
def services(app: FastAPI) -> Services:
    """What the application's requests work with, for arranging what HTTP cannot."""
    return cast("Services", app.state.services)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the application, with a cookie jar of its own."""
    async with application.client_of(app) as client:
        yield client


@pytest.fixture
async def app_with(settings: Settings, app: FastAPI) -> AsyncIterator[Callable[..., Awaitable[FastAPI]]]:
    """Start further applications on the same database: `other = await app_with(throttle_enabled=True)`.

    After `app`: the signing key must be made with the secret key of `settings`, not with one of `changes`.
    """
    async with AsyncExitStack() as stack:

        async def start(**changes: Any) -> FastAPI:
            changed = Settings(_env_file=None, **(settings.model_dump() | changes))
            return await stack.enter_async_context(application.running(changed))

        yield start


@pytest.fixture
async def client_with(app_with: Callable[..., Awaitable[FastAPI]]) -> AsyncIterator[Callable[..., Any]]:
    """Talk to an application of one's own: `client = await client_with(cors_origins=["https://app.example"])`."""
    async with AsyncExitStack() as stack:

        async def start(*, address: str = "192.0.2.1", **changes: Any) -> httpx.AsyncClient:
            app = await app_with(**changes)
            return await stack.enter_async_context(application.client_of(app, address))

        yield start


@pytest.fixture
async def only_programs_deliver(services: Services, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Leave notices of logout to server processes: the applications in this one would sign them as another issuer.

    Those that are left at the end are for clients that are gone, and would be tried all day.
    """
    monkeypatch.setattr(LogoutDelivery, "_is_any_due", AsyncMock(return_value=False))
    yield
    async with services.db.write() as tx:
        await tx.execute(delete(LogoutNotice))


@pytest.fixture(scope="session")
def server_settings(settings: Settings) -> dict[str, Any]:
    """What a server of its own has in common with `app`: the same database and Redis, nothing throttles or prunes."""
    return {
        "database_url": settings.database_url.get_secret_value(),
        "redis_url": settings.redis_url.get_secret_value(),
        "throttle_enabled": settings.throttle_enabled,
        "prune_enabled": settings.prune_enabled,
        "key_rotation_seconds": settings.key_rotation_seconds,
        "argon2_memory_kib": settings.argon2_memory_kib,
        "argon2_time_cost": settings.argon2_time_cost,
    }


@pytest.fixture(scope="module")
async def program(
    server_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[application.Program]:
    """`authserver serve` as a process, for the tests of a module that change nothing about it.

    Not for longer: it does in the background what a test may wait for `app` to do.
    """
    program = application.Program(tmp_path_factory.mktemp("program"), server_settings)
    await program.ready()
    yield program
    program.kill()


@pytest.fixture
async def serve(
    server_settings: dict[str, Any], tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[application.Program]]]:
    """Start `authserver serve` as a process: `program = await serve("--workers", "2", access_token_seconds=60)`.

    It uses the same database as `app`; `issuer` is where it listens unless given.
    """
    programs: list[application.Program] = []

    async def start(*arguments: str, **changes: Any) -> application.Program:
        program = application.Program(tmp_path, server_settings | changes, *arguments)
        programs.append(program)
        await program.ready()
        return program

    yield start
    for program in programs:
        program.kill()
