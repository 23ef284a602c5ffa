"""Several worker processes on one port.

uvicorn's own supervisor starts workers that fail at once for ever, leaves them behind when it is killed, and notices
signals and dead workers only every half second.
"""

import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from socket import socketpair
from time import monotonic

from authserver.observability import logs, metrics
from authserver.serving.listening import Sockets
from authserver.serving.server import DRAIN_SECONDS, SIGNALS, Server, configuration, run_server
from authserver.settings import load

log = logging.getLogger(__name__)

RESTART_PAUSE_SECONDS = 1.0
"""Between two starts of a worker that dies; less would only heat the machine."""
_spawning = multiprocessing.get_context("spawn")


class Workers:
    """Starts `count` workers, replaces those that die, ends all at a signal."""

    def __init__(self, count: int, sockets: Sockets, on_ready: Callable[[], None]) -> None:
        self._count = count
        self._sockets = sockets
        self._on_ready = on_ready
        self._processes: list[SpawnProcess] = []
        self._next_start = 0.0
        self._is_ready = self._is_told_to_stop = False

    def run(self) -> int:
        """Serve until a signal comes; return the exit status: 1 if the workers cannot start."""
        metrics_directory = tempfile.mkdtemp(prefix="authserver-metrics-")
        os.environ[metrics.DIRECTORY] = metrics_directory
        try:
            return self._run(metrics_directory)
        finally:
            shutil.rmtree(metrics_directory, ignore_errors=True)

    def _run(self, metrics_directory: str) -> int:
        woken, wake = socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        for number in SIGNALS:
            signal.signal(number, self._stop)
        ready, tell_ready = _spawning.Pipe(duplex=False)
        while not self._is_told_to_stop:
            self._start_missing(tell_ready)
            is_full = len(self._processes) == self._count
            pause = None if is_full else max(0.0, self._next_start - monotonic())
            happened = wait([woken, ready, *(process.sentinel for process in self._processes)], pause)
            if woken in happened:
                woken.recv(64)
            if ready in happened:
                ready.recv_bytes()
                self._announce()
            dead = [process for process in self._processes if process.sentinel in happened]
            for process in dead:
                self._bury(process, metrics_directory)
            if dead and not self._is_ready:
                log.critical("workers_cannot_start")
                self._end_all()
                return 1
        self._end_all()
        return 0

    def _stop(self, *_: object) -> None:
        self._is_told_to_stop = True

    def _announce(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._on_ready()

    def _start_missing(self, tell_ready: Connection) -> None:
        if len(self._processes) == self._count or monotonic() < self._next_start:
            return
        # A signal to the whole group (Ctrl-C) waits until the worker knows what to do about it; see Server. The tracker
        # comes first: starting it lets the signals through again.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            while len(self._processes) < self._count:
                process = _spawning.Process(target=_work, args=(self._sockets, tell_ready))
                process.start()
                self._processes.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._next_start = monotonic() + RESTART_PAUSE_SECONDS

    def _bury(self, process: SpawnProcess, metrics_directory: str) -> None:
        process.join()
        self._processes.remove(process)
        log.error("worker_died", extra={"worker_pid": process.pid, "exit_status": process.exitcode})
        metrics.forget_process(process.pid or 0, metrics_directory)

    def _end_all(self) -> None:
        for listening in self._sockets:
            listening.close()
        for process in self._processes:
            process.terminate()
        deadline = monotonic() + DRAIN_SECONDS + 5
        for process in self._processes:
            process.join(max(0.0, deadline - monotonic()))
            if process.is_alive():
                log.error("worker_killed", extra={"worker_pid": process.pid})
                process.kill()
                process.join()


def _work(sockets: Sockets, tell_ready: Connection) -> None:
    """Be a worker."""
    logs.configure(load())
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent.sentinel,), name="follow supervisor", daemon=True).start()
    server = Server(configuration(), lambda: tell_ready.send_bytes(b"ready"))
    sys.exit(run_server(server, sockets))


def _follow(supervisor: int) -> None:
    """End with the supervisor, also when it was killed: nobody else would."""
    wait([supervisor])
    os.kill(os.getpid(), signal.SIGTERM)
