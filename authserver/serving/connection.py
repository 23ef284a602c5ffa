"""A connection as we treat it: bounded in time and size, strict about the protocol, and polite when we stop."""

import asyncio
import re
import resource
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from authserver.serving.answer import Answer

REQUEST_SECONDS = 20
"""A request has so long to arrive, head and body; uvicorn would wait for ever."""
MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers; uvicorn would take any number."""
PARTING_SECONDS = 1.0
"""When we stop, a connection at rest stays open so long: a request may be on its way, and is answered."""
MAX_CONNECTIONS = 10_000
"""Of a process; a bound for its memory."""
_OTHER_FILES = 200
"""Kept free for the stores' connections, logs, and connections that are being closed."""
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Connection(HttpToolsProtocol):
    """A connection that is closed when a request takes too long to arrive ("slowloris"), or has no end or no sense."""

    _waiting: ClassVar[dict["Connection", None]] = {}
    """All that have no request being answered, the one that has waited longest first."""
    _deadline: asyncio.TimerHandle | None = None
    _is_in_head = False
    _is_in_body = False
    _has_begun = False
    """A request has begun in the portion that is being taken at this moment."""
    _portion_bytes = 0
    _is_asked = False
    """A request is being answered, or its body awaited."""
    is_parting = False
    """Each answer is the last one."""
    _head_bytes = 0
    """Of a head that has not ended, in whole portions after the one that it began in."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request; where there are too many, the one that has waited longest gives way."""
        super().connection_made(transport)
        if len(self.connections) > room() and self._waiting:
            next(iter(self._waiting)).give_way()
        self._waiting[self] = None
        self._wait()

    def give_way(self) -> None:
        """Close, without having been asked anything; a client tries again."""
        del self._waiting[self]
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived, unless it is a head without end."""
        self._has_begun = False
        self._portion_bytes = len(data)
        super().data_received(data if self._is_in_body else _without_upgrade(data))
        if self._has_begun:
            if self._is_in_head or self._is_in_body:
                self._wait()
        elif self._is_in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        """Have the beginning of a request."""
        super().on_message_begin()
        self._is_in_head, self._has_begun, self._head_bytes = True, True, 0

    def on_headers_complete(self) -> None:
        """Have the head; what RFC 9112 says a server must refuse is answered with 400 as if it could not be parsed."""
        self._is_in_head, self._is_in_body = False, True
        if fault := self._fault():
            raise ValueError(fault)
        self._is_asked = True
        super().on_headers_complete()
        self.cycle.send = Answer(self.cycle).send  # type: ignore[method-assign]
        if self.is_parting:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Have all of a request."""
        self._is_in_body = False
        self._wait_no_more()
        if self._is_asked:  # it may have been answered before it had all arrived
            self._waiting.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Have answered, and rest."""
        super().on_response_complete()
        self._is_asked = not self.cycle.response_complete  # the next one may be there already
        if not self._is_asked and not self.transport.is_closing():
            self._waiting[self] = None
            if self.is_parting:  # the answer was on its way when we were told
                self.loop.call_later(PARTING_SECONDS, self._part)

    def shutdown(self) -> None:
        """Answer what is being asked, or comes within PARTING_SECONDS, with `Connection: close`."""
        self.is_parting = True
        if self._is_asked:
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(PARTING_SECONDS, self._part)

    def connection_lost(self, exc: Exception | None) -> None:
        """Have nothing to wait for."""
        self._waiting.pop(self, None)
        self._wait_no_more()
        super().connection_lost(exc)

    def _part(self) -> None:
        if not self._is_asked:
            self.transport.close()

    def _fault(self) -> str | None:
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            return "not a version that we speak"
        if self._is_head_large():
            return "too large"
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                return "a transfer coding that we do not know (section 6.1)"
        if hosts > 1 or (version == "1.1" and not hosts):
            return "not one Host (section 3.2)"
        return None

    def _is_head_large(self) -> bool:
        if self._has_begun and self._portion_bytes <= MAX_HEAD_BYTES:  # it is in this portion, whole
            return False
        return sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > MAX_HEAD_BYTES

    def _wait(self) -> None:
        self._wait_no_more()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def room() -> int:
    """Return how many connections a process may have, by what it may open."""
    may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MAX_CONNECTIONS, may_open - _OTHER_FILES))


def raise_file_limit() -> None:
    """Let this process and its workers open as many files as it may ask for.

    The usual limit of 1024 is for programs that cannot count further (select).
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _without_upgrade(data: bytes) -> bytes:
    """Hide the offer of another protocol in a head: it may be ignored (RFC 9110 §7.8), but httptools drops the body.

    Java's HTTP client makes that offer with the first request to any http address.
    """
    if not _UPGRADE.search(data):
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nX-Upgrade:", head) + end + rest
