"""The laboratory's judge, on histories written by hand: it accuses what is wrong, and nothing that may be right."""

from dataclasses import replace
from typing import Any

import pytest

from tests.laboratory.checker import Rule, judge
from tests.laboratory.history import Event, Outcome, Period, Terms, What

YES, NO, UNAVAILABLE, SILENCE, STRANGE = Outcome


def event(what: What, at: float, until: float | None = None, outcome: Outcome = YES, **about: Any) -> Event:
    """Return a request that was sent `at` and answered a tenth of a second later, unless `until` says otherwise."""
    return Event(what, about.pop("node", "A"), at, at + 0.1 if until is None else until, outcome, user="ada", **about)


def sign_in(at: float, session: str = "s", password: str = "old", outcome: Outcome = YES, **about: Any) -> Event:
    return event(What.SIGN_IN, at, outcome=outcome, session=session, password=password, **about)


def introspect(at: float, outcome: Outcome, token: str = "t", session: str = "s", **about: Any) -> Event:
    return event(What.INTROSPECT, at, outcome=outcome, token=token, session=session, **about)


def revoke(at: float, until: float | None = None, outcome: Outcome = YES) -> Event:
    return event(What.REVOKE_ACCESS, at, until, outcome, token="t", session="s")


def end_session(at: float, until: float | None = None, outcome: Outcome = YES) -> Event:
    return event(What.REVOKE_REFRESH, at, until, outcome, token="r0", session="s")


def refresh(
    at: float, token: str, outcome: Outcome = YES, gave: str = "", until: float | None = None, session: str = "s"
) -> Event:
    return event(What.REFRESH, at, until, outcome, token=token, session=session, new_refresh=gave, new_access=gave)


def change_password(at: float, outcome: Outcome = YES, session: str = "other", **about: Any) -> Event:
    about = {"password": "old", "new_password": "new"} | about
    return event(What.CHANGE_PASSWORD, at, outcome=outcome, session=session, token="c", **about)


def broken(*history: Event, **terms: Any) -> set[Rule]:
    return {violation.rule for violation in judge(history, Terms(**terms))}


# ── revoked stays revoked ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_good_answer_after_an_acknowledged_revocation_is_a_violation() -> None:
    assert broken(revoke(1, 2), introspect(2.1, YES)) == {Rule.REVOKED_STAYS_REVOKED}


def test_a_good_answer_that_began_before_the_revocation_was_acknowledged_is_none() -> None:
    assert broken(revoke(1, 2), introspect(1.9, YES, until=3)) == set()


@pytest.mark.parametrize("outcome", [UNAVAILABLE, SILENCE])
def test_a_revocation_of_unknown_outcome_allows_either_answer(outcome: Outcome) -> None:
    excused = {"without_database": {"A": Period(0, 9)}, "stopped": {"A": Period(0, 9)}}
    assert broken(revoke(1, outcome=outcome), introspect(2, YES), **excused) == set()
    assert broken(revoke(1, outcome=outcome), introspect(2, NO), **excused) == set()


def test_a_revoked_refresh_token_takes_its_access_tokens_with_it() -> None:
    assert broken(end_session(1), introspect(2, YES, token="any")) == {Rule.REVOKED_STAYS_REVOKED}


def test_a_refresh_after_an_acknowledged_revocation_is_a_violation() -> None:
    assert broken(end_session(1), refresh(2, "r0", gave="r1")) == {Rule.REVOKED_STAYS_REVOKED}


@pytest.mark.parametrize("what", [What.USERINFO, What.ME, What.SIGN_OUT])
def test_a_request_that_is_let_in_with_a_revoked_token_is_a_violation(what: What) -> None:
    assert broken(revoke(1), event(what, 2, token="t", session="s")) == {Rule.REVOKED_STAYS_REVOKED}


def test_a_wrong_password_is_only_found_with_a_good_token() -> None:
    refused = change_password(2, NO, session="s", said="wrong-password")
    assert broken(end_session(1), refused) == {Rule.REVOKED_STAYS_REVOKED}


def test_a_password_change_ends_all_sessions_but_its_own() -> None:
    history = [sign_in(1, "s"), sign_in(1, "own"), change_password(2, session="own")]
    assert broken(*history, introspect(3, YES, session="own")) == set()
    assert broken(*history, introspect(3, YES, session="s")) == {Rule.REVOKED_STAYS_REVOKED}


def test_a_sign_in_with_the_old_password_that_meets_its_change_is_dead_after_it() -> None:
    meets = event(What.SIGN_IN, 1.9, 3, session="s", password="old")
    assert broken(meets, change_password(2), introspect(4, YES)) == {Rule.REVOKED_STAYS_REVOKED}


def test_a_sign_in_that_meets_a_sign_out_everywhere_may_come_after_it() -> None:
    everywhere = event(What.SIGN_OUT_EVERYWHERE, 2, 2.5, token="c", session="other")
    meets = event(What.SIGN_IN, 1.9, 3, session="s", password="old")
    assert broken(meets, everywhere, introspect(4, YES)) == set()
    assert broken(meets, everywhere, introspect(4, NO)) == set()
    assert broken(sign_in(1), everywhere, introspect(4, YES)) == {Rule.REVOKED_STAYS_REVOKED}


def test_what_was_signed_in_later_is_not_ended_by_an_earlier_change() -> None:
    later = sign_in(5, password="new")
    assert broken(change_password(1), later, introspect(6, YES)) == set()
    assert broken(change_password(1), later, introspect(6, NO)) == {Rule.NO_FALSE_DEATH}


# ── no flip-flop, no false death ───────────────────────────────────────────────────────────────────────────────────


def test_a_token_that_was_said_to_be_dead_may_not_be_good_again() -> None:
    revoking = revoke(1, 9, UNAVAILABLE)
    excused = {"without_database": {"A": Period(0, 9)}, "lag_seconds": 9}
    assert broken(revoking, introspect(2, NO), introspect(3, YES), **excused) == {Rule.NO_FLIP_FLOP}
    assert broken(revoking, introspect(2, NO), introspect(2.05, YES), **excused) == set()


def test_a_token_that_nobody_ended_may_not_be_dead() -> None:
    assert broken(introspect(1, NO)) == {Rule.NO_FALSE_DEATH}
    assert broken(event(What.ME, 1, outcome=NO, token="t", session="s", said="unauthenticated")) == {
        Rule.NO_FALSE_DEATH
    }


def test_a_token_may_be_dead_as_soon_as_its_revocation_was_sent() -> None:
    assert broken(revoke(1, 2), introspect(1.5, NO)) == set()
    assert broken(revoke(1.5), introspect(1, NO, until=2)) == set()
    assert broken(revoke(2), introspect(1, NO)) == {Rule.NO_FALSE_DEATH}


def test_with_clocks_apart_only_what_needs_no_date_is_judged() -> None:
    assert broken(introspect(1, NO), introspect(2, YES), do_clocks_agree=False) == set()
    assert broken(revoke(1), introspect(2, YES), do_clocks_agree=False) == {Rule.REVOKED_STAYS_REVOKED}


# ── refresh tokens ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_retry_gets_the_same_successor() -> None:
    assert broken(refresh(1, "r0", gave="r1"), refresh(2, "r0", gave="r1")) == set()
    assert broken(refresh(1, "r0", gave="r1"), refresh(1, "r0", gave="x")) == {Rule.ONE_SUCCESSOR}


def test_a_retry_in_time_may_not_be_refused() -> None:
    assert broken(refresh(1, "r0", gave="r1"), refresh(2, "r0", NO)) == {Rule.NO_FALSE_DEATH}
    assert broken(refresh(1, "r0", gave="r1"), refresh(12, "r0", NO)) == set()


def test_a_retry_that_is_too_late_may_not_be_answered() -> None:
    assert broken(refresh(1, "r0", gave="r1"), refresh(12, "r0", gave="r1")) == {Rule.ONE_SUCCESSOR}


def test_an_attempt_of_unknown_outcome_may_have_spent_the_token() -> None:
    lost = refresh(1, "r0", SILENCE)
    excused = {"stopped": {"A": Period(0, 2)}}
    assert broken(lost, refresh(3, "r0", gave="r1"), **excused) == set()
    assert broken(lost, refresh(3, "r0", NO), **excused) == {Rule.NO_FALSE_DEATH}
    assert broken(lost, refresh(12, "r0", NO), **excused) == set()


def test_a_token_whose_successor_is_spent_ends_the_session() -> None:
    spent = [refresh(1, "r0", gave="r1"), refresh(2, "r1", gave="r2")]
    assert broken(*spent, refresh(3, "r0", gave="r1")) == {Rule.ONE_SUCCESSOR}
    assert broken(*spent, refresh(3, "r0", NO), introspect(4, NO)) == set()
    assert broken(*spent, refresh(3, "r0", NO), introspect(4, YES)) == {Rule.REVOKED_STAYS_REVOKED}


def test_a_spent_refresh_token_is_not_said_to_be_good() -> None:
    spent = refresh(1, "r0", gave="r1")
    look = event(What.INTROSPECT_REFRESH, 2, token="r0", session="s")
    assert broken(spent, look) == {Rule.ONE_SUCCESSOR}
    assert broken(spent, replace(look, outcome=NO)) == set()
    assert broken(replace(look, outcome=NO)) == {Rule.NO_FALSE_DEATH}


# ── nothing acknowledged is lost ───────────────────────────────────────────────────────────────────────────────────


def test_who_has_registered_can_sign_in() -> None:
    registered = event(What.REGISTER, 1, password="old")
    assert broken(registered, sign_in(2)) == set()
    assert broken(registered, sign_in(2, outcome=NO)) == {Rule.NOTHING_LOST}


def test_a_registration_that_was_not_acknowledged_may_be_lost() -> None:
    excused = {"without_database": {"A": Period(0, 9)}}
    assert (
        broken(event(What.REGISTER, 1, outcome=UNAVAILABLE, password="old"), sign_in(2, outcome=NO), **excused) == set()
    )


def test_a_username_is_taken_only_by_somebody() -> None:
    taken = event(What.REGISTER, 2, outcome=NO, said="username-taken", password="old")
    excused = {"without_database": {"A": Period(0, 9)}}
    assert broken(taken) == {Rule.MATRIX}
    assert broken(event(What.REGISTER, 1, outcome=UNAVAILABLE, password="old"), taken, **excused) == set()


def test_a_password_change_holds() -> None:
    changed = [event(What.REGISTER, 0, password="old"), change_password(1)]
    assert broken(*changed, sign_in(2, password="new"), sign_in(3, password="old", outcome=NO)) == set()
    assert broken(*changed, sign_in(2, password="old")) == {Rule.NOTHING_LOST}
    assert broken(*changed, sign_in(2, password="new", outcome=NO)) == {Rule.NOTHING_LOST}


def test_a_password_change_of_unknown_outcome_allows_either_password() -> None:
    excused = {"without_database": {"A": Period(0, 9)}}
    changed = [event(What.REGISTER, 0, password="old"), change_password(1, UNAVAILABLE)]
    for old, new in ((YES, NO), (NO, YES)):
        tried = [sign_in(2, password="old", outcome=old), sign_in(3, "s2", password="new", outcome=new)]
        assert broken(*changed, *tried, **excused) == set()


def test_a_deleted_account_signs_nobody_in() -> None:
    deleted = event(What.DELETE_ACCOUNT, 1, token="c", session="other")
    assert broken(deleted, sign_in(2)) == {Rule.NOTHING_LOST}
    assert broken(deleted, sign_in(2, outcome=NO)) == set()


# ── the answers of the matrix, in time ─────────────────────────────────────────────────────────────────────────────


def test_a_503_needs_a_database_that_is_not_there() -> None:
    unavailable = introspect(5, UNAVAILABLE)
    assert broken(unavailable) == {Rule.MATRIX}
    assert broken(unavailable, without_database={"B": Period(4, 6)}) == {Rule.MATRIX}
    assert broken(unavailable, without_database={"A": Period(4, 6)}) == set()
    assert broken(unavailable, without_database={"A": Period(6, 7)}) == {Rule.MATRIX}


def test_a_503_after_a_wait_needs_somebody_who_holds_a_lock() -> None:
    locked_out = {"A": Period(4, 9)}
    assert broken(introspect(5, UNAVAILABLE, until=6), locked_out=locked_out) == set()
    assert broken(introspect(5, UNAVAILABLE), locked_out=locked_out) == {Rule.MATRIX}


def test_no_answer_needs_a_node_that_stands_still() -> None:
    assert broken(introspect(5, SILENCE)) == {Rule.MATRIX}
    assert broken(introspect(5, SILENCE), stopped={"A": Period(4, 6)}) == set()


def test_an_answer_that_the_matrix_does_not_know_is_a_violation() -> None:
    excused = {"A": Period(0, 9)}
    assert broken(introspect(5, STRANGE), without_database=excused, stopped=excused) == {Rule.MATRIX}


def test_an_answer_takes_two_seconds_at_most() -> None:
    late = introspect(1, YES, until=3.2)
    assert broken(late) == {Rule.IN_TIME}
    assert broken(late, lag_seconds=0.3) == set()
    assert broken(late, stopped={"A": Period(0, 2)}) == set()
