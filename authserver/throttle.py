"""How often one may guess: counters a minute for addresses and clients, in Redis where there is one, else in memory.

These hold back noise, cheaply; that no account can be guessed is the work of users/attempts.py, which is durable.
"""

import ipaddress
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter
from redis.asyncio import Redis as Client
from typing_extensions import override

from authserver import opaque, patience
from authserver.errors import StoreUnavailable, TooManyAttempts
from authserver.gathering import Gathering
from authserver.redis import Redis
from authserver.redis_master import TAG
from authserver.settings import Settings

PASSWORDS_BY_ADDRESS = "passwords-by-address"
PASSWORDS_BY_CLIENT = "passwords-by-client"
CLIENT_SECRETS = "client-secrets"
REGISTRATIONS = "registrations"
PUSHED_REQUESTS = "pushed-requests"

_PREFIX = f"{TAG}:throttle"
_MAX_COUNTERS = 50_000
_AT_ONCE = 100
"""Of so many requests the counters are read in one round trip."""
Answer = TypeVar("Answer")


class Throttle:
    """Counts events of a kind under a key, and tells when there were too many in a minute."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._enabled = settings.throttle_enabled
        self._redis = redis
        self._limits = {
            PASSWORDS_BY_ADDRESS: RateLimitItemPerMinute(settings.throttle_address_failures_per_minute),
            PASSWORDS_BY_CLIENT: RateLimitItemPerMinute(settings.throttle_client_failures_per_minute),
            CLIENT_SECRETS: RateLimitItemPerMinute(settings.throttle_client_secret_failures_per_minute),
            PUSHED_REQUESTS: RateLimitItemPerMinute(settings.throttle_pushed_requests_per_minute),
            REGISTRATIONS: RateLimitItemPerMinute(settings.throttle_registrations_per_minute),
        }
        self._in_memory = FixedWindowRateLimiter(_Memory())
        self._in_redis: FixedWindowRateLimiter | None = None
        self._reading: Gathering[Sequence[str], Sequence[int]] = Gathering(self._read_together, _AT_ONCE)

    async def check(self, kind: str, key: str) -> None:
        """Raise TooManyAttempts when the minute's number is used up; counts nothing."""
        await self.check_all({kind: key})

    async def check_all(self, keys: Mapping[str, str]) -> None:
        """Do so for several kinds, each with its key, at once."""
        if not self._enabled:
            return
        names = [self._limits[kind].key_for(kind, _name(key)) for kind, key in keys.items()]
        for kind, name, counted in zip(keys, names, await self._read(names), strict=True):
            if counted >= self._limits[kind].amount:
                ends_at = await self._ask(partial(_end_of_minute, name))
                raise TooManyAttempts(kind, retry_after=math.ceil(ends_at - time.time()))

    async def count(self, kind: str, key: str) -> None:
        """Count one event."""
        if not self._enabled:
            return
        limit, name = self._limits[kind], _name(key)
        await self._ask(lambda limiter: limiter.hit(limit, kind, name))

    async def _read(self, names: Sequence[str]) -> Sequence[int]:
        """Return what was counted so far; Redis is asked once for all requests that come at this moment."""
        if self._redis.is_configured:
            with suppress(StoreUnavailable):
                return await patience.count(self._reading.ask(names))
        return [await self._in_memory.storage.get(name) for name in names]

    async def _read_together(self, wanted: Sequence[Sequence[str]]) -> Sequence[Sequence[int]]:
        every = [f"{_PREFIX}:{name}" for names in wanted for name in names]
        counted = iter(await self._redis.ask(lambda client: client.mget(every)))
        return [[int(next(counted) or 0) for _ in names] for names in wanted]

    async def _ask(self, question: Callable[[FixedWindowRateLimiter], Awaitable[Answer]]) -> Answer:
        """Put the question to Redis; to this process' own counters without one. Its faults are nobody's problem."""
        if self._redis.is_configured:
            with suppress(StoreUnavailable):
                return await self._redis.ask(lambda client: question(self._over(client)))
        return await question(self._in_memory)

    def _over(self, client: Client) -> FixedWindowRateLimiter:
        if self._in_redis is None:
            options: dict[str, Any] = {"connection_pool": client.connection_pool}
            storage = RedisStorage("async+redis://", implementation="redispy", key_prefix=_PREFIX, **options)
            self._in_redis = FixedWindowRateLimiter(storage)
        return self._in_redis


class _Memory(Storage):
    """Counters of this process, a bounded number (the library's own looks through all of them at each hit)."""

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__()
        self._counters: dict[str, tuple[int, float]] = {}
        """What was counted, and when that is forgotten."""

    @property
    @override
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return ()

    @override
    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        counted, ends_at = self._counter(key)
        if not counted:
            self._make_room()
            ends_at = time.time() + expiry
        self._counters[key] = (counted + amount, ends_at)
        return counted + amount

    @override
    async def get(self, key: str) -> int:
        return self._counter(key)[0]

    @override
    async def get_expiry(self, key: str) -> float:
        return self._counter(key)[1]

    @override
    async def check(self) -> bool:
        return True

    @override
    async def reset(self) -> int:
        self._counters.clear()
        return 0

    @override
    async def clear(self, key: str) -> None:
        self._counters.pop(key, None)

    def _counter(self, key: str) -> tuple[int, float]:
        now = time.time()
        counter = self._counters.get(key, (0, now))
        return counter if counter[1] > now else (0, now)

    def _make_room(self) -> None:
        """Forget what is over when there are too many, and the older half if that is not enough."""
        if len(self._counters) < _MAX_COUNTERS:
            return
        now = time.time()
        current = {key: counter for key, counter in self._counters.items() if counter[1] > now}
        by_age = list(current.items())
        self._counters = dict(by_age[len(by_age) // 2 :]) if len(by_age) > _MAX_COUNTERS // 2 else current


async def _end_of_minute(name: str, limiter: FixedWindowRateLimiter) -> float:
    return await limiter.storage.get_expiry(name)


def address_key(ip: str | None) -> str:
    """Return under which name an address is counted: itself for IPv4, its /64 for IPv6 (one customer has so many)."""
    try:
        address = ipaddress.ip_address(ip or "")
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _name(key: str) -> str:
    """Return a name of bounded length: keys hold what strangers send, and addresses, which nobody needs to read."""
    return opaque.digest(key.encode("utf-8", "surrogatepass"))[:32]
