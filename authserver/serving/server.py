"""uvicorn as we run it: our logs, our exit status, our patience."""

import asyncio
import logging
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from authserver.serving.listening import Sockets
from authserver.settings import SettingsError

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
DRAIN_SECONDS = 15
"""What is in flight has so long to finish after SIGTERM."""
KEEP_ALIVE_SECONDS = 65
"""Longer than the minute after which load balancers usually close, so that we never close what they just reuse."""
REQUEST_SECONDS = 20
"""A request has so long to arrive, head and body; uvicorn would wait for ever."""
MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers; uvicorn would take any number."""
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class PatientlyBounded(HttpToolsProtocol):
    """A connection that is closed when a request takes too long to arrive ("slowloris"), or has no end or no sense."""

    _deadline: asyncio.TimerHandle | None = None
    _is_in_head = False
    _is_in_body = False
    _has_begun = False
    """A request has begun in what is being taken at this moment."""
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

    def on_message_complete(self) -> None:
        """Have all of a request."""
        self._is_in_body = False
        self._wait_no_more()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Have nothing to wait for."""
        self._wait_no_more()
        super().connection_lost(exc)

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


class Server(uvicorn.Server):
    """Tells when it takes requests; a signal that it has obeyed is not raised again (that would be exit status 143)."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: Sockets | None = None) -> None:
        """Start the application, then listen."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Have SIGINT and SIGTERM end the server, and nothing more."""
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # see Workers
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def configuration(**more: Any) -> uvicorn.Config:
    """Return how uvicorn runs the application."""
    return uvicorn.Config(
        "authserver.app:create_app",
        factory=True,
        http=PatientlyBounded,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # requests.py writes ours
        server_header=False,
        proxy_headers=False,  # requests.py believes those in TRUSTED_PROXIES; uvicorn would believe all of 127.0.0.1
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        backlog=2048,
        **more,
    )


def run_server(server: Server, sockets: Sockets) -> int:
    """Run it in this process until it is told to stop; return the exit status."""
    try:
        server.run(sockets)
    except SystemExit as left:  # the application did not start; uvicorn has said why
        return 1 if left.code else 0
    except SettingsError as faults:
        log.critical("settings_not_usable", extra={"reason": str(faults)})
        return 1
    except OSError as refused:  # somebody else began to listen after we took the port
        log.critical("cannot_listen", extra={"reason": str(refused)})
        return 1
    except Exception:
        log.critical("server_failed", exc_info=True)
        return 1
    return 0 if server.started else 1
