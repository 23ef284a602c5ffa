"""Taking the port before anything else is done, and then the connections: each worker as many as the others.

Whoever keeps eight connections open would otherwise often have one worker with seven of them: it takes all that wait.
"""

import asyncio
import errno
import logging
import mmap
import socket
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)

Sockets = list[socket.socket]
Taken = Callable[[socket.socket], object]
_STEP_BACK_SECONDS = 0.001
"""So long a worker with more connections than another leaves the next ones to it."""
_LEFT_AT_ONCE = 4
"""So many it then takes, if nobody has come for them: the other one may have stopped."""
_AT_ONCE = 16
"""So many are taken before anything else is done."""
_FULL_SECONDS = 0.1
"""Until we look again when no more files may be opened."""


class Seats:
    """How many connections each worker has, in memory that they share: made before they are forked."""

    def __init__(self, workers: int) -> None:
        self._taken = memoryview(mmap.mmap(-1, 4 * workers)).cast("I")

    def are_fewer_elsewhere(self, seat: int, connections: int) -> bool:
        """Note that the worker there has so many, and tell whether another has fewer; by a quarter, if it has many."""
        self._taken[seat] = connections
        return connections - connections // 4 > min(self._taken)


class Listener:
    """Takes connections from a port for one worker, and leaves those to others that these should have."""

    def __init__(self, port: socket.socket, backlog: int, taken: Taken, has_enough: Callable[[], bool]) -> None:
        self._port = port
        self._taken = taken
        self._has_enough = has_enough
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        port.listen(backlog)
        port.setblocking(False)
        self._watch()

    def close(self) -> None:
        """Take the connections that wait, and no more: to close the port would reset those, who may have asked."""
        self._loop.remove_reader(self._port)
        if self._pause:
            self._pause.cancel()
        with suppress(OSError):  # BlockingIOError when the queue is empty, others when no more files may be opened
            while True:
                self._taken(self._port.accept()[0])

    def _watch(self) -> None:
        self._pause = None
        self._loop.add_reader(self._port, self._have_caller)

    def _look_again(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._port)
        self._pause = self._loop.call_later(seconds, then)

    def _have_caller(self) -> None:
        """All workers come here when somebody calls."""
        for _ in range(_AT_ONCE):
            if self._has_enough():
                self._look_again(_STEP_BACK_SECONDS, self._take_what_is_left)
                return
            if not self._take():
                return

    def _take_what_is_left(self) -> None:
        self._watch()
        for _ in range(_LEFT_AT_ONCE):
            if not self._take():
                return

    def _take(self) -> bool:
        """Take one; False if there is none."""
        try:
            self._taken(self._port.accept()[0])
        except (BlockingIOError, ConnectionAbortedError):  # another worker was quicker, or the caller has gone
            return False
        except OSError as full:
            log.warning("cannot_accept", extra={"reason": str(full)})
            self._look_again(_FULL_SECONDS, self._watch)
            return False
        return True


def sockets(host: str, port: int) -> Sockets:
    """Bind a socket to each address that `host` stands for; OSError if none can be had or one is taken.

    Connections are refused until the application is up: only then somebody listens.
    """
    bound: Sockets = []
    missing: OSError | None = None
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in addresses):
        try:
            bound.append(_bind(family, (address[0], port, *address[2:])))
        except OSError as refused:
            if refused.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:  # "localhost" where there is no IPv6
                missing = refused
                continue
            for other in bound:
                other.close()
            raise
        port = bound[0].getsockname()[1]
    if not bound:
        raise missing or OSError(errno.EADDRNOTAVAIL, "no such address")
    return bound


def url(host: str, port: int) -> str:
    """Return where somebody on this machine reaches the server."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - not bound here
    if ":" in reachable and not reachable.startswith("["):
        reachable = f"[{reachable}]"
    return f"http://{reachable}:{port}"


def _bind(family: int, address: tuple[str | int, ...]) -> socket.socket:
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # or it would take the port from its IPv4 brother
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(address)
    except OSError:
        taken.close()
        raise
    return taken
