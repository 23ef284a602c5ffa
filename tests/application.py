"""Runs the application inside the test process, and the whole program as a process of its own."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from authserver.app import create_app
from authserver.settings import Settings
from tests.servers import LOOPBACK, free_port

ROOT = Path(__file__).parent.parent
ISSUER = "https://auth.example.com"
START_SECONDS = 30.0
STOP_SECONDS = 15.0


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[FastAPI]:
    """Run an application's start-up and shutdown around the block, in one task, as a server does."""
    app = create_app(settings)
    started, done = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.router.lifespan_context(app):
            started.set()
            await done.wait()

    life = asyncio.create_task(live())
    await asyncio.wait([life, waiting := asyncio.create_task(started.wait())], return_when=asyncio.FIRST_COMPLETED)
    if not started.is_set():
        waiting.cancel()
        await life  # raises what went wrong
    try:
        yield app
    finally:
        done.set()
        await life


class _Server(httpx.ASGITransport):
    """Has a task and a context for each request, as a server has: the time that one may take is its own."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        return await asyncio.create_task(super().handle_async_request(request), context=Context())


def client_of(app: FastAPI, address: str = "192.0.2.1") -> httpx.AsyncClient:
    """Make an HTTP client that speaks to an application in this process, as if from the given address."""
    transport = _Server(app, raise_app_exceptions=False, client=(address, 12345))
    return httpx.AsyncClient(transport=transport, base_url=ISSUER)


class Program:
    """`authserver serve` as a process of its own; `url` is where it listens.

    `launcher` are the arguments of Python before `serve`, for a variant of the program; `more` is added to its
    environment.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, Any],
        *arguments: str,
        launcher: Sequence[str] = ("-m", "authserver"),
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.output = directory / f"server-{self.port}.out"
        self.errors = directory / f"server-{self.port}.err"
        own = {f"AUTHSERVER_{name.upper()}": str(value) for name, value in {"issuer": self.url, **settings}.items()}
        with self.output.open("wb") as output, self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *launcher, "serve", "--port", str(self.port), *arguments],
                env=environment(own) | dict(more or {}), cwd=directory,
                stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
            )  # fmt: skip

    async def ready(self) -> None:
        """Wait until it takes requests; RuntimeError with what it printed if it does not."""
        deadline = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient(base_url=self.url) as client:
            while self.process.poll() is None and time.monotonic() < deadline:
                try:
                    if (await client.get("/health/ready")).status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        self.kill()
        raise RuntimeError(f"the server did not start:\n{self.output.read_text()}\n{self.errors.read_text()}")

    def logs(self) -> list[dict[str, Any]]:
        """Return what it has printed on stdout; each line must be one JSON object."""
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    async def stop(self) -> int:
        """Ask it to stop (SIGTERM) and return its exit status."""
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, STOP_SECONDS)

    def kill(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process' environment with these AUTHSERVER_ settings and no others, for programs of this tree."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTHSERVER_")}
    return inherited | {"PYTHONPATH": str(ROOT)} | dict(settings)
