"""Several worker processes on one port.

uvicorn's own supervisor starts workers that fail at once for ever, leaves them behind when it is killed, and notices
signals and dead workers only every half second. Here the application is imported once, and the workers are forked:
they start at once, and share the memory of what is imported.
"""

import gc
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from socket import socketpair
from time import monotonic

from authserver.observability import logs, metric_files
from authserver.serving.listening import Seats, Sockets
from authserver.serving.server import DRAIN_SECONDS, SIGNALS, Server, configuration, run_server
from authserver.settings import load

log = logging.getLogger(__name__)

RESTART_PAUSE_SECONDS = 1.0
"""Between two starts of a worker that dies; less would only heat the machine."""
_forking = multiprocessing.get_context("fork")


class Workers:
    """Starts `count` workers, replaces those that die, ends all at a signal."""

    def __init__(self, count: int, sockets: Sockets, on_ready: Callable[[], None]) -> None:
        self._count = count
        self._sockets = sockets
        self._on_ready = on_ready
        self._seats = Seats(count)
        self._processes: dict[int, ForkProcess] = {}
        """By the number of their seat."""
        self._next_start = 0.0
        self._is_ready = self._is_told_to_stop = False
        self._told_ready, self._tell_ready = Pipe(duplex=False)
        self._supervised, self._supervising = Pipe(duplex=False)
        """Closed with the process that holds its second end, which is this one only."""

    def run(self) -> int:
        """Serve until a signal comes; return the exit status: 1 if the workers cannot start."""
        woken, wake = socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        for number in SIGNALS:
            signal.signal(number, self._stop)
        importlib.import_module("authserver.app")
        metric_files.clear()
        gc.freeze()  # a collection would write to every object, and no page would stay shared
        while not self._is_told_to_stop:
            self._start_missing()
            is_full = len(self._processes) == self._count
            pause = None if is_full else max(0.0, self._next_start - monotonic())
            sentinels = [process.sentinel for process in self._processes.values()]
            happened = wait([woken, self._told_ready, *sentinels], pause)
            if woken in happened:
                woken.recv(64)
            if self._told_ready in happened:
                self._told_ready.recv_bytes()
                self._announce()
            dead = [seat for seat, process in self._processes.items() if process.sentinel in happened]
            for seat in dead:
                self._bury(self._processes.pop(seat))
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

    def _start_missing(self) -> None:
        if len(self._processes) == self._count or monotonic() < self._next_start:
            return
        # A signal to the whole group (Ctrl-C) waits until the worker knows what to do about it; see Server.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            for seat in set(range(self._count)) - self._processes.keys():
                process = _forking.Process(target=self._work, args=(seat,))
                process.start()
                self._processes[seat] = process
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._next_start = monotonic() + RESTART_PAUSE_SECONDS

    def _bury(self, process: ForkProcess) -> None:
        process.join()
        log.error("worker_died", extra={"worker_pid": process.pid, "exit_status": process.exitcode})
        metric_files.forget_process(process.pid or 0)

    def _end_all(self) -> None:
        for listening in self._sockets:
            listening.close()
        for process in self._processes.values():
            process.terminate()
        deadline = monotonic() + DRAIN_SECONDS + 5
        for process in self._processes.values():
            process.join(max(0.0, deadline - monotonic()))
            if process.is_alive():
                log.error("worker_killed", extra={"worker_pid": process.pid})
                process.kill()
                process.join()

    def _work(self, seat: int) -> None:
        """Be a worker: this runs in the forked process."""
        self._supervising.close()
        logs.configure(load())
        threading.Thread(target=self._follow, name="follow supervisor", daemon=True).start()
        fewer = partial(self._seats.are_fewer_elsewhere, seat)
        server = Server(configuration(), lambda: self._tell_ready.send_bytes(b"ready"), fewer)
        sys.exit(run_server(server, self._sockets))

    def _follow(self) -> None:
        """End with the supervisor, also when it was killed: nobody else would."""
        wait([self._supervised])
        os.kill(os.getpid(), signal.SIGTERM)
