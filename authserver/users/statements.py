"""The statements by which guesses are counted, each a decision and a commit (attempts.py says when).

Those of one guess run on both databases. On PostgreSQL those of all guesses of a moment go together: an account that
somebody else works on is left out, for nobody waits there, and its guess is counted alone afterwards.
"""

from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Exists,
    Integer,
    String,
    Table,
    Update,
    Uuid,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert  # SQLite writes ON CONFLICT in the same way
from sqlalchemy.dialects.postgresql.dml import Insert

from authserver.db import UTCDateTime
from authserver.statement import Given, Kinds, Statement, columns, many, one
from authserver.users.models import AccountAttempts, KnownAddress, User

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""What `blocked_until` is without a wait. Not now: another node's clock may be behind."""

_GUESS: Kinds = {"of_key": String, "of_user": Uuid, "of_address": String}
_LOOKED_AT: Kinds = {**_GUESS, "is_known_address": Boolean}
_NOW, _NEVER = bindparam("now", type_=UTCDateTime), literal(NEVER, UTCDateTime)


def less(column: Any, number: Any) -> ColumnElement[int]:
    """Return a counter less a number, never below zero."""
    return case((column > number, column - number), else_=0)


def _is_the_address(given: Given) -> ColumnElement[bool]:
    return and_(
        KnownAddress.user_id == given["of_user"],
        KnownAddress.address == given["of_address"],
        KnownAddress.last_success_at > bindparam("known_since", type_=UTCDateTime),
    )


def _is_known(given: Given, *more: ColumnElement[bool]) -> Exists:
    return select(KnownAddress.address).where(_is_the_address(given), *more).exists()


# ── a guess begins ─────────────────────────────────────────────────────────────────────────────────────────────────

_LIMIT, _STRANGERS_LIMIT = bindparam("limit", type_=Integer), bindparam("strangers_limit", type_=Integer)
_BEGINS_ANEW = and_(
    or_(
        AccountAttempts.failures >= _STRANGERS_LIMIT,
        AccountAttempts.updated_at <= bindparam("rested_since", type_=UTCDateTime),
    ),
    AccountAttempts.blocked_until <= _NOW,
)
# A guess whose outcome was never written (the server died, the database was full) does not count for ever.
_SO_FAR = case(
    (AccountAttempts.updated_at <= bindparam("settled_since", type_=UTCDateTime), AccountAttempts.failures),
    else_=AccountAttempts.attempts,
)


def _begin(given: Given, is_known: ColumnElement[bool], *which: ColumnElement[bool]) -> Insert:
    row = {
        "key": given["of_key"],
        "attempts": literal(1),
        "failures": literal(0),
        "blocked_until": _NEVER,
        "updated_at": _NOW,
    }
    is_blocked_there = _is_known(given, KnownAddress.blocked_until > _NOW)
    guesses = select(*row.values()).where(~is_blocked_there, *which).order_by(given["of_key"])
    return (
        insert(cast("Table", AccountAttempts.__table__))
        .from_select(list(row), guesses, include_defaults=False)
        .on_conflict_do_update(
            index_elements=[AccountAttempts.key],
            set_={
                "attempts": case((_BEGINS_ANEW, 1), else_=_SO_FAR + 1),
                "failures": case((_BEGINS_ANEW, 0), else_=AccountAttempts.failures),
                "updated_at": _NOW,
            },
            where=or_(
                _BEGINS_ANEW,
                and_(is_known, _SO_FAR < _LIMIT),
                and_(~is_known, _SO_FAR < _STRANGERS_LIMIT, AccountAttempts.blocked_until <= _NOW),
            ),
        )
    )


_guess = one(_GUESS)
BEGIN = Statement(_begin(_guess, _is_known(_guess)).returning(_is_known(_guess).label("is_known_address")))
"""Add one to the account's guesses if there is one left; the database decides between all that try at a time."""

_guesses = many(_GUESS, "guesses")
_has_row = select(AccountAttempts.key).where(AccountAttempts.key == _guesses.c.of_key).exists()
_free = (
    select(AccountAttempts.key)
    .join(_guesses, AccountAttempts.key == _guesses.c.of_key)
    .with_for_update(of=AccountAttempts, skip_locked=True)
    .cte("free")
)
_is_known_there = _is_known(columns(_guesses), _guesses.c.of_key == literal_column("account_attempts.key", String))
BEGIN_TOGETHER = Statement(
    _begin(columns(_guesses), _is_known_there, or_(~_has_row, _guesses.c.of_key.in_(select(_free.c.key)))).returning(
        AccountAttempts.key, _is_known_there.label("is_known_address")
    )
)
"""BEGIN for the guesses at some accounts, one at each."""

BLOCKED_UNTIL = Statement(
    select(
        select(KnownAddress.blocked_until).where(_is_the_address(_guess)).scalar_subquery().label("there"),
        select(AccountAttempts.blocked_until)
        .where(AccountAttempts.key == _guess["of_key"])
        .scalar_subquery()
        .label("elsewhere"),
    )
)

# ── it was right ───────────────────────────────────────────────────────────────────────────────────────────────────

_FRESH = {"failures": literal(0), "blocked_until": _NEVER, "last_success_at": _NOW}


def _forgive(given: Given) -> Update:
    # What strangers did stays counted: their guesses do not become free because the owner signs in somewhere else.
    undone = func.coalesce(select(KnownAddress.failures).where(_is_the_address(given)).scalar_subquery(), 0)
    was_known = given["is_known_address"]
    return (
        update(AccountAttempts)
        .where(AccountAttempts.key == given["of_key"])
        .values(
            attempts=case((was_known, less(AccountAttempts.attempts, undone + 1)), else_=0),
            failures=case((was_known, less(AccountAttempts.failures, undone)), else_=0),
            blocked_until=case((was_known, AccountAttempts.blocked_until), else_=_NEVER),
        )
        .execution_options(synchronize_session=False)
    )


def _know(user: ColumnElement[Any], address: ColumnElement[str], *which: ColumnElement[bool]) -> Insert:
    return (
        insert(cast("Table", KnownAddress.__table__))
        .from_select(
            ["user_id", "address", *_FRESH],
            select(user, address, *_FRESH.values()).where(*which).order_by(user, address),
            include_defaults=False,
        )
        .on_conflict_do_update(index_elements=[KnownAddress.user_id, KnownAddress.address], set_=_FRESH)
    )


_right = one(_LOOKED_AT)
# First of all the user's row: an account that is being changed or deleted is waited for, and not in a circle.
_owner = select(User.id).where(User.id == _right["of_user"]).with_for_update(read=True, key_share=True).cte("owner")
_forgiven = _forgive(_right).where(select(_owner.c.id).exists()).returning(AccountAttempts.key)
_known = _know(_owner.c.id, _right["of_address"], _owner.c.id == _right["of_user"]).returning(KnownAddress.address)
FORGIVE, KNOW = Statement(_forgiven), Statement(_known)
SUCCEED = Statement(_forgiven.add_cte(_known.cte("known")))
"""Both at once, on PostgreSQL, where a statement comes to see nothing of what its other half does."""

_rights = many(_LOOKED_AT, "rights")
_owners = (
    select(User.id)
    .join(_rights, User.id == _rights.c.of_user)
    .with_for_update(read=True, key_share=True, of=User, skip_locked=True)
    .cte("owners")
)
_theirs = (
    select(*_rights.c)
    .join(_owners, _owners.c.id == _rights.c.of_user)
    .join(AccountAttempts, AccountAttempts.key == _rights.c.of_key)
    .with_for_update(of=AccountAttempts, skip_locked=True)
    .cte("theirs")
)
SUCCEED_TOGETHER = Statement(
    _forgive(columns(_theirs))
    .returning(AccountAttempts.key)
    .add_cte(_know(_theirs.c.of_user, _theirs.c.of_address).returning(KnownAddress.address).cte("known"))
)
"""SUCCEED for some accounts, each once."""

# ── it was wrong ───────────────────────────────────────────────────────────────────────────────────────────────────

_OWN_LIMIT = bindparam("own_limit", type_=Integer)
_LOCKED_UNTIL = bindparam("locked_until", type_=UTCDateTime)


def _until(failures: ColumnElement[int], limit: ColumnElement[int], waits: int) -> ColumnElement[datetime]:
    """Return until when the next guess must wait; NULL: it need not."""
    beyond = failures - bindparam("free", type_=Integer)
    return case(
        (failures >= limit, _LOCKED_UNTIL),
        *((beyond > wait, bindparam(f"until_{wait}", type_=UTCDateTime)) for wait in reversed(range(waits))),
        else_=None,
    )


def _blame(given: Given, waits: int) -> Update:
    failures = AccountAttempts.failures + 1
    # At an address of the user's own its own waits count, but for the longest one.
    counts = or_(~given["is_known_address"], failures >= _STRANGERS_LIMIT)
    until = case((counts, _until(failures, _STRANGERS_LIMIT, waits)), else_=None)
    return (
        update(AccountAttempts)
        .where(AccountAttempts.key == given["of_key"])
        .values(failures=failures, blocked_until=func.coalesce(until, AccountAttempts.blocked_until))
        .execution_options(synchronize_session=False)
    )


def _blame_there(given: Given, waits: int) -> Update:
    # At the limit only after the longest wait: it begins anew.
    failures = case((KnownAddress.failures >= _OWN_LIMIT, 1), else_=KnownAddress.failures + 1)
    until = _until(failures, _OWN_LIMIT, waits)
    return (
        update(KnownAddress)
        .where(
            given["is_known_address"],
            KnownAddress.user_id == given["of_user"],
            KnownAddress.address == given["of_address"],
        )
        .values(failures=failures, blocked_until=func.coalesce(until, KnownAddress.blocked_until))
        .execution_options(synchronize_session=False)
    )


class Blame:
    """Counts a wrong password, and has the next guess wait for one that was one too many.

    The first one beyond `free` until `until_0`, the second until `until_1` and so on, the one at a limit until
    `locked_until`.
    """

    def __init__(self, waits: int) -> None:
        """Write the statements for so many waits of different lengths."""
        account = _blame(_right, waits).returning(AccountAttempts.key)
        there = _blame_there(_right, waits).returning(KnownAddress.address)
        self.account, self.there = Statement(account), Statement(there)
        self.both = Statement(account.add_cte(there.cte("there")))
        """On PostgreSQL, where a statement comes to see nothing of what its other half does."""

        wrong = many(_LOOKED_AT, "wrong")
        free = (
            select(*wrong.c)
            .join(AccountAttempts, AccountAttempts.key == wrong.c.of_key)
            .with_for_update(of=AccountAttempts, skip_locked=True)
            .cte("free")
        )
        account_of_each = _blame(columns(free), waits).returning(AccountAttempts.key)
        there_of_each = _blame_there(columns(free), waits).returning(KnownAddress.address)
        self.together = Statement(account_of_each.add_cte(there_of_each.cte("there")))
        """`both` for some accounts, each once."""
