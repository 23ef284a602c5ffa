"""A generator that does not wait: so many requests a second, whether the server keeps up or not.

wrk asks again when it has its answer, so it can neither overload a server nor leave it half idle. This one is slower
(some 30 µs a request), which is enough for both. It runs in a process of its own.
"""

import asyncio
import gc
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from typing import cast

import uvloop

from tests.servers import LOOPBACK

NO_CONNECTION = 0
"""The status of a request for which no connection was free: the caller's own pool was exhausted."""
LOST = -1
"""The status of a request whose connection closed, or that was not answered in time."""
_TICK_SECONDS = 0.002
_LAST_ANSWERS_SECONDS = 10.0


@dataclass(frozen=True)
class Plan:
    """What is asked, how often, over how many connections."""

    port: int
    requests: Sequence[bytes]
    per_second: float
    seconds: float
    connections: int = 64


@dataclass(frozen=True)
class Answered:
    """One request: when it should have been sent (seconds since the start), its status, how long it took from then."""

    at: float
    status: int
    seconds: float
    is_told_when: bool
    """The answer has a Retry-After."""


@dataclass(frozen=True)
class Paced:
    """All requests of a plan, and the generator's own processor time."""

    answers: list[Answered]
    processor_share: float

    def having(self, *statuses: int, after: float = 0.0) -> list[Answered]:
        """Return the requests that ended so."""
        return [answer for answer in self.answers if answer.status in statuses and answer.at >= after]


def percentile(answers: Sequence[Answered], percent: int) -> float:
    """Return in milliseconds how long that part of the requests took at most; infinite for none."""
    if len(answers) < 2:
        return float("inf")
    took = [answer.seconds for answer in answers]
    return 1000 * statistics.quantiles(took, n=100, method="inclusive")[percent - 1]


def ends(answers: Sequence[Answered]) -> str:
    """Say how requests ended, and how many so: `1200 × 200, 3 × lost`."""
    names = {NO_CONNECTION: "no connection free", LOST: "lost"}
    counted = Counter(answer.status for answer in answers)
    return ", ".join(f"{count} × {names.get(status, status)}" for status, count in counted.most_common()) or "none"


@asynccontextmanager
async def generators(count: int) -> AsyncIterator[ProcessPoolExecutor]:
    """Have so many processes ready to `follow` plans at the same time."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(pool, time.sleep, 0.2) for _ in range(count)))
        yield pool


async def follow(pool: ProcessPoolExecutor, plan: Plan) -> Paced:
    """Send what a plan says, and wait for the answers."""
    return await asyncio.get_running_loop().run_in_executor(pool, _follow, plan)


def _follow(plan: Plan) -> Paced:
    gc.disable()  # its pauses would be taken for the server's
    try:
        return uvloop.run(_Generator(plan).run())
    finally:
        gc.enable()


class _Generator:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._idle: list[_Connection] = []
        self._answers: list[Answered] = []
        self._began = 0.0

    async def run(self) -> Paced:
        plan, loop = self._plan, asyncio.get_running_loop()
        for _ in range(plan.connections):
            await self._connect()
        self._began, used, sent = loop.time(), time.process_time(), 0
        while (elapsed := loop.time() - self._began) < plan.seconds:
            for number in range(sent, int(elapsed * plan.per_second)):
                self._send(number)
                sent = number + 1
            await asyncio.sleep(_TICK_SECONDS)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_answered(sent), _LAST_ANSWERS_SECONDS)
        share = (time.process_time() - used) / (loop.time() - self._began)
        missing = sent - len(self._answers)
        unanswered = [Answered(plan.seconds, LOST, _LAST_ANSWERS_SECONDS, is_told_when=False)] * missing
        return Paced(self._answers + unanswered, share)

    async def _all_answered(self, sent: int) -> None:
        while len(self._answers) < sent:  # noqa: ASYNC110 - an event would cost time with each answer
            await asyncio.sleep(_TICK_SECONDS)

    def _send(self, number: int) -> None:
        due = number / self._plan.per_second
        if self._idle:
            self._idle.pop().send(self._plan.requests[number % len(self._plan.requests)], due)
        else:
            self._answers.append(Answered(due, NO_CONNECTION, 0.0, is_told_when=False))

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), LOOPBACK, self._plan.port)
        self._idle.append(connection)

    def answered(self, connection: "_Connection", due: float, status: int, *, is_told_when: bool) -> None:
        took = asyncio.get_running_loop().time() - self._began - due
        self._answers.append(Answered(due, status, took, is_told_when))
        self._idle.append(connection)

    def closed(self, connection: "_Connection", due: float | None) -> None:
        if due is not None:
            took = asyncio.get_running_loop().time() - self._began - due
            self._answers.append(Answered(due, LOST, took, is_told_when=False))
        elif connection in self._idle:
            self._idle.remove(connection)
        self._reconnecting = asyncio.get_running_loop().create_task(self._connect())


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way; reads as much of HTTP as our answers need."""

    def __init__(self, generator: _Generator) -> None:
        self._generator = generator
        self._received = b""
        self._due: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        head = head.lower()
        if not end or self._due is None:
            return
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(body) >= length:
            due, self._due, self._received = self._due, None, b""
            self._generator.answered(self, due, int(head[9:12]), is_told_when=b"\r\nretry-after:" in head)

    def connection_lost(self, _: Exception | None) -> None:
        self._generator.closed(self, self._due)
