"""How long a request may take: all its transactions and waits together, so that it is answered within two seconds.

What runs for several requests at once, or in the background, has no such limit: each transaction has its own.
"""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from authserver.errors import StoreUnavailable

Answer = TypeVar("Answer")

REQUEST_SECONDS = 1.7
"""The rest is for what waits for no store. Hashing passwords has a queue with a limit of its own."""


@dataclass(slots=True)
class _Left:
    seconds: float


_left: ContextVar[_Left | None] = ContextVar("left", default=None)


def begin_request() -> None:
    """Give the request that begins here its time."""
    _left.set(_Left(REQUEST_SECONDS))


@contextmanager
def share(seconds: float) -> Iterator[float]:
    """How many of these seconds the block may take; what it takes, others of the request no longer have."""
    left = _left.get()
    if left is None:
        yield seconds
        return
    began = monotonic()
    try:
        yield min(seconds, left.seconds)
    finally:
        left.seconds -= monotonic() - began


async def count(answer: Awaitable[Answer]) -> Answer:
    """Wait for what has a limit of its own; the time that it takes is no longer there for the rest of the request."""
    began = monotonic()  # `share`, without its generator: each introspection comes this way
    try:
        return await answer
    finally:
        if left := _left.get():
            left.seconds -= monotonic() - began


async def wait(seconds: float) -> None:
    """Wait; StoreUnavailable at once if the request has not so much time left."""
    with share(seconds) as allowed:
        if allowed < seconds:
            raise StoreUnavailable("redis", "the request has no time left to wait until all nodes know")
        await asyncio.sleep(seconds)


async def ask(answer: Awaitable[Answer]) -> Answer:
    """Wait for what is done for many requests at once, no longer than this one may; then StoreUnavailable.

    If it has begun, it goes on without us, so what it does must be as good done twice.
    """
    left, began = _left.get(), monotonic()  # `share`, without its generator
    try:
        async with asyncio.timeout(REQUEST_SECONDS if left is None else left.seconds):
            return await answer
    except TimeoutError:
        raise StoreUnavailable("database", "no answer in time") from None
    finally:
        if left is not None:
            left.seconds -= monotonic() - began
