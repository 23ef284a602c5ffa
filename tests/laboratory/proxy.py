"""A TCP proxy for one edge between a node and a store, which can be broken and mended while it runs.

`async with Proxy(valkey.port) as edge:` listens on `edge.port`. Requests are what the node sends, replies what the
store does. Each fault takes the place of the one before; `mend` ends it.
"""

import asyncio
import socket
import struct
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

from tests.servers import LOOPBACK

_CHUNK = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of no time: the peer sees ECONNRESET, not the end of a stream
_ARRIVAL_SECONDS = 0.01
"""Bytes that were written have arrived by then; a reset that comes sooner could destroy them."""


@dataclass(eq=False)
class Lane:
    """What becomes of the bytes that go one way."""

    delay_seconds: float = 0.0
    is_holding: bool = False
    is_swallowing: bool = False
    cut_after_bytes: int | None = None
    """Of each connection."""
    snap_at: bytes | None = None
    is_snapped_late: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when another lane has taken its place."""


@dataclass(eq=False)
class Link:
    """One connection through the proxy."""

    node: asyncio.StreamWriter
    store: asyncio.StreamWriter | None = None
    is_torn: bool = False
    """Bytes of it are lost, so it can never be used again."""
    is_mute: bool = False
    """Replies no longer arrive."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        """End it at once, with a RST to both sides."""
        for side in (self.node, self.store):
            if side is not None and not side.transport.is_closing():
                side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                side.transport.abort()
        self.ended.set()


class Proxy:
    """Carries what a node and a store say to each other; see the methods for how it can fail to."""

    def __init__(self, store_port: int) -> None:
        self._store_port = store_port
        # Bound and never listening: keeps the port ours while connections are refused.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reservation.bind((LOOPBACK, 0))
        self.port = int(self._reservation.getsockname()[1])
        self._requests, self._replies = Lane(), Lane()
        self._server: asyncio.Server | None = None
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.snapped = 0
        """Connections that `snap` and `cut` have reset."""

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop_listening()
        self.reset()
        self._reservation.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ── faults ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def mend(self) -> None:
        """Let everything pass. What was held arrives late; a connection that has lost bytes is reset."""
        self._behave()
        await self._listen()

    def delay(self, seconds: float) -> None:
        """Carry every request so much later."""
        self._behave(requests=Lane(delay_seconds=seconds))

    def swallow(self, *, requests: bool = True, replies: bool = True) -> None:
        """Be a black hole: accept connections and bytes, deliver nothing, not even that one side has hung up."""
        self._behave(Lane(is_swallowing=requests), Lane(is_swallowing=replies))

    def hold(self) -> None:
        """Deliver requests and keep the replies: it happens, and the node does not hear so. `reset` drops them."""
        self._behave(replies=Lane(is_holding=True))

    def cut(self, after_bytes: int, *, requests: bool = False) -> None:
        """Reset each connection when so many more bytes of replies (or of requests) have passed."""
        lane = Lane(cut_after_bytes=after_bytes)
        self._behave(requests=lane) if requests else self._behave(replies=lane)

    def snap(self, at: bytes, *, is_delivered: bool) -> None:
        """Reset each connection on which a request contains these bytes: instead of it, or when it has arrived."""
        self._behave(requests=Lane(snap_at=at, is_snapped_late=is_delivered))

    def reset(self) -> None:
        """Reset all connections; new ones fare as before."""
        for link in list(self._links):
            link.reset()

    def refuse(self) -> None:
        """Reset all connections and refuse new ones."""
        self._stop_listening()
        self._behave()
        self.reset()

    def switch(self, store_port: int) -> None:
        """Lead to another store from now on, as an address that has moved does."""
        self._store_port = store_port
        self.reset()

    # ── carrying ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _behave(self, requests: Lane | None = None, replies: Lane | None = None) -> None:
        before = (self._requests, self._replies)
        self._requests, self._replies = requests or Lane(), replies or Lane()
        if not (self._requests.is_swallowing or self._replies.is_swallowing):
            for link in list(self._links):
                if link.is_torn:
                    link.reset()
        for lane in before:
            lane.over.set()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port, reuse_port=True, backlog=512)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(writer)
        self._links.add(link)
        _ = self._run(self._carry(reader, link))

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _carry(self, from_node: asyncio.StreamReader, link: Link) -> None:
        try:
            from_store, link.store = await asyncio.open_connection(LOOPBACK, self._store_port)
            ways = [
                self._run(self._deliver(from_node, link.store, link, is_reply=False)),
                self._run(self._deliver(from_store, link.node, link, is_reply=True)),
            ]
            await link.ended.wait()
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
        except OSError:  # the store is not there; the node finds out as it would without us
            link.reset()
        finally:
            self._links.discard(link)
            for side in (link.node, link.store):
                if side is not None:
                    side.close()

    async def _deliver(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, link: Link, *, is_reply: bool
    ) -> None:
        lane, passed = Lane(), 0
        try:
            while data := await source.read(_CHUNK):
                if lane is not (now := self._replies if is_reply else self._requests):
                    lane, passed = now, 0
                await asyncio.sleep(lane.delay_seconds)
                if lane.is_holding:
                    await lane.over.wait()
                if lane.is_swallowing or (is_reply and link.is_mute):
                    link.is_torn = True
                    continue
                snaps, delivered = _snaps(lane, data, passed)
                link.is_mute = link.is_mute or snaps
                sink.write(delivered)
                await sink.drain()
                passed += len(delivered)
                if snaps:
                    self.snapped += 1
                    await asyncio.sleep(_ARRIVAL_SECONDS)
                    return link.reset()
        except OSError:
            return link.reset()
        lane = self._replies if is_reply else self._requests
        if lane.is_swallowing:  # nobody learns of this end
            link.is_torn = True
            return None
        return link.ended.set()


def _snaps(lane: Lane, data: bytes, passed: int) -> tuple[bool, bytes]:
    """Tell whether the connection ends with these bytes, and which of them arrive."""
    if lane.snap_at is not None and lane.snap_at in data:
        return True, data if lane.is_snapped_late else b""
    if lane.cut_after_bytes is not None and passed + len(data) >= lane.cut_after_bytes:
        return True, data[: lane.cut_after_bytes - passed]
    return False, data
