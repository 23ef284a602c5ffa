"""The limits of the machine, measured in the same run: bare frameworks, argon2 itself, single round trips."""

import asyncio
import itertools
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import argon2
import asyncpg
from redis.asyncio import Redis

from authserver.settings import Settings
from tests.bench import processes
from tests.bench.contest import Contestant, Sample
from tests.bench.load import Load, http
from tests.bench.operations import driven
from tests.bench.servers import Stores, running
from tests.servers import free_port

_FRAMEWORKS = {"asgi": "uvicorn, bare ASGI", "starlette": "Starlette route", "fastapi": "FastAPI endpoint"}
_PIPELINED = 100
_REQUEST = http("POST", "/introspect", form={"token": "x" * 600}, basic=("0123456789abcdef", "s" * 60))


@dataclass(frozen=True)
class Bare:
    """A framework that answers at once."""

    name: str
    title: str
    port: int
    process: int

    async def measure(self, seconds: float) -> Sample:
        """Send it what an introspection looks like."""
        return await driven(self.port, Load([_REQUEST]), seconds, processes.workers(self.process), None)


@dataclass(frozen=True)
class Argon2:
    """Verifying passwords, one thread a core, with the parameters and the build that the server uses."""

    hasher: argon2.PasswordHasher
    name: str = "argon2"
    title: str = "argon2 verify, one thread a core"

    async def measure(self, seconds: float) -> Sample:
        """Verify for so long."""
        return await asyncio.to_thread(self._verify, seconds)

    def _verify(self, seconds: float) -> Sample:
        hashed, cores = self.hasher.hash("password"), len(os.sched_getaffinity(0))
        until = time.monotonic() + seconds
        took: list[float] = []

        def verify() -> None:
            while (began := time.monotonic()) < until:
                self.hasher.verify(hashed, "password")
                took.append(time.monotonic() - began)

        began, used = time.monotonic(), time.process_time()
        with ThreadPoolExecutor(cores) as pool:
            for thread in [pool.submit(verify) for _ in range(cores)]:
                thread.result()
        return _sample(took, time.monotonic() - began, time.process_time() - used)


@dataclass(frozen=True)
class RoundTrip:
    """One question to a store after the other, on one connection; the processor time is the asker's."""

    name: str
    title: str
    ask: Callable[[], Awaitable[object]]
    questions: int = 1
    """In one round trip."""

    async def measure(self, seconds: float) -> Sample:
        """Ask for so long."""
        await self.ask()
        took: list[float] = []
        began, used = time.monotonic(), time.process_time()
        while (now := time.monotonic()) < began + seconds:
            await self.ask()
            took.append(time.monotonic() - now)
        return _sample(took, time.monotonic() - began, time.process_time() - used, self.questions)


def _sample(took: list[float], seconds: float, used: float, each: int = 1) -> Sample:
    milliseconds = [1000 * one for one in took]
    count = len(took) * each
    return Sample(
        per_second=count / seconds,
        p50_ms=statistics.median(milliseconds),
        p99_ms=statistics.quantiles(milliseconds, n=100, method="inclusive")[98],
        server_us=used / count * 1e6,
    )


@asynccontextmanager
async def limits(stores: Stores, settings: Settings, *, workers: int) -> AsyncIterator[list[Contestant]]:
    """Start what is needed to measure them."""
    async with AsyncExitStack() as stack:
        contestants: list[Contestant] = []
        for name, title in _FRAMEWORKS.items():
            port = free_port()
            command = [sys.executable, "-m", "uvicorn", f"tests.bench.bare:{name}", "--port", str(port),
                       "--workers", str(workers), "--no-access-log", "--log-level", "warning"]  # fmt: skip
            process = await stack.enter_async_context(running(command, port, stores.directory))
            contestants.append(Bare(name, title, port, process))
        contestants.append(raw_argon2(settings))
        contestants += await _redis(stack, stores)
        contestants += await _postgres(stack, stores)
        yield contestants


def raw_argon2(settings: Settings) -> Argon2:
    """Return the limit of every sign-in."""
    return Argon2(
        argon2.PasswordHasher(settings.argon2_time_cost, settings.argon2_memory_kib, settings.argon2_parallelism)
    )


async def _redis(stack: AsyncExitStack, stores: Stores) -> list[Contestant]:
    redis = await stack.enter_async_context(Redis.from_url(stores.valkey.url(63)))
    await redis.zadd("limits", {f"j:{number}": number for number in range(1000)})

    async def pipelined() -> object:
        async with redis.pipeline(transaction=False) as pipe:
            for _ in range(_PIPELINED):
                _ = pipe.zmscore("limits", ["j:17", "j:none"])
            return await pipe.execute()

    return [
        RoundTrip("redis", "redis-py, ZMSCORE", lambda: redis.zmscore("limits", ["j:17", "j:none"])),
        RoundTrip("redis-pipelined", f"redis-py, {_PIPELINED} ZMSCORE pipelined", pipelined, _PIPELINED),
    ]


async def _postgres(stack: AsyncExitStack, stores: Stores) -> list[Contestant]:
    connection = await asyncpg.connect(stores.postgres.plain_url())
    stack.push_async_callback(connection.close)
    await connection.execute("CREATE TABLE limits (id int PRIMARY KEY, counted int NOT NULL)")
    await connection.execute("INSERT INTO limits SELECT number, 0 FROM generate_series(1, 1000) AS number")
    select = await connection.prepare("SELECT 1")
    update = await connection.prepare("UPDATE limits SET counted = counted + 1 WHERE id = $1 RETURNING counted")
    rows = itertools.cycle(range(1, 1001))
    return [
        RoundTrip("postgres", "asyncpg, SELECT 1", select.fetchval),
        RoundTrip("postgres-commit", "asyncpg, UPDATE … RETURNING, committed", lambda: update.fetchval(next(rows))),
    ]
