"""Runs commands: in this process, where they cost least."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from authserver.cli.program import app as program
from authserver.observability import logs
from authserver.settings import Settings


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one document on stdout of a command that was done."""
        assert self.status == 0, self.stderr
        return json.loads(self.stdout)

    @property
    def why(self) -> str:
        """The one line that says why a command was refused."""
        assert self.status == 1, (self.stdout, self.stderr)
        assert self.stderr.count("\n") == 1, self.stderr
        return self.stderr.rstrip("\n")


Run = Callable[..., Awaitable[Done]]


def _alone(command: Callable[[], Result]) -> Result:
    """Run a command in this thread; what the server beside it logs meanwhile would go where the command writes."""
    ours, handle = get_ident(), logging.Logger.handle

    def handle_ours(logger: logging.Logger, record: logging.LogRecord) -> None:
        if get_ident() == ours:
            handle(logger, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.Logger, "handle", handle_ours)
        return command()


@pytest.fixture
def run(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command on the tests' database: `done = await run("users", "show", "ada")`; further settings by name."""
    monkeypatch.chdir(tmp_path)  # no .env there
    runner = CliRunner()
    base = {
        "issuer": settings.issuer,
        "database_url": settings.database_url.get_secret_value(),
        "redis_url": settings.redis_url.get_secret_value(),
        "argon2_memory_kib": settings.argon2_memory_kib,
        "argon2_time_cost": settings.argon2_time_cost,
    }

    async def run(*arguments: object, stdin: str | bytes | None = None, **changes: Any) -> Done:
        environment = {f"AUTHSERVER_{name.upper()}": str(value) for name, value in (base | changes).items()}
        words = [str(argument) for argument in arguments]
        command = partial(runner.invoke, program, words, input=stdin, env=environment, catch_exceptions=False)
        # A thread, for a command brings an event loop of its own; a new context, for it is no part of the request that
        # the test has made, and has time of its own.
        result = await asyncio.get_running_loop().run_in_executor(None, Context().run, _alone, command)
        return Done(result.exit_code, result.stdout, result.stderr)

    yield run
    logging.getLogger("authserver.db").setLevel(logging.NOTSET)
    logs.configure(settings)
