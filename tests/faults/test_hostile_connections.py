"""Slow, idle and rude clients, for seconds; scripts/hostile does it for minutes and shows the numbers."""

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.application import Program
from tests.faults import hostile
from tests.faults.hostile import Attack
from tests.faults.house import House, eventually, is_trusted, new_house, running
from tests.servers import LOOPBACK, Valkey
from tests.stores import Stores

pytestmark = pytest.mark.slow
POOL_SIZE = 10
FEW = 260
"""Files that a server may open: 60 connections."""


@pytest.fixture
async def house(databases: Stores, tmp_path: Path) -> AsyncIterator[House]:
    with Valkey() as valkey:
        yield await new_house(databases, valkey.url(), tmp_path)


async def test_slow_idle_and_rude_clients_spoil_nothing_for_the_others(house: House) -> None:
    async with running(house) as node:
        await eventually(lambda: is_trusted(node))
        attack = Attack("all at once", dripping=200, idle=400, resets=50)
        seen = await hostile.measure(house, node, attack, seconds=4)
    assert seen.faults(POOL_SIZE) == []
    assert seen.peak_files > 600, "they were there"
    # A shared machine is no measure; scripts/hostile is. This only sees a server that stands still.
    assert seen.ratio > 0.2
    assert seen.attacked.milliseconds < 3 * seen.quiet.milliseconds


async def test_a_server_that_may_open_few_files_keeps_those_who_ask_something(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(house) as node:
        resource.prlimit(node.program.process.pid, resource.RLIMIT_NOFILE, (FEW, FEW))
        async with httpx.AsyncClient(base_url=node.program.url) as asking:
            crowd = []
            for _ in range(150):
                crowd.append(await asyncio.open_connection(LOOPBACK, node.program.port))
                assert (await asking.get("/health/ready")).status_code == 200
            assert psutil.Process(node.program.process.pid).num_fds() < FEW
            for reader, _ in crowd[:50]:  # those who have waited longest have given way
                assert await asyncio.wait_for(reader.read(), 10) == b""
            for _, writer in crowd:
                writer.close()
    assert not [line for line in node.program.logs() if line["level"] in {"ERROR", "CRITICAL"}]


async def test_a_server_may_open_as_many_files_as_it_may_ask_for(house: House) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        program: Program = house.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        await program.ready()
        assert resource.prlimit(program.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        program.kill()
