"""No account can be guessed, and no stranger can lock its owner out (NIST SP 800-63B-4 §3.2.2).

A guess is counted *before* the password is looked at, in one statement of the database: however many are tried at a
time, on however many nodes, at most `throttle_account_max_failures` in a row are ever evaluated. A wrong password then
makes the next one wait: nothing for the first `throttle_account_free_failures`, then 1 s, 2 s, 4 s … up to
`throttle_account_max_wait_seconds`, at the maximum `throttle_account_lock_seconds`, after which the count begins anew.

An address from which the user has signed in within 30 days has waits of its own and a fifth of the guesses for itself:
strangers cannot use these up. A name that nobody has is counted like any other, so the answers do not tell.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, case, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import clock, opaque
from authserver.errors import TooManyAttempts
from authserver.settings import Settings
from authserver.users.models import AccountAttempts, KnownAddress

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


async def begin(tx: AsyncSession, settings: Settings, *, user_id: UUID | None, name: str, address: str) -> Attempt:
    """Count a guess at an account, or at a folded name that nobody has; TooManyAttempts if it may not be made.

    `address` comes from throttle.address_key.
    """
    now = clock.now()
    known = await _known(tx, user_id, address, now)
    attempt = Attempt(_key(user_id, name), user_id, address, known is not None)
    if known is not None and known.blocked_until > now:
        raise TooManyAttempts("account", _seconds(known.blocked_until - now))
    if await _count(tx, settings, attempt, now):
        return attempt
    blocked_until = await tx.scalar(select(AccountAttempts.blocked_until).where(AccountAttempts.key == attempt.key))
    raise TooManyAttempts("account", _seconds((blocked_until or now) - now))


async def failed(tx: AsyncSession, settings: Settings, attempt: Attempt | None) -> None:
    """The password was wrong: make the next one from there wait."""
    if attempt is None:
        return
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


async def succeeded(tx: AsyncSession, attempt: Attempt | None) -> None:
    """The password was right: forget the guesses from there, and know the address from now on."""
    if attempt is None or attempt.user_id is None:
        return
    now = clock.now()
    account = update(AccountAttempts).where(AccountAttempts.key == attempt.key)
    if attempt.is_known_address:
        # What strangers did stays counted: their guesses do not become free because the owner signs in somewhere else.
        known = await _known(tx, attempt.user_id, attempt.address, now)
        undone = known.failures if known else 0
        attempts = _less(AccountAttempts.attempts, undone + 1)
        await tx.execute(account.values(attempts=attempts, failures=_less(AccountAttempts.failures, undone)))
    else:
        await tx.execute(account.values(attempts=0, failures=0, blocked_until=_NEVER))
    fresh = {"failures": 0, "blocked_until": _NEVER, "last_success_at": now}
    await tx.execute(
        _insert(tx)(KnownAddress)
        .values(user_id=attempt.user_id, address=attempt.address, **fresh)
        .on_conflict_do_update(index_elements=[KnownAddress.user_id, KnownAddress.address], set_=fresh)
    )


async def taken_back(tx: AsyncSession, attempt: Attempt | None) -> None:
    """The password was not looked at after all: nothing has been guessed."""
    if attempt is not None:
        account = update(AccountAttempts).where(AccountAttempts.key == attempt.key)
        await tx.execute(account.values(attempts=_less(AccountAttempts.attempts, 1)))


async def forget(tx: AsyncSession, user_id: UUID) -> None:
    """Nothing has been guessed yet: the password is a new one."""
    mine = AccountAttempts.key == _key(user_id, "")
    await tx.execute(update(AccountAttempts).where(mine).values(attempts=0, failures=0, blocked_until=_NEVER))
    known = KnownAddress.user_id == user_id
    await tx.execute(update(KnownAddress).where(known).values(failures=0, blocked_until=_NEVER))


async def _known(tx: AsyncSession, user_id: UUID | None, address: str, now: datetime) -> KnownAddress | None:
    """Return the row of an address that is the user's own; asks for nobody's too, which takes as long."""
    query = select(KnownAddress).where(
        KnownAddress.user_id == user_id,
        KnownAddress.address == address,
        KnownAddress.last_success_at > now - KNOWN_FOR,
    )
    return (await tx.scalars(query)).one_or_none()


async def _count(tx: AsyncSession, settings: Settings, attempt: Attempt, now: datetime) -> bool:
    """Add one to the account's guesses if there is one left; the database decides between all that try at a time."""
    row = AccountAttempts
    strangers_limit = _strangers_limit(settings)
    has_rested = or_(row.failures >= strangers_limit, row.updated_at <= now - _lock(settings))
    begins_anew = has_rested & (row.blocked_until <= now)
    # A guess whose outcome was never written (the server died, the database was full) does not count for ever.
    so_far = case((row.updated_at <= now - _SETTLED_AFTER, row.failures), else_=row.attempts)
    if attempt.is_known_address:
        may_try = so_far < settings.throttle_account_max_failures
    else:
        may_try = (so_far < strangers_limit) & (row.blocked_until <= now)
    statement = (
        _insert(tx)(row)
        .values(key=attempt.key, attempts=1, failures=0, blocked_until=_NEVER, updated_at=now)
        .on_conflict_do_update(
            index_elements=[row.key],
            set_={
                "attempts": case((begins_anew, 1), else_=so_far + 1),
                "failures": case((begins_anew, 0), else_=row.failures),
                "updated_at": now,
            },
            where=or_(begins_anew, may_try),
        )
        .returning(row.key)
    )
    return await tx.scalar(statement) is not None


def _insert(tx: AsyncSession) -> Any:
    """Return the INSERT that knows ON CONFLICT: one for each database, alike in use."""
    return sqlite_insert if tx.get_bind().dialect.name == "sqlite" else postgresql_insert


def _key(user_id: UUID | None, name: str) -> str:
    """Return the key of an account, whichever of its names was used, or of a name without one."""
    return opaque.digest((f"name {name}" if user_id is None else f"user {user_id}").encode("utf-8", "surrogatepass"))


def _strangers_limit(settings: Settings) -> int:
    """Return how many of the guesses anybody can make; the others only the user's own addresses."""
    limit = settings.throttle_account_max_failures
    return limit - min(limit - 1, max(1, limit // 5))


def _less(column: Any, number: int) -> ColumnElement[int]:
    return case((column > number, column - number), else_=0)


def _wait(settings: Settings, failures: int, limit: int) -> timedelta:
    if failures >= limit:
        return _lock(settings)
    beyond = failures - settings.throttle_account_free_failures
    if beyond <= 0:
        return timedelta(0)
    return timedelta(seconds=min(2 ** (beyond - 1), settings.throttle_account_max_wait_seconds))


def _lock(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.throttle_account_lock_seconds)


def _seconds(wait: timedelta) -> int:
    return ceil(wait.total_seconds())
