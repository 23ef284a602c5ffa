"""An answer on its way out: head and body leave as one packet, and the head is looked at as a whole."""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_CONTROLS = bytes(sorted({*range(0x20), 0x7F} - {0x09}))
"""What no header may hold (RFC 9110 §5.5): a line end in one would begin another header, or another answer."""

_FOR_UVICORN = frozenset({b"connection", b"transfer-encoding"})


class Answer:
    """Takes the place of a cycle's `send` for answers that are there as a whole.

    uvicorn looks at each header by itself, and writes head and body one after the other. Everything else goes its way:
    streams, HEAD, a reader that is slow, and whatever is not as it should be.
    """

    __slots__ = ("_cycle", "_send", "_start")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._send = cycle.send
        self._start: Message | None = None

    async def send(self, message: Any) -> None:
        """Keep the head until the first of the body is there (ASGI: `http.response.start`, `http.response.body`)."""
        if message["type"] == "http.response.start" and not self._cycle.response_started:
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            packet = self._packet(start, message)
            if packet is not None:
                self._finish(packet)
                return
            await self._send(start)  # type: ignore[arg-type]
        await self._send(message)

    def _packet(self, start: Message, message: Message) -> bytes | None:
        """Return head and body, or None for what goes uvicorn's way."""
        cycle = self._cycle
        if message.get("more_body") or cycle.disconnected or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
            return None
        body: bytes = message.get("body", b"")
        headers = [*cycle.default_headers, *start.get("headers", ())]
        named = dict(headers)
        if named.get(b"content-length") != b"%d" % len(body) or not named.keys().isdisjoint(_FOR_UVICORN):
            return None
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        if len(lines) - len(lines.translate(None, _CONTROLS)) != 2 * len(headers):
            return None
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        return b"".join((STATUS_LINE[start["status"]], lines, end, body))

    def _finish(self, packet: bytes) -> None:
        """Leave the cycle as uvicorn would, and have the answer sent."""
        cycle = self._cycle
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        if not _outgoing:
            asyncio.get_running_loop().call_soon(_send_all)
        _outgoing.append((cycle.transport, packet, cycle.keep_alive, cycle.on_response))


_outgoing: list[tuple[asyncio.Transport, bytes, bool, Callable[..., None]]] = []
"""The answers of this turn of the event loop, of which a process has one; sent in a row they cost less."""


def _send_all() -> None:
    outgoing = _outgoing[:]
    _outgoing.clear()
    for transport, packet, is_kept, on_response in outgoing:
        if not transport.is_closing():
            transport.write(packet)
            if not is_kept:
                transport.close()
        on_response()
