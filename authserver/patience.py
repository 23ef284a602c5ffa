"""How long a request may take: all its transactions and waits together, so that it is answered within two seconds."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic

from authserver.errors import StoreUnavailable

REQUEST_SECONDS = 1.8
"""The rest is for what waits for no store. Hashing passwords has a queue with a limit of its own."""


@dataclass
class _Left:
    seconds: float


_left: ContextVar[_Left | None] = ContextVar("left", default=None)


def begin_request() -> None:
    """Give the request that begins here its time. Who is no request may take as long as it likes."""
    _left.set(_Left(REQUEST_SECONDS))


@contextmanager
def share(seconds: float) -> Iterator[float]:
    """How many of these seconds the block may take; what it takes, others of the request no longer have."""
    left = _left.get() or _Left(seconds)
    began = monotonic()
    try:
        yield min(seconds, left.seconds)
    finally:
        left.seconds -= monotonic() - began


async def wait(seconds: float) -> None:
    """Wait; StoreUnavailable at once if the request has not so much time left."""
    with share(seconds) as allowed:
        if allowed < seconds:
            raise StoreUnavailable("redis", "the request has no time left to wait until all nodes know")
        await asyncio.sleep(seconds)
