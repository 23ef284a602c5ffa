"""A connection as we treat it: bounded in time and size, strict about the protocol, and polite when we stop."""

import asyncio
import re

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_SECONDS = 20
"""A request has so long to arrive, head and body; uvicorn would wait for ever."""
MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers; uvicorn would take any number."""
PARTING_SECONDS = 1.0
"""When we stop, a connection at rest stays open so long: a request may be on its way, and is answered."""
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Connection(HttpToolsProtocol):
    """A connection that is closed when a request takes too long to arrive ("slowloris"), or has no end or no sense."""

    _deadline: asyncio.TimerHandle | None = None
    _is_in_head = False
    _is_in_body = False
    _has_begun = False
    """A request has begun in what is being taken at this moment."""
    _is_parting = False
    _head_bytes = 0
    """Of a head that has not ended, in whole portions after the one that it began in."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived, unless it is a head without end."""
        self._has_begun = False
        super().data_received(data if self._is_in_body else _without_upgrade(data))
        if self._is_in_head and not self._has_begun and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a request."""
        super().on_message_begin()
        self._is_in_head, self._has_begun, self._head_bytes = True, True, 0
        self._wait()

    def on_headers_complete(self) -> None:
        """Have the head; what RFC 9112 says a server must refuse is answered with 400 as if it could not be parsed."""
        self._is_in_head, self._is_in_body = False, True
        if fault := self._fault():
            raise ValueError(fault)
        super().on_headers_complete()
        if self._is_parting:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Have all of a request."""
        self._is_in_body = False
        self._wait_no_more()
        super().on_message_complete()

    def shutdown(self) -> None:
        """Answer what is being asked, or comes within PARTING_SECONDS, with `Connection: close`."""
        self._is_parting = True
        if self._is_at_rest():
            self.loop.call_later(PARTING_SECONDS, self._part)
        else:
            self.cycle.keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Have nothing to wait for."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _is_at_rest(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _part(self) -> None:
        if self._is_at_rest():
            self.transport.close()

    def _fault(self) -> str | None:
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            return "not a version that we speak"
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > MAX_HEAD_BYTES:
            return "too large"
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (version == "1.1" and not hosts):
            return "not one Host (section 3.2)"
        if any(name == b"transfer-encoding" and value.lower() != b"chunked" for name, value in self.headers):
            return "a transfer coding that we do not know (section 6.1)"
        return None

    def _wait(self) -> None:
        self._wait_no_more()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _without_upgrade(data: bytes) -> bytes:
    """Hide the offer of another protocol in a head: it may be ignored (RFC 9110 §7.8), but httptools drops the body.

    Java's HTTP client makes that offer with the first request to any http address.
    """
    if not _UPGRADE.search(data):
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nX-Upgrade:", head) + end + rest
