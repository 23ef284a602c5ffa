"""Judges a history: a pure function from what was asked and answered to what was broken.

A request whose outcome is unknown (503, no answer) may have happened or not, at any time after it was sent. So each
rule accuses only if neither reading of every unknown request excuses the answer: what must have happened counts from
the *end* of an acknowledged request, what may have happened from the *start* of any.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from tests.laboratory.history import Event, Outcome, Period, Terms, What

LIMIT_SECONDS = 2.0
NEVER = float("inf")
BY_TOKEN = frozenset({What.USERINFO, What.ME, What.CHANGE_PASSWORD, What.SIGN_OUT, What.SIGN_OUT_EVERYWHERE,
                      What.DELETE_ACCOUNT})  # fmt: skip
"""Asked for with an access token in the header."""
ENDS_ALL = frozenset({What.SIGN_OUT_EVERYWHERE, What.DELETE_ACCOUNT, What.CHANGE_PASSWORD})
"""Ends sessions of a user: all, or all but the one it was asked from."""
WRONG_PASSWORD = "wrong-password"


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


@dataclass
class Case:
    """A history, and what follows from it."""

    history: Sequence[Event]
    terms: Terms

    # ── what has ended, surely or maybe ────────────────────────────────────────────────────────────────────────────

    @cached_property
    def surely_dead(self) -> dict[str, float]:
        """By access token and by session: when it was acknowledged that it is dead."""
        dead: dict[str, float] = defaultdict(lambda: NEVER)
        for event in self.history:
            if event.outcome is Outcome.YES and event.what is What.REVOKE_ACCESS:
                dead[event.token] = min(dead[event.token], event.ended)
            is_end = event.what in {What.REVOKE_REFRESH, What.SIGN_OUT} and event.outcome is Outcome.YES
            # A genuine token of the right client is refused only if its session is over; reuse ends it just then.
            if is_end or (event.what is What.REFRESH and event.outcome is Outcome.NO):
                dead[event.session] = min(dead[event.session], event.ended)
            if event.what in ENDS_ALL and event.outcome is Outcome.YES:
                for begun in self.sign_ins[event.user]:
                    if _surely_ends(event, begun):
                        dead[begun.session] = min(dead[begun.session], event.ended)
        return dead

    @cached_property
    def maybe_dead(self) -> dict[str, float]:
        """By access token, session and user: since when it may be dead."""
        dead: dict[str, float] = defaultdict(lambda: NEVER)
        for event in self.history:
            if event.what is What.REVOKE_ACCESS and event.may_have_happened:
                dead[event.token] = min(dead[event.token], event.started)
            is_end = event.what in {What.REVOKE_REFRESH, What.SIGN_OUT} and event.may_have_happened
            is_reuse = event.what is What.REFRESH and event.outcome is not Outcome.YES and self.may_be_reuse(event)
            if is_end or is_reuse:
                dead[event.session] = min(dead[event.session], event.started)
            if event.what in ENDS_ALL and event.may_have_happened:
                for begun in self.sign_ins[event.user]:
                    if _may_end(event, begun):
                        dead[begun.session] = min(dead[begun.session], event.started)
        return dead

    def is_surely_dead(self, event: Event) -> bool:
        """Tell whether the death of the token in question was acknowledged before the request was sent."""
        return min(self.surely_dead[event.token], self.surely_dead[event.session]) < event.started

    def is_maybe_dead(self, event: Event) -> bool:
        """Tell whether something that was sent before the answer came may have ended the token in question."""
        return min(self.maybe_dead[event.token], self.maybe_dead[event.session]) < event.ended

    # ── refresh tokens ─────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def refreshes(self) -> dict[str, list[Event]]:
        """By refresh token: all attempts to trade it."""
        return _grouped((event.token, event) for event in self.history if event.what is What.REFRESH)

    @cached_property
    def successors(self) -> dict[str, set[str]]:
        """By refresh token: what was given for it."""
        given: dict[str, set[str]] = defaultdict(set)
        for token, attempts in self.refreshes.items():
            given[token] = {attempt.new_refresh for attempt in attempts if attempt.outcome is Outcome.YES}
        return given

    def may_be_reuse(self, event: Event) -> bool:
        """Tell whether the refresh token may have been spent too long ago, or its successor may be spent too."""
        others = [e for e in self.refreshes[event.token] if e is not event and e.may_have_happened]
        earlier = [other for other in others if other.started < event.ended]
        is_late = any(event.ended - other.started >= self.terms.retry_seconds for other in earlier)
        return is_late or any(
            later.started < event.ended and later.may_have_happened
            for successor in self.successors[event.token]
            for later in self.refreshes.get(successor, [])
        )

    def surely_spent(self, token: str) -> float:
        """Return when it was acknowledged that the token has been traded."""
        return min((e.ended for e in self.refreshes.get(token, []) if e.outcome is Outcome.YES), default=NEVER)

    def maybe_spent(self, token: str) -> float:
        """Return since when the token may have been traded."""
        return min((e.started for e in self.refreshes.get(token, []) if e.may_have_happened), default=NEVER)

    # ── users and passwords ────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def sign_ins(self) -> dict[str, list[Event]]:
        """By user: the sessions that began."""
        begun = (e for e in self.history if e.what is What.SIGN_IN and e.outcome is Outcome.YES)
        return _grouped((event.user, event) for event in begun)

    @cached_property
    def user_changes(self) -> dict[str, list[Event]]:
        """By user: what may have changed whether a password is right, or raised the user's generation."""
        changes = (e for e in self.history if e.what in ENDS_ALL and e.may_have_happened)
        return _grouped((event.user, event) for event in changes)

    @cached_property
    def surely_right(self) -> dict[tuple[str, str], float]:
        """By user and password: since when it was known to be right (until the next change)."""
        right: dict[tuple[str, str], float] = defaultdict(lambda: NEVER)
        for event in self.history:
            if event.outcome is Outcome.YES and event.what is What.CHANGE_PASSWORD:
                key = (event.user, event.new_password)
            elif (event.what is What.REGISTER and event.outcome in {Outcome.YES, Outcome.NO}) or (
                event.outcome is Outcome.YES and event.what is What.SIGN_IN
            ):  # taken: by itself
                key = (event.user, event.password)
            else:
                continue
            right[key] = min(right[key], event.ended)
        return right

    def is_taken_by_nobody(self, event: Event) -> bool:
        """Tell whether a username is said to be taken that nobody has tried to register before."""
        if event.what is not What.REGISTER or event.outcome is not Outcome.NO:
            return False
        earlier = (e for e in self.history if e.what is What.REGISTER and e.user == event.user and e is not event)
        return not any(e.may_have_happened and e.started < event.ended for e in earlier)


# ── the rules ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _revoked_stays_revoked(case: Case) -> Iterator[Violation]:
    for event in case.history:
        if _says_good(event) and case.is_surely_dead(event):
            yield Violation(Rule.REVOKED_STAYS_REVOKED, "good after an acknowledged revocation", event)


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
        if event.outcome is Outcome.STRANGE or case.is_taken_by_nobody(event):
            yield Violation(Rule.MATRIX, "an answer that the matrix does not know", event)
        elif event.outcome is Outcome.UNAVAILABLE and not _excused(event, no_database, stopped):
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


def _surely_ends(change: Event, begun: Event) -> bool:
    """Tell whether an acknowledged change has ended a session, however the two have met."""
    is_before = begun.ended < change.started
    if change.what is not What.CHANGE_PASSWORD:
        return is_before
    # With the old password: committed before the change, and ended by it, or refused after it.
    is_old = is_before or begun.password == change.password
    return is_old and begun.session != change.session and begun.password != change.new_password


def _may_end(change: Event, begun: Event) -> bool:
    is_before = change.outcome is Outcome.YES and change.ended < begun.started
    return not is_before and (change.what is not What.CHANGE_PASSWORD or begun.session != change.session)


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


def _grouped(pairs: Iterable[tuple[str, Event]]) -> dict[str, list[Event]]:
    groups: dict[str, list[Event]] = defaultdict(list)
    for key, event in pairs:
        groups[key].append(event)
    return groups
