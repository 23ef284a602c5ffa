"""Redis, which makes things fast and is never needed: bounded in time, behind a breaker, one exception for all."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis as Client
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import RedisError
from redis.typing import EncodableT

from authserver import patience, redis_url
from authserver.breaker import Breaker
from authserver.errors import StoreUnavailable
from authserver.redis_master import Master
from authserver.settings import Settings

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Command = tuple[EncodableT, ...]
# uvloop raises a bare RuntimeError when redis-py writes to a connection that has just been reset ("handler is closed").
FAILURES = (RedisError, OSError, TimeoutError, RuntimeError)
_INTRODUCTION: tuple[Command, ...] = (("INFO", "server"), ("INFO", "replication"))

_WITH_WAIT = 4
"""So many times REDIS_TIMEOUT_SECONDS a question may take if it first had to wait for others."""


class Redis:
    """A Redis that may be absent (`is_configured`), down or slow: `ask` answers in time or raises StoreUnavailable."""

    def __init__(self, settings: Settings) -> None:
        url = settings.redis_url.get_secret_value()
        self.timeout = settings.redis_timeout_seconds
        self.breaker = Breaker("redis", settings.breaker_max_failures, settings.breaker_probe_seconds)
        self._pool = Master(redis_url.parse(url), self.timeout).pool() if url else None
        self._client = Client.from_pool(self._pool) if self._pool else None

    @property
    def is_configured(self) -> bool:
        """Tell whether there is a REDIS_URL."""
        return self._client is not None

    def line(self, key: str) -> "Line":
        """Open a line to the one Redis process that has this key, for those who must know which process answers."""
        assert self._pool
        return Line(self, self._pool, key)

    async def ask(self, command: Callable[[Client], Awaitable[Answer]]) -> Answer:
        """Run one command; StoreUnavailable when there is no Redis, no answer in time, or an error for an answer."""
        if self._client is None:
            raise StoreUnavailable("redis", "not configured")
        client = self._client
        return await patience.count(self.guard(lambda: command(client)))

    async def guard(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Do something with Redis in time and through the breaker, or raise StoreUnavailable."""
        seconds = self.timeout * 2
        with self.breaker.admit((StoreUnavailable,), seconds):
            try:
                async with asyncio.timeout(seconds):
                    return await work()
            except FAILURES as failure:
                log.debug("redis_unavailable", extra={"reason": repr(failure)})
                said = (
                    "no answer in time" if isinstance(failure, TimeoutError) else f"{type(failure).__name__}: {failure}"
                )
                raise StoreUnavailable("redis", said[:200]) from failure

    async def ping(self) -> None:
        """Ask for a sign of life, past the breaker; one of `FAILURES` if there is none."""
        if self._client is not None:
            async with asyncio.timeout(self.timeout * 2):
                # The master may be another one by now: only a new connection gets there.
                await self._client.connection_pool.disconnect(inuse_connections=False)
                await self._client.ping()

    async def watch(self) -> None:
        """Look for Redis while its breaker is open. Runs for ever."""
        await self.breaker.watch(self.ping, FAILURES)

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()


class Line:
    """One connection at a time, used by one at a time, to a Redis process that is known by name.

    A process is named by its `run_id` and, as what it holds may come from elsewhere, its `master_replid`: a restart, a
    failover and a demotion all give another name. The name is asked for whenever a connection is made.
    """

    def __init__(self, redis: Redis, pool: ConnectionPool, key: str) -> None:
        self._redis = redis
        self._key = key
        self._run = ""
        self._lock = asyncio.Lock()
        self._connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        # redis-py would measure each step by itself, the sending in a task of its own: as dear as all the rest.
        self._connection.socket_timeout = None

    async def ask(self, *commands: Command) -> tuple[list[Any], str]:
        """Run a command, or several as a transaction (MULTI), in one round trip; return the answers and who gave them.

        The answers are as RESP2 has them; the name is empty when the process is not a master. StoreUnavailable for
        every fault; the connection is then closed, since a late answer would be taken for the next one's
        (CVE-2023-28858).
        """
        return await self._ask_in_turn(commands, None)

    async def ask_only(self, run: str, *commands: Command) -> list[Any] | None:
        """Do as `ask` does, but send nothing to a process of another name, and return None."""
        answers, _ = await self._ask_in_turn(commands, run)
        return answers or None

    async def _ask_in_turn(self, commands: Sequence[Command], only: str | None) -> tuple[list[Any], str]:
        try:
            async with asyncio.timeout(self._redis.timeout * _WITH_WAIT), self._lock:
                return await self._redis.guard(lambda: self._ask(commands, only))
        except TimeoutError:  # our own crowd, behind one that was not answered
            raise StoreUnavailable("redis", "too many wait for the connection") from None

    async def run(self) -> str:
        """Ask the process for its name again, and whether it still has the key; either may have changed meanwhile."""
        async with self._lock:
            return await self._redis.guard(self._ask_name)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.disconnect()

    async def _ask(self, commands: Sequence[Command], only: str | None = None) -> tuple[list[Any], str]:
        try:
            if not self._connection.is_connected:
                await self._connection.connect()  # type: ignore[no-untyped-call]
                self._run = _name(await self._transact(*_INTRODUCTION))
            if only is not None and only != self._run:
                return [], self._run
            return await self._transact(*commands), self._run
        except BaseException:
            await self._hang_up()
            raise

    async def _ask_name(self) -> str:
        answers, _ = await self._ask((*_INTRODUCTION, ("EXISTS", self._key)))
        self._run = run = _name(answers[:2])
        if not run:
            await self._hang_up()  # the next connection may find the master elsewhere
        return run

    async def _transact(self, *commands: Command) -> list[Any]:
        connection = self._connection
        async with asyncio.timeout(self._redis.timeout):
            if len(commands) == 1:
                await connection.send_packed_command(connection.pack_command(*commands[0]))
                return [await connection.read_response()]
            await connection.send_packed_command(connection.pack_commands((("MULTI",), *commands, ("EXEC",))))
            for _ in range(len(commands) + 1):
                await connection.read_response()
            answers: list[Any] = await connection.read_response()
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        return answers

    async def _hang_up(self) -> None:
        self._run = ""
        await self._connection.disconnect(nowait=True)


def _name(answers: Sequence[str]) -> str:
    info = dict(line.split(":", 1) for answer in answers for line in answer.splitlines() if ":" in line)
    parts = info.get("run_id"), info.get("master_replid")
    return ".".join(map(str, parts)) if all(parts) and info.get("role") == "master" else ""


def replication(run: str) -> str:
    """Return that part of a process's name which changes when it becomes a replica, or a master: `master_replid`."""
    return run.rpartition(".")[2]
