"""Hashing passwords with argon2id (RFC 9106), never on the event loop and never more at a time than there are cores."""

import asyncio
import base64
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import argon2
from argon2.exceptions import HashingError, InvalidHashError, VerificationError, VerifyMismatchError

from authserver import text
from authserver.errors import Busy
from authserver.observability import metrics
from authserver.settings import Settings

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
_SALT_BYTES, _HASH_BYTES = 16, 32
_HELD_BACK_SECONDS = 0.2
"""So long at most is an answer held back until as many are there as are waited for still: what follows a hash is done
in a row for all of them, while its code is in the processor's caches, from which each hash drives it out."""
_NICENESS = 10
"""Of the threads that hash (nice(2)): a tenth of a core when there is something else to do."""


class Hasher:
    """Hashes and verifies in threads of its own. When `argon2_queue` callers wait already, it is Busy at once."""

    def __init__(self, settings: Settings) -> None:
        self._argon2 = argon2.PasswordHasher(
            time_cost=settings.argon2_time_cost,
            memory_cost=settings.argon2_memory_kib,
            parallelism=settings.argon2_parallelism,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
            type=argon2.Type.ID,
        )
        self._max_length = settings.password_max_length
        self._nobodys_hash = _matches_nothing(self._argon2)
        self._threads = settings.argon2_threads or max(1, _cores() // settings.workers)
        self._capacity = self._threads + settings.argon2_queue
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="argon2", initializer=_step_back)
        self._lock = threading.Lock()
        self._admitted = 0
        self._finished: list[tuple[asyncio.Future[Any], Future[Any]]] = []
        self._seconds = 0.0

        self.running = 0
        """Hashes being made now."""

    @property
    def queued(self) -> int:
        """Hashes that wait for a thread."""
        return max(0, self._admitted - self.running)

    async def hash(self, password: str) -> str:
        """Return what is stored for a password (a PHC string); Busy when too many wait."""
        return await self._in_thread(partial(self._argon2.hash, _encoded(text.normalise(password))))

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Tell whether the password is the one; Busy when too many wait.

        None stands for a user that does not exist: as much work as a wrong password, and False. So is a password
        that is longer than any that was ever accepted.
        """
        password = text.normalise(password)
        if len(password) > self._max_length:
            hashed, password = None, password[: self._max_length]
        return await self._in_thread(partial(self._verify, hashed, _encoded(password)))

    def needs_rehash(self, hashed: str) -> bool:
        """Tell whether a hash was made with other parameters than today's."""
        return self._argon2.check_needs_rehash(hashed)

    def check_room(self) -> None:
        """Raise Busy if the next hash would be refused: before anything is counted or looked up for it."""
        if self._admitted >= self._capacity:
            half = self._seconds * self._capacity / self._threads / 2  # is done by then
            raise Busy("the password-hashing queue is full", retry_after=1 + round(half))

    def close(self) -> None:
        """Give the threads back; what waits is not hashed any more."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        self.check_room()
        with self._lock:
            self._admitted += 1
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        future = self._executor.submit(self._timed, work)
        future.add_done_callback(partial(self._release, answer))
        try:
            return await answer
        finally:
            future.cancel()  # the caller may have given up; what has begun goes on to its end

    def _timed(self, work: Callable[[], Answer]) -> Answer:
        with self._lock:
            self.running += 1
        began = time.perf_counter()
        try:
            return work()
        except HashingError as no_memory:
            raise Busy(f"argon2: {no_memory}") from no_memory
        finally:
            seconds = time.perf_counter() - began
            metrics.HASH_SECONDS.observe(seconds)
            with self._lock:
                self.running -= 1
                self._seconds = seconds

    def _release(self, answer: asyncio.Future[Answer], future: Future[Answer]) -> None:
        """Make room for another one; in whichever thread has finished it or given it up."""
        with self._lock:
            self._admitted -= 1
            self._finished.append((answer, future))
            together = len(self._finished)
            is_time = together >= self.queued or together * self._seconds >= _HELD_BACK_SECONDS
        if is_time and not answer.get_loop().is_closed():
            answer.get_loop().call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        with self._lock:
            finished, self._finished = self._finished, []
        for answer, future in finished:
            if answer.done():  # the caller has given up
                continue
            if future.cancelled():  # the hasher was closed
                answer.cancel()
            elif problem := future.exception():
                answer.set_exception(problem)
            else:
                answer.set_result(future.result())

    def _verify(self, hashed: str | None, password: bytes) -> bool:
        try:
            return self._argon2.verify(hashed or self._nobodys_hash, password)
        except VerifyMismatchError:
            return False
        except InvalidHashError:
            log.error("password_hash_unreadable")  # noqa: TRY400 - the traceback would say nothing more
            return self._verify(None, password)
        except VerificationError as no_memory:
            raise Busy(f"argon2: {no_memory}") from no_memory


def _encoded(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


def _matches_nothing(hasher: argon2.PasswordHasher) -> str:
    """Return a hash of no known password: verifying against it takes as long as against a real one."""
    salt, digest = (
        base64.b64encode(os.urandom(size)).rstrip(b"=").decode() for size in (hasher.salt_len, hasher.hash_len)
    )
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${costs}${salt}${digest}"


def _step_back() -> None:
    """Let everything else of the machine go before this thread: who signs in waits anyway, who introspects must not."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        os.nice(_NICENESS)


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
