"""`serve --reload`: for developers, a process that starts again whenever a file of the package changes."""

import logging
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from uvicorn.supervisors import ChangeReload

import authserver
from authserver.observability import logs
from authserver.serving.listening import Sockets
from authserver.serving.server import Server, configuration, run_server
from authserver.settings import load

log = logging.getLogger(__name__)


def run(sockets: Sockets, on_ready: Callable[[], None]) -> int:
    """Serve and reload until a signal comes; return the exit status."""
    ready, tell_ready = Pipe(duplex=False)

    def announce_once() -> None:
        ready.recv_bytes()
        on_ready()

    threading.Thread(target=announce_once, name="announce", daemon=True).start()
    config = configuration(reload=True, reload_dirs=[str(Path(authserver.__file__).parent)])
    ChangeReload(config, target=_Serve(tell_ready), sockets=sockets).run()
    return 0


class _Serve:
    """What the reloader starts in a fresh process each time."""

    def __init__(self, tell_ready: Connection) -> None:
        self._tell_ready = tell_ready

    def __call__(self, sockets: Sockets | None) -> None:
        logs.configure(load())
        run_server(Server(configuration(), lambda: self._tell_ready.send_bytes(b"ready")), sockets or [])
