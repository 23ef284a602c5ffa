"""`authserver serve`: listens, runs uvicorn in one process or several, and ends as a supervisor expects."""

import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from authserver.observability import logs
from authserver.serving import connection, listening, reloading, welcome
from authserver.serving.server import Server, configuration, run_server
from authserver.serving.workers import Workers
from authserver.settings import Settings

log = logging.getLogger(__name__)


def run(settings: Settings, host: str, port: int, workers: int = 1, reload: bool = False) -> int:
    """Serve until SIGTERM or SIGINT, finish what is in flight; return the exit status: 0, or 1 if it went wrong.

    Port 0 takes a free one. The processes that serve read their settings from the environment; several of them need
    `metric_files.shared()` around this.
    """
    logs.configure(settings)
    for number in (signal.SIGTERM, signal.SIGINT):  # until uvicorn takes over: nothing is in flight yet
        signal.signal(number, _leave)
    connection.raise_file_limit()
    try:
        sockets = listening.sockets(host, port)
    except OSError as refused:
        reason = refused.strerror or str(refused)
        log.critical("cannot_listen", extra={"host": host, "port": port, "reason": reason})
        sys.stderr.write(f"authserver cannot listen on {host}, port {port}: {reason}\n")
        return 1
    url = listening.url(host, sockets[0].getsockname()[1])
    from_environment = [name for name in os.environ if name.startswith("AUTHSERVER_")]
    os.environ["AUTHSERVER_WORKERS"] = str(workers)
    if settings.is_development and "issuer" not in settings.model_fields_set:
        os.environ["AUTHSERVER_ISSUER"] = url  # the default one speaks of port 8000

    def announce() -> None:
        log.info("listening", extra={"url": url, "workers": workers})
        if settings.is_development:
            sys.stderr.write(welcome.text(url, from_environment))
            sys.stderr.flush()

    if reload:
        return reloading.run(sockets, announce)
    if workers > 1:
        return Workers(workers, sockets, announce).run()
    return run_server(Server(configuration(), announce), sockets)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
