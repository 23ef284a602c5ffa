"""Redis, which makes things fast and is never needed: bounded in time, behind a breaker, one exception for all."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis as Client
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.utils import str_if_bytes

from authserver.breaker import Breaker
from authserver.errors import StoreUnavailable
from authserver.settings import Settings

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
# uvloop raises a bare RuntimeError when redis-py writes to a connection that has just been reset ("handler is closed").
FAILURES = (RedisError, OSError, TimeoutError, RuntimeError)

_WITH_WAIT = 4
"""So many times REDIS_TIMEOUT_SECONDS a question may take if it first had to wait for others."""


class Redis:
    """A Redis that may be absent (`is_configured`), down or slow: `ask` answers in time or raises StoreUnavailable."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.redis_url.get_secret_value()
        self.timeout = settings.redis_timeout_seconds
        self.breaker = Breaker("redis", settings.breaker_max_failures, settings.breaker_probe_seconds)
        self._client = self.client() if self._url else None

    def client(self, **options: Any) -> Client:
        """Make a client; it connects when it is used."""
        return Client.from_url(
            self._url,
            socket_timeout=self.timeout,
            socket_connect_timeout=self.timeout,
            retry=Retry(NoBackoff(), 0),  # an answer that comes late is worth less than the database's
            decode_responses=True,
            **options,
        )

    @property
    def is_configured(self) -> bool:
        """Tell whether there is a REDIS_URL."""
        return self._client is not None

    def line(self) -> "Line":
        """Open a line to one Redis process, for those who must know which process answers."""
        return Line(self)

    async def ask(self, command: Callable[[Client], Awaitable[Answer]]) -> Answer:
        """Run one command; StoreUnavailable when there is no Redis, no answer in time, or an error for an answer."""
        if self._client is None:
            raise StoreUnavailable("redis", "not configured")
        client = self._client
        return await self.guard(lambda: command(client))

    async def guard(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Do something with Redis in time and through the breaker, or raise StoreUnavailable."""
        with self.breaker.admit((StoreUnavailable,)):
            try:
                async with asyncio.timeout(self.timeout * 2):
                    return await work()
            except FAILURES as failure:
                log.debug("redis_unavailable", extra={"reason": repr(failure)})
                raise StoreUnavailable("redis", f"{type(failure).__name__}: {failure}"[:200]) from failure

    async def ping(self) -> None:
        """Ask for a sign of life, past the breaker; one of `FAILURES` if there is none."""
        if self._client is not None:
            async with asyncio.timeout(self.timeout * 2):
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

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._run = ""
        self._lock = asyncio.Lock()
        self._client = redis.client(single_connection_client=True, redis_connect_func=self._introduce)

    async def ask(self, command: Callable[[Pipeline], object]) -> tuple[list[Any], str]:
        """Run a transaction (MULTI) in one round trip; return its answers and which process gave them.

        The name is empty when the process is not a master. StoreUnavailable for every fault; the connection is then
        closed, since a late answer would be taken for the next one's (CVE-2023-28858).
        """
        try:
            async with asyncio.timeout(self._redis.timeout * _WITH_WAIT), self._lock:
                return await self._redis.guard(lambda: self._ask(command))
        except TimeoutError:  # our own crowd, behind one that was not answered
            raise StoreUnavailable("redis", "too many wait for the connection") from None

    async def run(self) -> str:
        """Ask the process for its name again: it may have been demoted meanwhile."""
        answers, _ = await self.ask(lambda pipe: (pipe.info("server"), pipe.info("replication")))
        self._run = _name(answers[0] | answers[1])
        return self._run

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def _ask(self, command: Callable[[Pipeline], object]) -> tuple[list[Any], str]:
        try:
            async with self._client.pipeline(transaction=True) as pipe:
                command(pipe)
                return await pipe.execute(), self._run
        except BaseException:
            await self._hang_up()
            raise

    async def _hang_up(self) -> None:
        self._run = ""
        if self._client.connection is not None:
            await self._client.connection.disconnect(nowait=True)

    async def _introduce(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        info: dict[str, str] = {}
        for section in ("server", "replication"):
            await connection.send_command("INFO", section)
            text = str_if_bytes(await connection.read_response())
            info |= dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        self._run = _name(info)


def _name(info: dict[str, Any]) -> str:
    return f"{info['run_id']}.{info['master_replid']}" if info["role"] == "master" else ""
