"""uvicorn as we run it: our logs, our exit status, our way to stop."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from authserver.serving.connection import Connection
from authserver.serving.listening import Listener, Sockets
from authserver.settings import SettingsError

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
DRAIN_SECONDS = 15
"""What is in flight has so long to finish after SIGTERM."""
_GARBAGE_AFTER = 10_000
"""So many new objects are there before any is looked at; 700 is for programs that are short of memory."""
KEEP_ALIVE_SECONDS = 65
"""Longer than the minute after which load balancers usually close, so that we never close what they just reuse."""


class Server(uvicorn.Server):
    """Tells when it takes requests; a signal that it has obeyed is not raised again (that would be exit status 143)."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], None],
        are_fewer_elsewhere: Callable[[int], bool] = lambda _: False,
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._are_fewer_elsewhere = are_fewer_elsewhere
        self._listeners: list[Listener] = []
        self._beginning: set[asyncio.Task[object]] = set()
        self._is_closing = False

    async def startup(self, sockets: Sockets | None = None) -> None:
        """Start the application, then listen."""
        await super().startup([])
        if self.started:
            for port in sockets or []:
                self._listeners.append(Listener(port, self.config.backlog, self._begin, self._has_enough))
            gc.freeze()  # without a look at all of it first: what is imported leaves 0.2 MiB of garbage
            gc.set_threshold(_GARBAGE_AFTER)
            gc.enable()
            self._on_ready()

    async def shutdown(self, sockets: Sockets | None = None) -> None:
        """Listen no more, let those who are connected finish (see Connection), stop the application."""
        self._is_closing = True
        for listener in self._listeners:
            listener.close()
        if self._beginning:
            await asyncio.wait(self._beginning)
        await super().shutdown(sockets)

    def _has_enough(self) -> bool:
        return self._are_fewer_elsewhere(len(self.server_state.connections) + len(self._beginning))

    def _begin(self, connection: socket.socket) -> None:
        work = asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        task = asyncio.create_task(work)
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    def _protocol(self) -> Connection:
        made = Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        made.is_parting = self._is_closing
        return made

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
        http=Connection,
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
    except Exception:  # the last one who could say it, as a line of JSON and not as a traceback
        log.critical("server_failed", exc_info=True)
        return 1
    return 0 if server.started else 1
