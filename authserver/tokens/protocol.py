"""The rules by which all nodes agree on what the copy of the denylist is worth. They ask nobody and have no clock.

`denylist.py` and `refill.py` carry them out with the database (`truth.py`) and Redis (`copy.py`). `tests/model/` tries
the same functions in every order of steps, crashes and faults. docs/reliability.md tells the whole.
Moments and durations are in seconds, measured by the clock of the process that calls.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import NamedTuple


class State(NamedTuple):
    """What the database says of the copy: whether it may be believed, and which one it is."""

    is_trusted: bool
    epoch: int
    """Raised when trust ends; 0 if there never was any."""
    run: str
    """The Redis process that holds the copy."""
    marker: str
    """The member that only this copy has."""


class Lease(NamedTuple):
    """What a process may believe, and until when."""

    state: State
    until: float


class Distrust(NamedTuple):
    """The newest epoch without trust that a process knows of, and since when it knows."""

    epoch: int
    since: float


NEVER_TRUSTED = State(False, 0, "", "")
NO_LEASE = Lease(NEVER_TRUSTED, 0.0)
NO_DISTRUST = Distrust(0, 0.0)
"""Epoch 0 was never trusted, so nobody has to wait for its end."""


# ── check ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Verdict(Enum):
    """What a look at the copy says of a token."""

    REVOKED = "an entry is there"
    LIVE = "no entry is there, and none is missing"
    UNPROVEN = "the database must be asked"
    LOST = "the database must be asked, and the copy has lost its marker"


def judge(entries: Iterable[str], found: AbstractSet[str], run: str, lease: Lease, now: float) -> Verdict:
    """Conclude from what one reply of a process showed; `run` is empty if it is no master, `now` is after the reply."""
    if not found.isdisjoint(entries):
        return Verdict.REVOKED
    if run != lease.state.run or now >= lease.until:
        return Verdict.UNPROVEN
    return Verdict.LIVE if lease.state.marker in found else Verdict.LOST


# ── revoke ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Duty(Enum):
    """What is owed before anybody may hear of entries that the database has."""

    ADD = "add them to the copy"
    DISTRUST = "end the trust in the copy"
    WAIT = "wait until nobody believes it any more"
    NONE = "answer"


def is_fresh(state: State, asked_at: float, now: float, lease_seconds: float) -> bool:
    """Tell whether `duty` may go by a state from before the entries were written, which `now` have been committed.

    It was trusted then, less than a lease ago. Whoever makes another copy since must end that trust first, and then
    wait until every lease on this one has run out (`may_refill`): the entries are in the database before that.
    """
    return state.is_trusted and now - asked_at < lease_seconds


def duty(state: State, is_added: bool | None = None) -> Duty:
    """Say what comes next, by a state that is fresh or was read under the lock or later, and how adding them went."""
    if not state.is_trusted:
        return Duty.WAIT
    if is_added is None:
        return Duty.ADD
    return Duty.NONE if is_added else Duty.DISTRUST


def notice(known: Distrust, state: State, now: float) -> Distrust:
    """Remember since when an epoch is known to be without trust."""
    return Distrust(state.epoch, now) if state.epoch > known.epoch else known


def believed_until(known: Distrust, lease_seconds: float) -> float:
    """Return when the last lease on the copy that was trusted before has run out; clocks may run 10 % apart."""
    return known.since + lease_seconds * 1.1


# ── distrust ───────────────────────────────────────────────────────────────────────────────────────────────────────


def distrust(current: State, suspect: State) -> State:
    """Return the state that follows; the same if somebody else has ended this epoch already."""
    if current.is_trusted and current.epoch == suspect.epoch:
        return current._replace(is_trusted=False, epoch=current.epoch + 1)
    return current


# ── poll ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Finding(Enum):
    """What a state and the name of the Redis process mean together."""

    SOUND = "the copy is where it should be"
    MOVED = "another process has taken the place of the one that had the copy"
    UNTRUSTED = "there is no copy that may be believed"
    UNKNOWN = "no master answers"


def compare(state: State, run: str) -> Finding:
    """Compare what should be with the process that answers; `run` is empty if it is no master."""
    if not run:
        return Finding.UNKNOWN
    if not state.is_trusted:
        return Finding.UNTRUSTED
    return Finding.SOUND if state.run == run else Finding.MOVED


def grant(state: State, asked_at: float, lease_seconds: float) -> Lease:
    """Extend the lease from before the question: an answer that was long under way is already old."""
    return Lease(state, asked_at + lease_seconds)


# ── refill ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def may_refill(known: Distrust, lease_seconds: float, now: float) -> bool:
    """Tell whether a new copy may be begun: not while anybody may believe the old one, which revocations leave out."""
    return now >= believed_until(known, lease_seconds)


def marker(state: State, run: str, name: str) -> str:
    """Return the marker of a new copy. Late commands of a refill that was given up must not pass for the newest one's.

    Hence the name in it, which no two refills share.
    """
    return f"!{state.epoch}:{run}:{name}"


def trust(state: State, run: str, marker: str) -> State:
    """Return the state once the copy with this marker is in place."""
    return state._replace(is_trusted=True, run=run, marker=marker)
