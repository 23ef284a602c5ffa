"""How long one request may wait for the database, in all its transactions: a caller is answered within two seconds.

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

_REQUEST_SECONDS = 1.8


@dataclass(slots=True)
class _Budget:
    seconds: float


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)


def begin_request() -> None:
    """Give the request that begins here its time."""
    _budget.set(_Budget(_REQUEST_SECONDS))


def left() -> float:
    """Return how many seconds the request still has."""
    budget = _budget.get()
    return budget.seconds if budget is not None else _REQUEST_SECONDS


async def asked_in_time(answer: Awaitable[Answer]) -> Answer:
    """Wait for what is done for many requests at once, no longer than this one may; then StoreUnavailable.

    It goes on without us, so what it does must be as good done twice.
    """
    try:
        async with asyncio.timeout(left()):
            return await answer
    except TimeoutError:
        raise StoreUnavailable("database", "no answer in time") from None


@contextmanager
def share(at_most: float) -> Iterator[float]:
    """How many seconds the block may take; what it takes, the others of the request no longer have."""
    budget = _budget.get()
    if budget is None:
        yield at_most
        return
    began = monotonic()
    try:
        yield min(at_most, budget.seconds)
    finally:
        budget.seconds -= monotonic() - began
