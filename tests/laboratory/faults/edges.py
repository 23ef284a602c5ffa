"""One edge between a node and a store: every way in which the network can fail it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from tests.laboratory.faults.fault import fault, meanwhile
from tests.laboratory.nodes import Laboratory
from tests.laboratory.proxy import Proxy

Breaks = Callable[[Proxy], Coroutine[Any, Any, None]]
"""Breaks an edge; may go on with it for ever."""


async def _slow(edge: Proxy) -> None:
    edge.delay(0.05)


async def _too_slow(edge: Proxy) -> None:
    edge.delay(0.5)


async def _swallows(edge: Proxy) -> None:
    edge.swallow()


async def _loses_requests(edge: Proxy) -> None:
    edge.swallow(replies=False)


async def _loses_replies(edge: Proxy) -> None:
    edge.swallow(requests=False)


async def _refuses(edge: Proxy) -> None:
    edge.refuse()


async def _resets(edge: Proxy) -> None:
    while True:
        edge.reset()
        await asyncio.sleep(0.1)


async def _cuts(edge: Proxy) -> None:
    """The lengths of what is cut off change, so that every place in an answer has its turn."""
    after_bytes = 1
    while True:
        edge.cut(after_bytes)
        after_bytes = after_bytes * 3 % 3001
        await asyncio.sleep(0.2)


async def _cuts_requests(edge: Proxy) -> None:
    after_bytes = 1
    while True:
        edge.cut(after_bytes, requests=True)
        after_bytes = after_bytes * 3 % 3001
        await asyncio.sleep(0.2)


async def _holds(edge: Proxy) -> None:
    """Late replies, after everybody has given up waiting for them."""
    while True:
        edge.hold()
        await asyncio.sleep(1.2)
        await edge.mend()
        await asyncio.sleep(0.1)


async def _drops(edge: Proxy) -> None:
    """It has happened, and nobody hears so."""
    while True:
        edge.hold()
        await asyncio.sleep(0.3)
        edge.reset()
        await edge.mend()
        await asyncio.sleep(0.1)


WAYS: dict[str, tuple[str, Breaks]] = {
    "slow": ("is 50 ms slower", _slow),
    "too-slow": ("is 500 ms slower", _too_slow),
    "black-hole": ("swallows everything", _swallows),
    "requests-lost": ("swallows requests", _loses_requests),
    "replies-lost": ("swallows replies", _loses_replies),
    "refused": ("refuses connections", _refuses),
    "reset": ("resets its connections ten times a second", _resets),
    "cut": ("is cut in the middle of replies", _cuts),
    "requests-cut": ("is cut in the middle of requests", _cuts_requests),
    "held": ("keeps replies and lets them come late", _holds),
    "dropped": ("keeps replies and loses them", _drops),
}
SNAPS = {
    "postgres": (b"COMMIT", "at each COMMIT"),
    "redis": (b"ZADD", "at each new entry"),
}
STORES = {"postgres": "PostgreSQL", "redis": "Redis"}


async def edge(node: str, store: str, breaks: Breaks, lab: Laboratory) -> AsyncIterator[None]:
    """The edge of one node to one store is broken in one way."""
    edge = lab.edge(node, store)
    async with meanwhile(breaks(edge)):
        yield
    await edge.mend()


async def snap(node: str, store: str, is_delivered: bool, lab: Laboratory) -> AsyncIterator[None]:
    """The connection is reset just before or just after the bytes that matter."""
    edge = lab.edge(node, store)
    edge.snap(SNAPS[store][0], is_delivered=is_delivered)
    yield
    await edge.mend()


for _store, _called in STORES.items():
    for _node in "AB":
        _excused = _node if _store == "postgres" else ""
        _other = _excused and "AB".replace(_node, "")
        for _way, (_does, _breaks) in WAYS.items():
            fault(
                f"{_node}-{_store}-{_way}", f"{_node}–{_called} {_does}", without_database=_excused, locked_out=_other
            )(partial(edge, _node, _store, _breaks))  # fmt: skip
        for _when, _is_delivered in (("before", False), ("after", True)):
            _at = SNAPS[_store][1]
            fault(
                f"{_node}-{_store}-snapped-{_when}", f"{_node}–{_called} is reset {_at}, {_when} it arrives",
                without_database=_excused, locked_out=_other,
            )(partial(snap, _node, _store, _is_delivered))  # fmt: skip
