"""The measured bound: revocations on node A, polled on node B as fast as it answers, while Redis is well or not."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from time import monotonic

from tests.laboratory.asking import Asker, Token, Tokens
from tests.laboratory.checker import Rule, Violation, judge
from tests.laboratory.faults.fault import meanwhile
from tests.laboratory.faults.redis import flap
from tests.laboratory.history import Outcome, Terms, What
from tests.laboratory.nodes import Laboratory

HEADINGS = ("revocations", "good after 200", "polls", "revoke p50", "p99", "dead on B p50", "p99", "metric")
_RETRY_SECONDS = 0.2
_AFTERWARDS = 2
"""So many polls that began after the 200 end the watch over a token."""
_METRIC = re.compile(r"^authserver_revocation_propagation_seconds_(sum|count) (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class State:
    """In which the stores are meanwhile."""

    name: str
    broken: Callable[[Laboratory], AbstractAsyncContextManager[None]]
    hands: int
    """So many revocations are under way at a time."""


@dataclass(frozen=True)
class Measured:
    """What came of it."""

    state: State
    violations: Sequence[Violation]
    polls: int
    revoke_seconds: Sequence[float]
    dead_seconds: Sequence[float]
    """From the sending of the revocation to the answer of node B that the token is dead."""
    metric_seconds: float
    """On average, as the servers measured it."""

    def cells(self) -> tuple[str, ...]:
        """Return a row of the table."""
        seconds = [_percentile(of, part) for of in (self.revoke_seconds, self.dead_seconds) for part in (0.5, 0.99)]
        shown = [f"{value * 1000:.0f} ms" for value in [*seconds, self.metric_seconds]]
        good = sum(violation.rule is Rule.REVOKED_STAYS_REVOKED for violation in self.violations)
        return (str(len(self.dead_seconds)), str(good), str(self.polls), *shown)


async def measure(lab: Laboratory, state: State, count: int) -> Measured:
    """Revoke so many access tokens on A, and ask B about each until it has been dead for a while."""
    asker = Asker(lab.app)
    todo = iter(range(count))
    dead_seconds: list[float] = []
    sessions = [await _sign_in(asker, lab) for _ in range(state.hands)]
    before = await _metric(lab)
    async with state.broken(lab):
        await asyncio.gather(*(_work(asker, lab, tokens, todo, dead_seconds) for tokens in sessions))
    await lab.recovered()
    total, observed = (after - then for after, then in zip(await _metric(lab), before, strict=True))
    revoked = [event for event in asker.history if event.what is What.REVOKE_ACCESS]
    return Measured(
        state,
        judge(asker.history, Terms(lag_seconds=1)),
        sum(event.what is What.INTROSPECT for event in asker.history),
        [event.seconds for event in revoked],
        dead_seconds,
        total / max(1, observed),
    )


async def _work(asker: Asker, lab: Laboratory, tokens: Tokens, todo: Iterator[int], dead_seconds: list[float]) -> None:
    for _ in todo:
        tokens = await _refreshed(asker, lab, tokens.refresh)
        dead_seconds.append(await _revoke(asker, lab, tokens.access))


async def _refreshed(asker: Asker, lab: Laboratory, token: Token) -> Tokens:
    while True:
        _, tokens = await asker.refresh(lab.a, token)
        if tokens is not None:
            return tokens
        await asyncio.sleep(_RETRY_SECONDS)


async def _revoke(asker: Asker, lab: Laboratory, token: Token) -> float:
    began = monotonic()
    is_revoked = asyncio.Event()
    polling = asyncio.create_task(_poll(asker, lab, token, is_revoked))
    event = await asker.revoke(lab.a, token)
    while event.outcome is not Outcome.YES:
        await asyncio.sleep(_RETRY_SECONDS)
        event = await asker.revoke(lab.a, token)
    is_revoked.set()
    return await polling - began


async def _poll(asker: Asker, lab: Laboratory, token: Token, is_revoked: asyncio.Event) -> float:
    """Ask until some answers that began after the 200 have come; return when B first said that the token is dead."""
    dead_at, afterwards = 0.0, 0
    while afterwards < _AFTERWARDS:
        afterwards += is_revoked.is_set()
        event = await asker.introspect(lab.b, token)
        if event.outcome is Outcome.NO and not dead_at:
            dead_at = event.ended
    return dead_at or monotonic()


async def _sign_in(asker: Asker, lab: Laboratory) -> Tokens:
    user, password = f"user-{secrets.token_hex(6)}", f"a long sentence {secrets.token_hex(8)}"
    await asker.register(lab.a, user, password)
    _, tokens = await asker.sign_in(lab.a, user, password)
    assert tokens
    return tokens


async def _metric(lab: Laboratory) -> tuple[float, float]:
    """Return sum and count of the servers' own histogram, both nodes together."""
    found = {"sum": 0.0, "count": 0.0}
    for node in lab.nodes:
        for name, value in _METRIC.findall((await node.http.get("/metrics")).text):
            found[name] += float(value)
    return found["sum"], found["count"]


def _percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


@asynccontextmanager
async def _well(lab: Laboratory) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _gone(lab: Laboratory) -> AsyncIterator[None]:
    lab.redis.kill()
    yield
    await asyncio.to_thread(lab.redis.start)


@asynccontextmanager
async def _flapping(lab: Laboratory) -> AsyncIterator[None]:
    async with meanwhile(flap(lab, 0.4, 2.6)):
        yield
    lab.redis.resume()


STATES = (
    State("all is well", _well, hands=8),
    State("Redis is gone", _gone, hands=8),
    State("Redis comes and goes", _flapping, hands=16),
)
