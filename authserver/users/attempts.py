"""No account can be guessed, and no stranger can lock its owner out (NIST SP 800-63B-4 §3.2.2).

A guess is counted *before* the password is looked at, in one statement of the database: however many are tried at a
time, on however many nodes, at most `throttle_account_max_failures` in a row are ever evaluated. A wrong password then
makes the next one wait: nothing for the first `throttle_account_free_failures`, then 1 s, 2 s, 4 s … up to
`throttle_account_max_wait_seconds`, at the maximum `throttle_account_lock_seconds`, after which the count begins anew.

An address from which the user has signed in within 30 days has waits of its own and a fifth of the guesses for itself:
strangers cannot use these up. A name that nobody has is counted like any other, so the answers do not tell.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    String,
    Table,
    Uuid,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert  # SQLite writes ON CONFLICT in the same way
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import clock, opaque
from authserver.db import Database, UTCDateTime
from authserver.errors import TooManyAttempts
from authserver.settings import Settings
from authserver.statement import Statement
from authserver.users.models import AccountAttempts, KnownAddress, User

KNOWN_FOR = timedelta(days=30)
_SETTLED_AFTER = timedelta(minutes=5)
"""No password waits so long to be hashed."""
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""What `blocked_until` is without a wait. Not now: another node's clock may be behind."""


@dataclass(frozen=True)
class Attempt:
    """One guess that was let through, to be settled by `failed`, `succeeded` or `taken_back`."""

    key: str
    user_id: UUID | None
    address: str
    is_known_address: bool


def _less(column: Any, number: Any) -> ColumnElement[int]:
    return case((column > number, column - number), else_=0)


_KEY = bindparam("of_key", type_=String)
_USER, _ADDRESS = bindparam("of_user", type_=Uuid), bindparam("of_address", type_=String)
_NOW, _NEVER_BLOCKED = bindparam("now", type_=UTCDateTime), literal(_NEVER, UTCDateTime)
_IS_THE_ADDRESS = and_(
    KnownAddress.user_id == _USER,
    KnownAddress.address == _ADDRESS,
    KnownAddress.last_success_at > bindparam("known_since", type_=UTCDateTime),
)
_IS_KNOWN = select(KnownAddress.address).where(_IS_THE_ADDRESS).exists()
_IS_BLOCKED_THERE = select(KnownAddress.address).where(_IS_THE_ADDRESS, KnownAddress.blocked_until > _NOW).exists()

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
_BEGIN = Statement(
    insert(cast("Table", AccountAttempts.__table__))
    .from_select(
        ["key", "attempts", "failures", "blocked_until", "updated_at"],
        select(_KEY, literal(1), literal(0), _NEVER_BLOCKED, _NOW).where(~_IS_BLOCKED_THERE),
        include_defaults=False,
    )
    .on_conflict_do_update(
        index_elements=[AccountAttempts.key],
        set_={
            "attempts": case((_BEGINS_ANEW, 1), else_=_SO_FAR + 1),
            "failures": case((_BEGINS_ANEW, 0), else_=AccountAttempts.failures),
            "updated_at": _NOW,
        },
        where=or_(
            _BEGINS_ANEW,
            and_(_IS_KNOWN, _SO_FAR < _LIMIT),
            and_(~_IS_KNOWN, _SO_FAR < _STRANGERS_LIMIT, AccountAttempts.blocked_until <= _NOW),
        ),
    )
    .returning(_IS_KNOWN.label("is_known_address"))
)
"""Add one to the account's guesses if there is one left; the database decides between all that try at a time."""
_BLOCKED_UNTIL = Statement(
    select(
        select(KnownAddress.blocked_until).where(_IS_THE_ADDRESS).scalar_subquery().label("there"),
        select(AccountAttempts.blocked_until).where(AccountAttempts.key == _KEY).scalar_subquery().label("elsewhere"),
    )
)

_WAS_KNOWN = bindparam("is_known_address", type_=Boolean)
# What strangers did stays counted: their guesses do not become free because the owner signs in somewhere else.
_UNDONE = func.coalesce(select(KnownAddress.failures).where(_IS_THE_ADDRESS).scalar_subquery(), 0)
# First of all the user's row: an account that is being changed or deleted is waited for, and not in a circle.
_owner = select(User.id).where(User.id == _USER).with_for_update(read=True, key_share=True).cte("owner")
_forgive = (
    update(AccountAttempts)
    .where(AccountAttempts.key == _KEY, select(_owner.c.id).exists())
    .values(
        attempts=case((_WAS_KNOWN, _less(AccountAttempts.attempts, _UNDONE + 1)), else_=0),
        failures=case((_WAS_KNOWN, _less(AccountAttempts.failures, _UNDONE)), else_=0),
        blocked_until=case((_WAS_KNOWN, AccountAttempts.blocked_until), else_=_NEVER_BLOCKED),
    )
    .returning(AccountAttempts.key)
    .execution_options(synchronize_session=False)
)
_fresh = {"failures": 0, "blocked_until": _NEVER_BLOCKED, "last_success_at": _NOW}
_know = (
    insert(cast("Table", KnownAddress.__table__))
    .from_select(
        ["user_id", "address", *_fresh],
        select(_owner.c.id, _ADDRESS, *_fresh.values()).where(_owner.c.id == _USER),
        include_defaults=False,
    )
    .on_conflict_do_update(index_elements=[KnownAddress.user_id, KnownAddress.address], set_=_fresh)
    .returning(KnownAddress.address)
)
_FORGIVE, _KNOW = Statement(_forgive), Statement(_know)
_SUCCEED = Statement(_forgive.add_cte(_know.cte("known")))
"""Both at once, on PostgreSQL, where a statement comes to see nothing of what its other half does."""


async def begin(db: Database, settings: Settings, *, user_id: UUID | None, name: str, address: str) -> Attempt:
    """Count a guess at an account, or at a folded name that nobody has; TooManyAttempts if it may not be made.

    `address` comes from throttle.address_key.
    """
    now, key = clock.now(), _key(user_id, name)
    asked = {"of_key": key, **_at(user_id, address, now)}
    limits = {
        "limit": settings.throttle_account_max_failures,
        "strangers_limit": _strangers_limit(settings),
        "rested_since": now - _lock(settings),
        "settled_since": now - _SETTLED_AFTER,
    }
    counted = await db.ask(_BEGIN, asked | limits)
    if counted is not None:
        return Attempt(key, user_id, address, counted["is_known_address"])
    until = await db.ask(_BLOCKED_UNTIL, asked)
    assert until
    blocked_until = until["there"] if until["there"] and until["there"] > now else until["elsewhere"] or now
    raise TooManyAttempts("account", ceil((blocked_until - now).total_seconds()))


async def failed(tx: AsyncSession, settings: Settings, attempt: Attempt) -> None:
    """The password was wrong: make the next one from there wait."""
    now = clock.now()
    account = update(AccountAttempts).where(AccountAttempts.key == attempt.key)
    failures = await tx.scalar(
        account.values(failures=AccountAttempts.failures + 1).returning(AccountAttempts.failures)
    )
    strangers_limit = _strangers_limit(settings)
    wait = _wait(settings, failures or 0, strangers_limit)
    if attempt.is_known_address:
        address = update(KnownAddress).where(
            KnownAddress.user_id == attempt.user_id, KnownAddress.address == attempt.address
        )
        limit = max(1, settings.throttle_account_max_failures - strangers_limit)
        # At the limit only after the longest wait: it begins anew.
        counted = case((KnownAddress.failures >= limit, 1), else_=KnownAddress.failures + 1)
        from_there = await tx.scalar(address.values(failures=counted).returning(KnownAddress.failures))
        if own_wait := _wait(settings, from_there or 0, limit):
            await tx.execute(address.values(blocked_until=now + own_wait))
    if wait and (not attempt.is_known_address or wait == _lock(settings)):
        await tx.execute(account.values(blocked_until=now + wait))


async def succeeded(db: Database, attempt: Attempt | None, tx: AsyncSession | None = None) -> None:
    """The password was right: forget the guesses from there, and know the address from now on.

    In a transaction of its own unless there is one.
    """
    if attempt is None or attempt.user_id is None:
        return
    values = {"of_key": attempt.key, "is_known_address": attempt.is_known_address}
    values |= _at(attempt.user_id, attempt.address, clock.now())
    if not db.is_sqlite:
        await db.ask(_SUCCEED, values, tx)
        return
    async with nullcontext(tx) if tx is not None else db.write() as own:
        await db.ask(_FORGIVE, values, own)
        await db.ask(_KNOW, values, own)


async def taken_back(tx: AsyncSession, attempt: Attempt) -> None:
    """The password was not looked at after all: nothing has been guessed."""
    account = update(AccountAttempts).where(AccountAttempts.key == attempt.key)
    await tx.execute(account.values(attempts=_less(AccountAttempts.attempts, 1)))


async def forget(tx: AsyncSession, user_id: UUID) -> None:
    """Nothing has been guessed yet: the password is a new one."""
    mine = AccountAttempts.key == _key(user_id, "")
    await tx.execute(update(AccountAttempts).where(mine).values(attempts=0, failures=0, blocked_until=_NEVER))
    known = KnownAddress.user_id == user_id
    await tx.execute(update(KnownAddress).where(known).values(failures=0, blocked_until=_NEVER))


def _at(user_id: UUID | None, address: str, now: datetime) -> dict[str, Any]:
    return {"of_user": user_id, "of_address": address, "now": now, "known_since": now - KNOWN_FOR}


def _key(user_id: UUID | None, name: str) -> str:
    """Return the key of an account, whichever of its names was used, or of a name without one."""
    return opaque.digest((f"name {name}" if user_id is None else f"user {user_id}").encode("utf-8", "surrogatepass"))


def _strangers_limit(settings: Settings) -> int:
    """Return how many of the guesses anybody can make; the others only the user's own addresses."""
    limit = settings.throttle_account_max_failures
    return limit - min(limit - 1, max(1, limit // 5))


def _wait(settings: Settings, failures: int, limit: int) -> timedelta:
    if failures >= limit:
        return _lock(settings)
    beyond = failures - settings.throttle_account_free_failures
    if beyond <= 0:
        return timedelta(0)
    return timedelta(seconds=min(2 ** (beyond - 1), settings.throttle_account_max_wait_seconds))


def _lock(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.throttle_account_lock_seconds)
