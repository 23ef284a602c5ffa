"""What follows from a history: what has surely ended, what may have ended, and who may have done it.

A request whose outcome is unknown (503, no answer) may have happened or not, at any time after it was sent. So what
must have happened counts from the *end* of an acknowledged request, what may have happened from the *start* of any.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tests.laboratory.history import Event, Outcome, Terms, What

NEVER = float("inf")
BY_TOKEN = frozenset({What.USERINFO, What.ME, What.CHANGE_PASSWORD, What.SIGN_OUT, What.SIGN_OUT_EVERYWHERE,
                      What.DELETE_ACCOUNT})  # fmt: skip
"""Asked for with an access token in the header."""
ENDS_ALL = frozenset({What.SIGN_OUT_EVERYWHERE, What.DELETE_ACCOUNT, What.CHANGE_PASSWORD})
"""Ends sessions of a user: all, or all but the one it was asked from."""
WRONG_PASSWORD = "wrong-password"


@dataclass
class Case:
    """A history, and what follows from it."""

    history: Sequence[Event]
    terms: Terms

    # ── what has ended, surely or maybe ────────────────────────────────────────────────────────────────────────────

    @cached_property
    def enders(self) -> dict[str, Event]:
        """By access token and by session: the first acknowledgement that it is dead."""
        enders: dict[str, Event] = {}

        def end(subject: str, by: Event) -> None:
            if subject not in enders or by.ended < enders[subject].ended:
                enders[subject] = by

        for event in self.history:
            if event.outcome is Outcome.YES and event.what is What.REVOKE_ACCESS:
                end(event.token, event)
            is_end = event.what in {What.REVOKE_REFRESH, What.SIGN_OUT} and event.outcome is Outcome.YES
            # A genuine token of the right client is refused only if its session is over; reuse ends it just then.
            if is_end or (event.what is What.REFRESH and event.outcome is Outcome.NO):
                end(event.session, event)
            if event.what in ENDS_ALL and event.outcome is Outcome.YES:
                for begun in self.sign_ins.get(event.user, []):
                    if _surely_ends(event, begun):
                        end(begun.session, event)
        return enders

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
                for begun in self.sign_ins.get(event.user, []):
                    if _may_end(event, begun):
                        dead[begun.session] = min(dead[begun.session], event.started)
        return dead

    def ended_by(self, event: Event) -> Event | None:
        """Return who had ended the token in question, with an acknowledgement, before the request was sent."""
        enders = (self.enders.get(subject) for subject in (event.token, event.session))
        return next((ender for ender in enders if ender and ender.ended < event.started), None)

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
            is_done = event.outcome is Outcome.YES
            is_taken = event.what is What.REGISTER and event.outcome is Outcome.NO  # by an earlier try of the same
            if is_taken or (is_done and event.what in {What.REGISTER, What.SIGN_IN}):
                right[event.user, event.password] = min(right[event.user, event.password], event.ended)
            elif is_done and event.what is What.CHANGE_PASSWORD:
                right[event.user, event.new_password] = min(right[event.user, event.new_password], event.ended)
        return right

    def is_taken_by_nobody(self, event: Event) -> bool:
        """Tell whether a username is said to be taken that nobody has tried to register before."""
        if event.what is not What.REGISTER or event.outcome is not Outcome.NO:
            return False
        earlier = (e for e in self.history if e.what is What.REGISTER and e.user == event.user and e is not event)
        return not any(e.may_have_happened and e.started < event.ended for e in earlier)


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


def _grouped(pairs: Iterable[tuple[str, Event]]) -> dict[str, list[Event]]:
    groups: dict[str, list[Event]] = defaultdict(list)
    for key, event in pairs:
        groups[key].append(event)
    return groups
