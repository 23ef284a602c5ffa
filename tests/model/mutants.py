"""Each rule left out once. A mutant is the code's own rule, replaced, or a part of the machinery that is not there."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any
from unittest import mock

from authserver.tokens import protocol
from authserver.tokens.protocol import Distrust, Duty, Finding, Lease, State, Verdict
from tests.model.denylist import Machinery, Model
from tests.model.explore import Result, explore

judge, compare = protocol.judge, protocol.compare


@dataclass(frozen=True)
class Mutant:
    """What is left out, which property then breaks, and the bounds in which it does."""

    name: str
    breaks: str
    rules: dict[str, Callable[..., Any]] = field(default_factory=dict)
    model: Model = field(default_factory=lambda: Model(nodes=1))

    @contextmanager
    def put_on(self) -> Iterator[None]:
        """Replace the rules for a while."""
        with ExitStack() as stack:
            for name, rule in self.rules.items():
                stack.enter_context(mock.patch.object(protocol, name, rule))
            yield

    def catch(self) -> Result:
        """Look for the shortest path to a property that does not hold."""
        with self.put_on():
            return explore(self.model, [self.breaks])


def _without(name: str, breaks: str, *parts: str, **bounds: Any) -> Mutant:
    machinery = Machinery(**dict.fromkeys(parts, False))
    return Mutant(name, breaks, model=Model(**{"nodes": 1} | bounds, machinery=machinery))


def _with(name: str, breaks: str, bounds: dict[str, Any] | None = None, **rules: Callable[..., Any]) -> Mutant:
    return Mutant(name, breaks, rules, Model(**{"nodes": 1} | (bounds or {})))


def _judge_without_run(entries: Any, found: Any, _run: str, lease: Lease, now: float) -> Verdict:
    return judge(entries, found, lease.state.run, lease, now)


def _judge_without_lease(entries: Any, found: Any, run: str, lease: Lease, _now: float) -> Verdict:
    return judge(entries, found, run, lease, -inf)


def _judge_without_marker(entries: Any, found: Any, run: str, lease: Lease, now: float) -> Verdict:
    return judge(entries, found | {lease.state.marker}, run, lease, now)


def _judge_and_keep_quiet(*look: Any) -> Verdict:
    verdict = judge(*look)
    return Verdict.UNPROVEN if verdict is Verdict.LOST else verdict


def _duty_after_a_failed_add(state: State, is_added: bool | None = None) -> Duty:
    return Duty.WAIT if is_added is False else Duty.ADD if state.is_trusted else Duty.WAIT


def _duty_that_trusts_the_add(state: State, is_added: bool | None = None) -> Duty:
    return Duty.WAIT if not state.is_trusted else Duty.ADD if is_added is None else Duty.NONE


def _compare_without_run(state: State, run: str) -> Finding:
    finding = compare(state, run)
    return Finding.UNKNOWN if finding is Finding.MOVED else finding


MUTANTS = [
    _with("nobody waits", "S1", believed_until=lambda known, _lease: known.since),
    _with("distrust changes nothing", "liveness", {"revokes": False}, distrust=lambda current, _suspect: current),
    _with("distrust begins no new epoch", "S1", distrust=lambda current, _suspect: current._replace(is_trusted=False)),
    _with("a failed add only waits", "S1", duty=_duty_after_a_failed_add),
    _with("a failed add is good enough", "S1", duty=_duty_that_trusts_the_add),
    _with(
        "a revocation goes by a state from long before its commit",
        "S1",
        {"memory": 2},
        is_fresh=lambda state, *_: state.is_trusted,
    ),
    _with(
        "a revocation goes by a state without trust from before its commit",
        "S1",
        is_fresh=lambda _state, asked_at, now, lease: now - asked_at < lease,
    ),
    _with("an epoch seems older than it is", "S1", notice=lambda _known, state, _now: Distrust(state.epoch, -9)),
    _with("the refill does not wait", "S1", may_refill=lambda *_: True),
    _with(
        "the lease counts from the reply",
        "S1",
        {"memory": 2},
        grant=lambda state, _asked_at, lease: Lease(state, lease),
    ),
    _with("leases do not run out", "S1", {"memory": 2}, judge=_judge_without_lease),
    _with("any process will do", "S1", judge=_judge_without_run),
    _with("any copy will do", "S1", judge=_judge_without_marker),
    _with("markers have no names", "S1", marker=lambda state, run, _name: f"!{state.epoch}:{run}"),
    _with("a lost marker is nobody's business", "liveness", {"revokes": False}, judge=_judge_and_keep_quiet),
    _with("a replaced process is nobody's business", "liveness", {"revokes": False}, compare=_compare_without_run),
    _without("Redis comes before the database", "S3", "commits_before_redis"),
    _without("the 200 comes before the commit", "S1", "commits_before_200"),
    _without("the first pass counts without a lock", "S1", "locks_the_count"),
    _without("the second pass has no lock", "S1", "locks_the_install"),
    _without("there is no second pass", "S1", "copies_what_came_meanwhile"),
    _without("a new copy need not be whole", "S1", "counts_before_install"),
    _without("trust comes before the new copy", "S1", "installs_before_trust", faults=0),
    _without("entries and marker are in different keys", "S1", "keeps_marker_and_entries_in_one_key"),
    _without("who was asked to add is known only afterwards", "S2", "adds_only_in_the_named_process"),
    _without("who has added does not matter", "S1", "adds_only_in_the_named_process", "asks_who_added"),
    _without(
        "entries are added anywhere",
        "S1",
        "adds_only_in_the_named_process",
        "asks_who_added",
        "adds_only_beside_the_marker",
    ),
    _without("a demoted process is believed", "S1", "asks_for_the_role"),
    _without("what a check finds in the database stays there", "S2", "adds_what_a_check_finds", faults=0),
    _without("nobody reconciles", "liveness", "reconciles", faults=0),
]
