"""Is this the user's password? Nobody by that name, disabled, wrong: one answer, in one time."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import text
from authserver.db import Database
from authserver.errors import Busy
from authserver.settings import Settings
from authserver.throttle import PASSWORDS_BY_ADDRESS, PASSWORDS_BY_CLIENT, Throttle, address_key
from authserver.users import finding
from authserver.users.attempts import Attempt, Attempts
from authserver.users.finding import Users
from authserver.users.models import User
from authserver.users.passwords import Hasher

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VerifiedPassword:
    """Who has given the right password. It counts if nothing has changed meanwhile: `admit` and sessions.start look."""

    user_id: UUID
    username: str
    generation: int
    """The user's, when the password was verified."""
    new_hash: str | None
    """The same password under today's parameters, if it was stored under others."""
    attempt: Attempt | None
    """None: guesses are not counted."""


class Authentication:
    """Verifies passwords, and admits those who gave them to what they are for."""

    def __init__(self, settings: Settings, db: Database, users: Users, hasher: Hasher, throttle: Throttle) -> None:
        self._db = db
        self._users = users
        self._hasher = hasher
        self._throttle = throttle
        self._attempts = Attempts(settings, db)

    async def verify_password(
        self, *, identifier: str, password: str, ip: str | None, client_id: str | None
    ) -> VerifiedPassword | None:
        """Return who it is, by username or e-mail address and password; None for everything that is not right.

        `client_id`: who passed it on, and is counted too; None at our own pages, where that would be everybody
        together. Raises TooManyAttempts before anything is hashed, Busy when too many hashes wait, StoreUnavailable.
        """
        guessers = {PASSWORDS_BY_ADDRESS: address_key(ip)}
        if client_id is not None:
            guessers[PASSWORDS_BY_CLIENT] = client_id
        return await self._verify(identifier, password, guessers)

    async def confirm_password(self, *, user_id: UUID, password: str, ip: str | None) -> VerifiedPassword | None:
        """Have a user who is signed in prove it again; guesses count as they do at sign-in."""
        return await self._verify(user_id, password, {PASSWORDS_BY_ADDRESS: address_key(ip)})

    async def admit(self, tx: AsyncSession, verified: VerifiedPassword, *, to_write: bool = False) -> bool:
        """Tell whether the verified password still is the user's, in the transaction that starts what it is for.

        The user's row stays locked until its end, so a password change or a disabling comes before it, and is seen, or
        after it, and ends the new session too (docs/reliability.md). `to_write`: the transaction will write the row.
        """
        query = select(User.generation, User.is_active).where(User.id == verified.user_id)
        # Shared, so that people may sign in many times at once; not by those who will write the row.
        to_write = to_write or verified.new_hash is not None
        query = query.with_for_update(read=not to_write, key_share=to_write)
        user = (await tx.execute(query)).one_or_none()
        if user is None or not user.is_active or user.generation != verified.generation:
            return False
        await self.settle(verified, tx)
        return True

    async def settle(self, verified: VerifiedPassword, tx: AsyncSession | None = None) -> None:
        """Write down that the password was right: forget the guesses before it, renew its hash if it must be.

        Each in a transaction of its own unless there is one.
        """
        if verified.new_hash is not None:
            is_same = (User.id == verified.user_id) & (User.generation == verified.generation)
            change = update(User).where(is_same)
            async with nullcontext(tx) if tx is not None else self._db.write() as own:
                await own.execute(change.values(hashed_password=verified.new_hash, updated_at=User.updated_at))
        await self._attempts.succeeded(verified.attempt, tx)

    async def _verify(self, who: UUID | str, password: str, guessers: Mapping[str, str]) -> VerifiedPassword | None:
        """Verify unless one of `guessers` (for each kind of throttle.py its key) was wrong too often; count who is."""
        await self._throttle.check_all(guessers)
        verified = await self._compare(who, password, guessers[PASSWORDS_BY_ADDRESS])
        if verified is None:
            for kind, key in guessers.items():
                await self._throttle.count(kind, key)
        return verified

    async def _compare(self, who: UUID | str, password: str, address: str) -> VerifiedPassword | None:
        self._hasher.check_room()
        user = await (finding.by_id(self._db, who) if isinstance(who, UUID) else self._users.by_name(who))
        attempt = await self._attempts.begin(
            user_id=user.id if user else None, name=text.fold(str(who)), address=address
        )
        try:  # no connection is held while hashing
            is_right = await self._hasher.verify(user.hashed_password if user else None, password)
        except Busy:
            await self._attempts.taken_back(attempt)
            raise
        if user is None or not is_right or not user.is_active:
            await self._attempts.failed(attempt)
            return None
        new_hash = await self._rehashed(user.hashed_password, password)
        return VerifiedPassword(user.id, user.username, user.generation, new_hash, attempt)

    async def _rehashed(self, hashed: str, password: str) -> str | None:
        """Return the password under today's parameters if that is to be stored; another time when hashing is busy."""
        if not self._hasher.needs_rehash(hashed):
            return None
        try:
            return await self._hasher.hash(password)
        except Busy:
            log.info("rehash_postponed")
            return None
