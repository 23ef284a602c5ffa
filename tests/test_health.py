"""/health/live and /health/ready: quick, quiet, and true while stores fail."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from authserver import health, migrations
from authserver.db import Database
from authserver.settings import Settings
from tests import application
from tests.servers import Postgres, Valkey, free_port
from tests.stores import Backend, Stores

Ready = Callable[[], Awaitable[tuple[int, dict[str, Any]]]]


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a look take longer where its time is not what is tested: the machine that tests may be busy."""
    if "ready" not in request.fixturenames:
        monkeypatch.setattr(health, "LOOK_SECONDS", 20.0)


async def test_live_says_so(client: httpx.AsyncClient) -> None:
    response = await client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_ready_when_everything_is(client: httpx.AsyncClient, backend: Backend) -> None:
    response = await client.get("/health/ready")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == {
        "status": "ok",
        "checks": {
            "database": {"status": "ok", "breaker": "closed"},
            "redis": {"status": "off" if backend == "sqlite" else "ok", "breaker": "closed"},
            "signing_key": {"status": "ok", "breaker": None},
        },
    }


async def test_many_who_ask_share_one_look(app_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    app: FastAPI = await app_with()
    looks: list[Database] = []
    look_at_database = health._look_at_database

    async def look(database: Database) -> Any:
        looks.append(database)
        return await look_at_database(database)

    monkeypatch.setattr(health, "_look_at_database", look)
    async with application.client_of(app) as client:
        answers = await asyncio.gather(*(client.get("/health/ready") for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert len(looks) == 1
        await asyncio.sleep(1.1)
        await client.get("/health/ready")
        assert len(looks) == 2


async def test_a_caller_that_hangs_up_does_not_spoil_it_for_the_others(
    app_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def look(_database: Database) -> str:
        began.set()
        await go_on.wait()
        return "ok"

    monkeypatch.setattr(health, "_look_at_database", look)
    async with application.client_of(await app_with()) as client:
        hasty = asyncio.create_task(client.get("/health/ready"))
        await began.wait()
        patient = asyncio.create_task(client.get("/health/ready"))
        await asyncio.sleep(0.05)
        hasty.cancel()
        await asyncio.sleep(0.05)
        go_on.set()
        assert (await patient).status_code == 200


async def test_a_look_that_hangs_is_given_up_and_another_one_taken(
    app_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    async def look(_database: Database) -> str:
        looks.append("look")
        if len(looks) == 1:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            await asyncio.sleep(0.5)  # it does not even end when it is told to
        return "ok"

    monkeypatch.setattr(health, "_look_at_database", look)
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.2)
    async with application.client_of(await app_with()) as client:
        began = time.monotonic()
        assert (await client.get("/health/ready")).status_code == 503
        assert time.monotonic() - began < 0.6
        await asyncio.sleep(1.1)
        assert (await client.get("/health/ready")).status_code == 200


async def test_not_ready_without_a_schema(databases: Stores, backend: Backend, client_with: Any) -> None:
    client = await client_with(database_url=await databases.empty_database(backend))
    assert (await client.get("/health/live")).status_code == 200
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["checks"]["database"]["status"] == "not-migrated"


async def test_not_ready_while_the_keys_cannot_be_decrypted(
    databases: Stores, backend: Backend, client_with: Any
) -> None:
    database_url = await databases.new_database(backend)
    await client_with(database_url=database_url)
    client = await client_with(database_url=database_url, secret_key="another than the one that encrypted them")
    response = await client.get("/health/ready")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["checks"]["signing_key"]["status"] == "missing"


async def test_degraded_without_redis(client_with: Any) -> None:
    client = await client_with(redis_url=f"redis://:2YotnFZFEjr1z@127.0.0.1:{free_port()}/0")
    response = await client.get("/health/ready")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")
    assert response.json()["checks"]["redis"]["status"] == "down"
    assert "2YotnFZFEjr1z" not in response.text


async def test_unavailable_without_a_database_and_no_word_about_where_it_is(
    client_with: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    client = await client_with(
        database_url=f"postgresql+asyncpg://authserver:2YotnFZFEjr1z@127.0.0.1:{port}/authserver"
    )
    assert (await client.get("/health/live")).status_code == 200
    response = await client.get("/health/ready")
    assert (response.status_code, response.json()["status"]) == (503, "unavailable")
    assert str(port) not in response.text
    assert "2YotnFZFEjr1z" not in response.text + "".join(capfd.readouterr())


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture
async def ready(postgres: Postgres, valkey: Valkey) -> AsyncIterator[Ready]:
    """Ask an application on servers of its own whether it is ready; asks again until a fresh look has been taken."""
    settings = Settings(_env_file=None, database_url=postgres.url(), redis_url=valkey.url())
    await asyncio.to_thread(migrations.upgrade, settings)
    async with application.running(settings) as app, application.client_of(app) as client:

        async def ask() -> tuple[int, dict[str, Any]]:
            await asyncio.sleep(1.05)
            began = time.monotonic()
            response = await client.get("/health/ready")
            assert time.monotonic() - began < 1.0
            assert json.loads(response.text)["status"] in {"ok", "degraded", "unavailable"}
            return response.status_code, response.json()

        assert (await ask())[0] == 200
        yield ask
        async with asyncio.timeout(15):
            while (await ask())[1]["status"] != "ok":
                continue


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "hung", "read-only"])
async def test_a_database_in_trouble_makes_it_unavailable(ready: Ready, postgres: Postgres, fault: str) -> None:
    if fault == "killed":
        postgres.kill()
    elif fault == "hung":
        postgres.hang()
    else:
        await set_read_only(postgres, "on")
    try:
        status, answer = await ready()
        assert (status, answer["status"]) == (503, "unavailable")
        assert answer["checks"]["database"]["status"] == ("read-only" if fault == "read-only" else "down")
    finally:
        if fault == "killed":
            postgres.start()
        elif fault == "hung":
            postgres.resume()
        else:
            await set_read_only(postgres, "off")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "hung", "full"])
async def test_a_redis_in_trouble_makes_it_degraded(ready: Ready, valkey: Valkey, fault: str) -> None:
    if fault == "killed":
        valkey.kill()
    elif fault == "hung":
        valkey.hang()
    else:
        await limit_memory(valkey, "1")
    try:
        status, answer = await ready()
        assert (status, answer["status"]) == (200, "degraded")
        assert answer["checks"]["redis"]["status"] == "down"
    finally:
        if fault == "killed":
            valkey.start()
        elif fault == "hung":
            valkey.resume()
        else:
            await limit_memory(valkey, "0")


async def set_read_only(postgres: Postgres, value: str) -> None:
    engine = create_async_engine(postgres.url(), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("SET default_transaction_read_only = off"))
        await connection.execute(text(f"ALTER SYSTEM SET default_transaction_read_only = {value}"))
        await connection.execute(text("SELECT pg_reload_conf()"))
    await engine.dispose()


async def limit_memory(valkey: Valkey, value: str) -> None:
    async with Redis.from_url(valkey.url()) as redis:
        await redis.config_set("maxmemory", value)


async def test_the_answers_are_documented(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert set(paths["/health/live"]["get"]["responses"]) == {"200"}
    assert set(paths["/health/ready"]["get"]["responses"]) == {"200", "503"}
    assert set(paths["/metrics"]["get"]["responses"]["200"]["content"]) == {"text/plain"}
