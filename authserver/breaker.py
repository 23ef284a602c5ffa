"""A circuit breaker a dependency and process: while it is open, no request touches the dependency.

pybreaker keeps the state, the counting and the listeners. Its own call paths do not fit coroutines (the decorator never
opens, `calling()` counts cancelled clients as failures), so a call is admitted, run, and then reported.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pybreaker

from authserver.errors import StoreUnavailable
from authserver.observability import metrics

log = logging.getLogger(__name__)

_STOOD_STILL_SECONDS = 0.25
"""By so much no time-out is late by itself: the process was stopped, or the machine had no processor for it."""


class _ReportedError(Exception):
    """Carries a failure to pybreaker, which learns of one only from an exception."""


class _Announcer(pybreaker.CircuitBreakerListener):
    """One log line for each change of state, and a count of openings."""

    def state_change(self, cb: pybreaker.CircuitBreaker, old_state: Any, new_state: Any) -> None:
        old = old_state.name if old_state else None
        level = logging.WARNING if new_state.name == pybreaker.STATE_OPEN else logging.INFO
        if new_state.name == pybreaker.STATE_OPEN:
            metrics.BREAKER_OPENINGS.labels(cb.name).inc()
        log.log(level, "breaker_changed", extra={"dependency": cb.name, "from_state": old, "state": new_state.name})


class Breaker:
    """Admits calls to one dependency, opens after `max_failures` failures in a row, closed again by a probe."""

    def __init__(self, dependency: str, max_failures: int, probe_seconds: float) -> None:
        self.dependency = dependency
        self.probe_seconds = probe_seconds
        self._answered = 0.0
        """When the newest call began that has been answered (monotonic)."""
        # reset_timeout would let a user's request be the probe; ours runs in the background instead.
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=max_failures, reset_timeout=10**9, name=dependency, listeners=[_Announcer()]
        )

    @property
    def state(self) -> str:
        """`closed` or `open`."""
        return str(self._breaker.current_state)

    @property
    def is_open(self) -> bool:
        """Tell whether calls are refused."""
        return self._breaker.current_state == pybreaker.STATE_OPEN

    @contextmanager
    def admit(self, failures: tuple[type[BaseException], ...], seconds: float) -> Iterator[None]:
        """Let one call through, which ends itself after `seconds`, and count how it ends; StoreUnavailable while open.

        Only the exceptions named in `failures` speak against the dependency. Cancellation never does, and a failure
        that comes later than it can says that this process stood still. What failed that began before something that
        has been answered since is old news.
        """
        if self.is_open:
            raise StoreUnavailable(self.dependency, "breaker open")
        began = monotonic()
        try:
            yield
        except failures:
            if monotonic() - began < seconds + _STOOD_STILL_SECONDS and began >= self._answered:
                self.failed()
            raise
        else:
            self._answered = max(self._answered, began)
            self.succeeded()

    def failed(self) -> None:
        """Count a failure; the last one that is borne opens the breaker."""
        if not self.is_open:
            try:
                self._breaker.call(self._raise)
            except (_ReportedError, pybreaker.CircuitBreakerError):
                return

    def succeeded(self) -> None:
        """Forget the failures counted so far."""
        if self._breaker.fail_counter and not self.is_open:
            self._breaker.call(lambda: None)

    def close(self) -> None:
        """Let calls through again: the probe has had an answer."""
        if self.is_open:
            self._breaker.close()

    @staticmethod
    def _raise() -> None:
        raise _ReportedError

    async def watch(self, probe: Callable[[], Awaitable[None]], failures: tuple[type[BaseException], ...]) -> None:
        """While the breaker is open, try `probe` every `probe_seconds`; close it when one succeeds. Runs for ever."""
        while True:
            await asyncio.sleep(self.probe_seconds)
            if self.is_open:
                try:
                    await probe()
                except failures as failure:
                    log.debug("breaker_probe_failed", extra={"dependency": self.dependency, "reason": repr(failure)})
                else:
                    self.close()
