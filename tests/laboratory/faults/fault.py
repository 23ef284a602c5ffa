"""What a fault is."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.laboratory.nodes import Laboratory

Breaking = Callable[[Laboratory], AsyncIterator[None]]


@dataclass(frozen=True)
class Fault:
    """How to break the laboratory and how to mend it, and what that excuses."""

    name: str
    what: str
    """One line for the table."""
    broken: Callable[[Laboratory], AbstractAsyncContextManager[None]]
    """Broken inside, mended after."""
    without_database: str = ""
    """The nodes, by letter, whose 503s are right as long as it lasts."""
    locked_out: str = ""
    """The nodes that may wait in vain for a row which another one has locked and cannot let go."""
    stopped: str = ""
    """The nodes that cannot answer as long as it lasts."""
    environment: Callable[[Laboratory], dict[str, str]] | None = None
    """What the process of node A needs; the fault gets nodes of its own then."""
    do_clocks_agree: bool = True
    why_not: Callable[[Laboratory], str] = lambda _: ""
    """Why it cannot be had on this machine; empty if it can."""


FAULTS: dict[str, Fault] = {}


def fault(name: str, what: str, **more: Any) -> Callable[[Breaking], Breaking]:
    """Add a fault: `@fault("redis-killed", "Redis is killed")` on a generator that breaks, yields, and mends."""

    def add(broken: Breaking) -> Breaking:
        FAULTS[name] = Fault(name, what, asynccontextmanager(broken), **more)
        return broken

    return add


async def wholly(work: Callable[[], None]) -> None:
    """Run what blocks in a thread, to its end even if cancelled meanwhile."""
    running = asyncio.create_task(asyncio.to_thread(work))
    try:
        await asyncio.shield(running)
    finally:
        await running


@asynccontextmanager
async def meanwhile(job: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do something again and again around the block."""
    task = asyncio.create_task(job)
    try:
        yield
    finally:
        while not task.done():  # redis-py loses a cancellation that comes while it connects
            task.cancel()
            await asyncio.wait([task], timeout=0.2)
        if not task.cancelled():
            task.result()  # it does not end by itself unless something went wrong
