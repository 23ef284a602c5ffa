"""Servers that start before what they need is there get ready by themselves, and are never wrong until then."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from authserver import migrations
from authserver.settings import Settings
from authserver.tokens import copy
from tests.application import Program
from tests.factories import PASSWORD
from tests.faults.house import eventually, fill_denylist, is_trusted, new_house, running, tokens_of
from tests.servers import Postgres, Valkey
from tests.stores import Backend, Stores

log = logging.getLogger(__name__)
pytestmark = pytest.mark.slow
MANY = 100_000
REVOKE_SECONDS = 2.0
"""No request takes longer, whatever is going on."""
Start = Callable[..., Awaitable[Program]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a server that nobody expects to be ready; wait until it answers at all."""
    programs: list[Program] = []

    async def start(*arguments: str, **settings: Any) -> Program:
        program = Program(tmp_path, {"argon2_memory_kib": 8, "argon2_time_cost": 1} | settings, *arguments)
        programs.append(program)
        await eventually(lambda: is_alive(program))
        return program

    yield start
    for program in programs:
        program.kill()


async def is_alive(program: Program) -> bool:
    try:
        async with httpx.AsyncClient(base_url=program.url) as client:
            return (await client.get("/health/live")).status_code == 200
    except httpx.TransportError:
        assert program.process.poll() is None, program.errors.read_text()
        return False


async def readiness(program: Program) -> tuple[int, dict[str, Any]]:
    """Ask over connections of their own, so that all workers are asked; return the worst answer."""
    answers = []
    for _ in range(8):
        async with httpx.AsyncClient(base_url=program.url) as client:
            response = await client.get("/health/ready")
        answers.append((response.status_code, response.json()))
    return max(answers, key=lambda answer: (answer[0], answer[1]["status"] != "ok"))


async def is_ready(program: Program, status: str) -> bool:
    return bool((await readiness(program))[1]["status"] == status)


async def sign_up(program: Program) -> int:
    async with httpx.AsyncClient(base_url=program.url) as client:
        body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
        return (await client.post("/register", json=body)).status_code


async def test_a_server_that_starts_before_its_stores_gets_ready_when_they_come(start: Start) -> None:
    with Postgres() as postgres, Valkey() as valkey:
        await asyncio.to_thread(migrations.upgrade, Settings(_env_file=None, database_url=postgres.url()))
        postgres.kill()
        valkey.kill()
        program = await start("--workers", "2", database_url=postgres.url(), redis_url=valkey.url())
        status, answer = await readiness(program)
        assert (status, answer["checks"]["database"]["status"]) == (503, "down")
        assert await sign_up(program) == 503
        postgres.start()
        await eventually(lambda: is_ready(program, "degraded"))
        assert await sign_up(program) == 201
        valkey.start()
        await eventually(lambda: is_ready(program, "ok"))
        async with httpx.AsyncClient(base_url=program.url) as client:
            data = {"grant_type": "password", "client_id": "docs", "username": "ada", "password": PASSWORD}
            assert (await client.post("/token", data=data)).status_code == 200  # the demo client came late too
        assert await program.stop() == 0
    assert not [line for line in program.logs() if line["level"] in {"ERROR", "CRITICAL"}]


async def test_a_server_that_starts_before_the_migrations_says_so_once_and_gets_ready_after_them(
    start: Start, databases: Stores, backend: Backend
) -> None:
    url = await databases.empty_database(backend)
    program = await start("--workers", "2", database_url=url)
    status, answer = await readiness(program)
    assert (status, answer["checks"]["database"]["status"]) == (503, "not-migrated")
    assert await sign_up(program) == 503
    await asyncio.sleep(1.5)
    await asyncio.to_thread(migrations.upgrade, Settings(_env_file=None, database_url=url))
    await eventually(lambda: is_ready(program, "ok"))
    assert await sign_up(program) == 201
    assert await program.stop() == 0
    (line,) = [line for line in program.logs() if line["level"] in {"ERROR", "CRITICAL"}]
    assert line["event"] == "database_not_migrated"
    assert "authserver db upgrade" in line["reason"]
    assert "authserver db upgrade" in program.errors.read_text()
    # The first request for each worker, the first key of each; not one for every look that nobody asked for.
    assert [line["event"] for line in program.logs()].count("database_unavailable") <= 4


async def test_a_hundred_thousand_revocations_and_an_empty_redis(databases: Stores, tmp_path: Path) -> None:
    with Valkey() as valkey:
        house = await new_house(databases, valkey.url(), tmp_path)
        await fill_denylist(house, MANY)
        async with running(house) as node, Redis.from_url(valkey.url()) as redis:
            began = time.monotonic()
            tokens = [await tokens_of(node)]
            name = "ada"
            assert (await node.register(name)).status_code == 201
            revoked = 0
            while not await is_trusted(node):
                assert time.monotonic() - began < 60
                tokens.append(await tokens_of(node, name))
                assert await node.is_active(tokens[-1]["access_token"])
                asked = time.monotonic()
                assert (await node.revoke(tokens[-1]["access_token"])).status_code == 200
                assert time.monotonic() - asked < REVOKE_SECONDS
                assert not await node.is_active(tokens[-1]["access_token"])
                revoked += 1
            log.info("trusted %.1f s after it was ready; %d revocations meanwhile", time.monotonic() - began, revoked)
            assert revoked > 0
            assert await redis.zcard(copy.KEY) == MANY + revoked + 1
            for dead in tokens[1:]:
                assert not await node.is_active(dead["access_token"])
            assert await node.is_active(tokens[0]["access_token"])
