"""What is measured: authserver as its users start it, on a PostgreSQL whose commits are durable, and a Valkey."""

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from authserver.settings import Settings
from tests.application import ROOT, START_SECONDS, Program, environment
from tests.bench import processes
from tests.servers import LOOPBACK, Postgres, Valkey, _user

SECRET_KEY = "a secret key of the benchmark, long enough for production"


class DurablePostgres(Postgres):
    """PostgreSQL as it comes: what is committed is on the disk."""

    def _launch(self, log: int) -> subprocess.Popen[bytes]:
        if not self._data.exists():
            self._initialise()
            with (self._data / "postgresql.conf").open("a") as file:
                file.writelines(f"{name} = '{value}'\n" for name, value in self._options().items())
        return subprocess.Popen(
            [self._programs / "postgres", "-D", self._data],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, user=_user(), start_new_session=True,
        )  # fmt: skip

    def _options(self) -> dict[str, object]:
        return {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 300,
            "fsync": "on",
            "synchronous_commit": "on",
            "track_activity_query_size": 16_384,  # for plans.py
        }

    def plain_url(self, database: str = "postgres") -> str:
        """Return the URL as asyncpg itself reads it."""
        return self.url(database).replace("+asyncpg", "")

    async def new_database(self, name: str) -> str:
        """Make an empty database; return its URL for SQLAlchemy."""
        connection = await asyncpg.connect(self.plain_url())
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return self.url(name)


@dataclass(frozen=True)
class Stores:
    """A PostgreSQL and a Valkey, and a directory for the servers' logs."""

    postgres: DurablePostgres
    valkey: Valkey
    directory: Path

    def processes(self) -> list[int]:
        """Return their processes, PostgreSQL's backends included."""
        return [pid for server in (self.postgres, self.valkey) if server._process
                for pid in processes.family(server._process.pid)]  # fmt: skip


@dataclass(frozen=True)
class Node:
    """A running authserver: its program, and the settings that it runs with."""

    program: Program
    settings: Settings

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.program.port

    def workers(self) -> list[int]:
        """Return the processes that answer."""
        return processes.workers(self.program.process.pid)


@asynccontextmanager
async def both_stores() -> AsyncIterator[Stores]:
    """Run a PostgreSQL and a Valkey until the end of the block."""
    with (
        tempfile.TemporaryDirectory(prefix="authserver-bench-") as directory,
        DurablePostgres() as postgres,
        Valkey() as valkey,
    ):
        yield Stores(postgres, valkey, Path(directory))


async def production(stores: Stores, database: str, **changes: Any) -> dict[str, Any]:
    """Make and migrate a database; return the settings for servers on it."""
    settings = {
        "environment": "production",
        "secret_key": SECRET_KEY,
        "database_url": await stores.postgres.new_database(database),
        "redis_url": stores.valkey.url(),
        "throttle_enabled": False,  # all requests come from one address
    } | changes
    own = {f"AUTHSERVER_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "authserver", "db", "upgrade"]
    await asyncio.to_thread(
        subprocess.run, command, env=environment(own), cwd=stores.directory, check=True, capture_output=True
    )
    return settings


@asynccontextmanager
async def serving(stores: Stores, settings: Mapping[str, Any], *, workers: int) -> AsyncIterator[Node]:
    """Run `authserver serve --workers N`, its log going to a file, until the end of the block."""
    program = Program(stores.directory, settings, "--workers", str(workers))
    try:
        await program.ready()
        yield Node(program, Settings(_env_file=None, **{"issuer": program.url, **settings}))
        await program.stop()
    finally:
        program.kill()


def settings_of(node: Node) -> dict[str, Any]:
    """Return the settings for one more node beside this one: the same issuer, the same stores."""
    settings = node.settings
    return {
        "environment": settings.environment,
        "issuer": settings.issuer,
        "secret_key": settings.secret_key.get_secret_value(),
        "database_url": settings.database_url.get_secret_value(),
        "redis_url": settings.redis_url.get_secret_value(),
        "throttle_enabled": settings.throttle_enabled,
    }


@asynccontextmanager
async def running(command: list[str], port: int, directory: Path) -> AsyncIterator[int]:
    """Run another server, which listens on that port, until the end of the block; its output goes to a file."""
    path = directory / f"{port}.log"
    process = _started(command, path)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_listening(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} did not start:\n{path.read_text(errors='replace')}")
            await asyncio.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _started(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def is_listening(port: int) -> bool:
    """Tell whether anybody takes connections there."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
