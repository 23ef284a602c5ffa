"""No account can be guessed, and no stranger can lock its owner out (NIST SP 800-63B-4 §3.2.2).

A guess is counted *before* the password is looked at, in one statement of the database: however many are tried at a
time, on however many nodes, at most `throttle_account_max_failures` in a row are ever evaluated. A wrong password then
makes the next one wait: nothing for the first `throttle_account_free_failures`, then 1 s, 2 s, 4 s … up to
`throttle_account_max_wait_seconds`, at the maximum `throttle_account_lock_seconds`, after which the count begins anew.

An address from which the user has signed in within 30 days has waits of its own and a fifth of the guesses for itself:
strangers cannot use these up. A name that nobody has is counted like any other, so the answers do not tell.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import clock, opaque, patience
from authserver.db import Database
from authserver.errors import TooManyAttempts
from authserver.gathering import Gathering
from authserver.settings import Settings
from authserver.statement import Row, Statement
from authserver.users import statements
from authserver.users.models import AccountAttempts, KnownAddress
from authserver.users.statements import NEVER, less

KNOWN_FOR = timedelta(days=30)
_SETTLED_AFTER = timedelta(minutes=5)
"""No password waits so long to be hashed."""
_AT_ONCE = 100
"""So many guesses are counted in one transaction."""


@dataclass(frozen=True)
class Attempt:
    """One guess that was let through, to be settled by `failed`, `succeeded` or `taken_back`."""

    key: str
    user_id: UUID | None
    address: str
    is_known_address: bool

    def values(self) -> Row:
        """Return it as the statements take it."""
        return {
            "of_key": self.key,
            "of_user": self.user_id,
            "of_address": self.address,
            "is_known_address": self.is_known_address,
        }


class Attempts:
    """Counts guesses, unless throttling is off: begun before the password is looked at, settled afterwards."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._db = db
        self._is_on = settings.throttle_enabled
        self._limit = settings.throttle_account_max_failures
        # Some are for the user's own addresses only.
        self._own_limit = max(1, self._limit // 5)
        self._strangers_limit = max(1, self._limit - self._own_limit)
        self._free = settings.throttle_account_free_failures
        self._lengths = _lengths(settings.throttle_account_max_wait_seconds)
        self._blame = statements.Blame(len(self._lengths))
        self._lock = timedelta(seconds=settings.throttle_account_lock_seconds)
        self._beginning: Gathering[Row, Row | None] = Gathering(self._begin_together, _AT_ONCE)
        self._succeeding: Gathering[Row, Row | None] = Gathering(self._succeed_together, _AT_ONCE)
        self._failing: Gathering[Row, Row | None] = Gathering(self._fail_together, _AT_ONCE)

    async def begin(self, *, user_id: UUID | None, name: str, address: str) -> Attempt | None:
        """Count a guess at an account, or at a folded name that nobody has; TooManyAttempts if it may not be made.

        `address` comes from throttle.address_key.
        """
        if not self._is_on:
            return None
        key = _key(user_id, name)
        guess = {"of_key": key, "of_user": user_id, "of_address": address}
        counted = None if self._db.is_sqlite else await patience.ask(self._beginning.ask(guess))
        moment = self._moment()
        counted = counted or await self._db.ask(statements.BEGIN, guess | moment)
        if counted is not None:
            return Attempt(key, user_id, address, counted["is_known_address"])
        until = await self._db.ask(statements.BLOCKED_UNTIL, guess | moment)
        assert until
        now = moment["now"]
        blocked_until = until["there"] if until["there"] and until["there"] > now else until["elsewhere"] or now
        raise TooManyAttempts("account", ceil((blocked_until - now).total_seconds()))

    async def failed(self, attempt: Attempt | None) -> None:
        """The password was wrong: make the next one from there wait."""
        if attempt is None:
            return
        wrong, waits = attempt.values(), self._waits()
        if self._db.is_sqlite:
            async with self._db.write() as tx:
                await self._db.ask(self._blame.account, wrong | waits, tx)
                await self._db.ask(self._blame.there, wrong | waits, tx)
        elif await patience.ask(self._failing.ask(wrong)) is None:
            await self._db.ask(self._blame.both, wrong | waits)

    async def succeeded(self, attempt: Attempt | None, tx: AsyncSession | None = None) -> None:
        """The password was right: forget the guesses from there, and know the address from now on.

        In a transaction of its own, or of all that are right at this moment, unless there is one.
        """
        if attempt is None or attempt.user_id is None:
            return
        right, moment = attempt.values(), _since(clock.now())
        if self._db.is_sqlite:
            async with nullcontext(tx) if tx is not None else self._db.write() as own:
                await self._db.ask(statements.FORGIVE, right | moment, own)
                await self._db.ask(statements.KNOW, right | moment, own)
        elif tx is not None or await patience.ask(self._succeeding.ask(right)) is None:
            await self._db.ask(statements.SUCCEED, right | moment, tx)

    async def taken_back(self, attempt: Attempt | None) -> None:
        """The password was not looked at after all: nothing has been guessed."""
        if attempt is None:
            return
        account = update(AccountAttempts).where(AccountAttempts.key == attempt.key)
        async with self._db.write() as tx:
            await tx.execute(account.values(attempts=less(AccountAttempts.attempts, 1)))

    async def _begin_together(self, guesses: Sequence[Row]) -> Sequence[Row | None]:
        return await self._ask_together(statements.BEGIN_TOGETHER, guesses, self._moment())

    async def _succeed_together(self, rights: Sequence[Row]) -> Sequence[Row | None]:
        return await self._ask_together(statements.SUCCEED_TOGETHER, rights, _since(clock.now()))

    async def _fail_together(self, wrong: Sequence[Row]) -> Sequence[Row | None]:
        return await self._ask_together(self._blame.together, wrong, self._waits())

    async def _ask_together(
        self, statement: Statement, guesses: Sequence[Row], moment: Mapping[str, Any]
    ) -> Sequence[Row | None]:
        """Return what the statement says of the first guess at each account; the others are for the caller alone."""
        first: dict[str, int] = {}
        for number, guess in enumerate(guesses):
            first.setdefault(guess["of_key"], number)
        each = {name: [guesses[number][name] for number in first.values()] for name in guesses[0]}
        answers = {first[row["key"]]: row for row in await self._db.ask_all(statement, {**each, **moment})}
        return [answers.get(number) for number in range(len(guesses))]

    def _moment(self) -> dict[str, Any]:
        now = clock.now()
        limits = {"limit": self._limit, "strangers_limit": self._strangers_limit}
        return {**_since(now), **limits, "rested_since": now - self._lock, "settled_since": now - _SETTLED_AFTER}

    def _waits(self) -> dict[str, Any]:
        """Return after how many failures the next guess waits until when."""
        now = clock.now()
        limits = {"free": self._free, "strangers_limit": self._strangers_limit, "own_limit": self._own_limit}
        until = {f"until_{number}": now + wait for number, wait in enumerate(self._lengths)}
        return {**limits, "locked_until": now + self._lock, **until}


async def forget(tx: AsyncSession, user_id: UUID) -> None:
    """Nothing has been guessed yet: the password is a new one."""
    mine = AccountAttempts.key == _key(user_id, "")
    await tx.execute(update(AccountAttempts).where(mine).values(attempts=0, failures=0, blocked_until=NEVER))
    known = KnownAddress.user_id == user_id
    await tx.execute(update(KnownAddress).where(known).values(failures=0, blocked_until=NEVER))


def _lengths(longest: int) -> list[timedelta]:
    """Return how long the waits are after one failure too many, after two …: each is twice the one before it."""
    return [timedelta(seconds=min(2**number, longest)) for number in range((longest - 1).bit_length() + 1)]


def _since(now: datetime) -> dict[str, datetime]:
    return {"now": now, "known_since": now - KNOWN_FOR}


def _key(user_id: UUID | None, name: str) -> str:
    """Return the key of an account, whichever of its names was used, or of a name without one."""
    return opaque.digest((f"name {name}" if user_id is None else f"user {user_id}").encode("utf-8", "surrogatepass"))
