"""Judges a history: a pure function from what was asked and answered to what was broken.

A rule accuses only if no reading of the requests whose outcome is unknown excuses the answer; case.py says how.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.laboratory.case import BY_TOKEN, NEVER, WRONG_PASSWORD, Case
from tests.laboratory.history import Event, Outcome, Period, Terms, What

LIMIT_SECONDS = 2.0
LOCK_SECONDS = 0.9
"""Nobody who has waited for a lock in vain answers sooner: `lock_timeout` is a second."""


class Rule(StrEnum):
    """What is promised."""

    REVOKED_STAYS_REVOKED = "revoked stays revoked"
    NO_FLIP_FLOP = "no flip-flop"
    NO_FALSE_DEATH = "no false death"
    ONE_SUCCESSOR = "one successor"
    NOTHING_LOST = "nothing acknowledged is lost"
    MATRIX = "the answers of the matrix"
    IN_TIME = "two seconds"
    RECOVERS = "recovers by itself"


@dataclass(frozen=True)
class Violation:
    """A promise that was broken, and the answer that shows it."""

    rule: Rule
    why: str
    event: Event | None = None

    def __str__(self) -> str:
        return f"{self.rule}: {self.why}" + (f"; {self.event}" if self.event else "")


def judge(history: Iterable[Event], terms: Terms) -> list[Violation]:
    """Return every broken promise, in the order of the answers."""
    case = Case(sorted(history, key=lambda event: event.started), terms)
    found = [violation for rule in RULES for violation in rule(case)]
    return sorted(found, key=lambda violation: violation.event.started if violation.event else NEVER)


# ── the rules ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _revoked_stays_revoked(case: Case) -> Iterator[Violation]:
    for event in case.history:
        if _says_good(event) and (ender := case.ended_by(event)):
            yield Violation(Rule.REVOKED_STAYS_REVOKED, f"good after ({ender})", event)


def _no_flip_flop(case: Case) -> Iterator[Violation]:
    if not case.terms.do_clocks_agree:
        return
    dead: dict[str, float] = defaultdict(lambda: NEVER)
    for event in case.history:
        if _says_dead(event):
            dead[event.token] = min(dead[event.token], event.ended)
    for event in case.history:
        if _says_good(event) and dead[event.token] < event.started and event.what is not What.REFRESH:
            yield Violation(Rule.NO_FLIP_FLOP, "good after it was said to be dead", event)


def _no_false_death(case: Case) -> Iterator[Violation]:
    if not case.terms.do_clocks_agree:
        return
    for event in case.history:
        if not _says_dead(event) or case.is_maybe_dead(event):
            continue
        if event.what is What.REFRESH and case.may_be_reuse(event):
            continue
        if event.what is What.INTROSPECT_REFRESH and case.maybe_spent(event.token) < event.ended:
            continue
        yield Violation(Rule.NO_FALSE_DEATH, "nobody can have ended this token", event)


def _one_successor(case: Case) -> Iterator[Violation]:
    for token, attempts in case.refreshes.items():
        successors: set[str] = set()
        for event in attempts:
            if event.outcome is not Outcome.YES:
                continue
            if successors and event.new_refresh not in successors:
                yield Violation(Rule.ONE_SUCCESSOR, "another successor than before", event)
            successors.add(event.new_refresh)
            if any(case.surely_spent(successor) < event.started for successor in case.successors[token]):
                yield Violation(Rule.ONE_SUCCESSOR, "traded although its successor was", event)
            elif case.surely_spent(token) + case.terms.retry_seconds < event.started and case.terms.do_clocks_agree:
                yield Violation(Rule.ONE_SUCCESSOR, "traded again after the time for retries", event)
    for event in case.history:
        is_good = event.what is What.INTROSPECT_REFRESH and event.outcome is Outcome.YES
        if is_good and case.surely_spent(event.token) < event.started:
            yield Violation(Rule.ONE_SUCCESSOR, "a spent refresh token is said to be good", event)


def _nothing_lost(case: Case) -> Iterator[Violation]:
    for event in case.history:
        changes = case.user_changes.get(event.user, [])
        is_refused = event.outcome is Outcome.NO and (event.what is What.SIGN_IN or event.said == WRONG_PASSWORD)
        if is_refused:
            is_right = case.surely_right[event.user, event.password] < event.started
            if is_right and not any(_may_refuse(change, event) for change in changes):
                yield Violation(Rule.NOTHING_LOST, "the right password is refused", event)
        if event.what is What.SIGN_IN and event.outcome is Outcome.YES:
            for change in changes:
                if change.outcome is Outcome.YES and change.ended < event.started and _takes(change, event.password):
                    yield Violation(Rule.NOTHING_LOST, f"signed in after this was acknowledged: {change}", event)


def _matrix(case: Case) -> Iterator[Violation]:
    for event in case.history:
        no_database = case.terms.without_database.get(event.node)
        stopped = case.terms.stopped.get(event.node)
        locked_out = case.terms.locked_out.get(event.node) if event.seconds >= LOCK_SECONDS else None
        if event.outcome is Outcome.STRANGE or case.is_taken_by_nobody(event):
            yield Violation(Rule.MATRIX, "an answer that the matrix does not know", event)
        elif event.outcome is Outcome.UNAVAILABLE and not _excused(event, no_database, stopped, locked_out):
            yield Violation(Rule.MATRIX, "a 503 although the database was there", event)
        elif event.outcome is Outcome.SILENCE and not _excused(event, stopped):
            yield Violation(Rule.MATRIX, "no answer at all", event)


def _in_time(case: Case) -> Iterator[Violation]:
    for event in case.history:
        is_late = event.seconds > LIMIT_SECONDS + case.terms.lag_seconds
        if is_late and not _excused(event, case.terms.stopped.get(event.node)):
            yield Violation(Rule.IN_TIME, f"{event.seconds:.2f} seconds", event)


RULES = (
    _revoked_stays_revoked,
    _no_flip_flop,
    _no_false_death,
    _one_successor,
    _nothing_lost,
    _matrix,
    _in_time,
)


# ── readings ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _says_good(event: Event) -> bool:
    """Tell whether the answer says that the token in question is good; a wrong password is found with a good one."""
    if event.what in BY_TOKEN and event.said == WRONG_PASSWORD:
        return True
    is_about_token = event.what in {What.INTROSPECT, What.INTROSPECT_REFRESH, What.REFRESH} | BY_TOKEN
    return is_about_token and event.outcome is Outcome.YES


def _says_dead(event: Event) -> bool:
    is_about_token = event.what in {What.INTROSPECT, What.INTROSPECT_REFRESH, What.REFRESH} | BY_TOKEN
    return is_about_token and event.outcome is Outcome.NO and event.said != WRONG_PASSWORD


def _may_refuse(change: Event, event: Event) -> bool:
    """Tell whether a change may be why a password that was right is refused."""
    if change.started >= event.ended:
        return False
    if change.what is What.SIGN_OUT_EVERYWHERE:  # it refuses only sign-ins that it meets
        return change.outcome is not Outcome.YES or change.ended > event.started
    return _takes(change, event.password)


def _takes(change: Event, password: str) -> bool:
    """Tell whether a password is no longer right after a change."""
    if change.what is What.DELETE_ACCOUNT:
        return True
    return change.what is What.CHANGE_PASSWORD and change.password == password


def _excused(event: Event, *periods: Period | None) -> bool:
    return any(period is not None and period.touches(event) for period in periods)
