"""Redis, which makes things fast and is never needed: bounded in time, behind a breaker, one exception for all."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from authserver.breaker import Breaker
from authserver.errors import StoreUnavailable
from authserver.settings import Settings

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
FAILURES = (RedisError, OSError, TimeoutError)


class Redis:
    """A Redis that may be absent (`is_configured`), down or slow: `ask` answers in time or raises StoreUnavailable."""

    def __init__(self, settings: Settings) -> None:
        url = settings.redis_url.get_secret_value()
        self._timeout = settings.redis_timeout_seconds
        self.breaker = Breaker("redis", settings.breaker_max_failures, settings.breaker_probe_seconds)
        # Never a retry: an answer that comes late is worth less than the database's.
        self._client: Client | None = (
            Client.from_url(
                url,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
            )
            if url
            else None
        )

    @property
    def is_configured(self) -> bool:
        """Tell whether there is a REDIS_URL."""
        return self._client is not None

    async def ask(self, command: Callable[[Client], Awaitable[Answer]]) -> Answer:
        """Run one command; StoreUnavailable when there is no Redis, no answer in time, or an error for an answer."""
        if self._client is None:
            raise StoreUnavailable("redis", "not configured")
        with self.breaker.admit((StoreUnavailable,)):
            try:
                async with asyncio.timeout(self._timeout * 2):
                    return await command(self._client)
            except FAILURES as failure:
                log.debug("redis_unavailable", extra={"reason": repr(failure)})
                raise StoreUnavailable("redis", f"{type(failure).__name__}: {failure}"[:200]) from failure

    async def ping(self) -> None:
        """Ask for a sign of life, past the breaker; one of `FAILURES` if there is none."""
        if self._client is not None:
            async with asyncio.timeout(self._timeout * 2):
                await self._client.ping()

    async def watch(self) -> None:
        """Look for Redis while its breaker is open. Runs for ever."""
        await self.breaker.watch(self.ping, FAILURES)

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()
