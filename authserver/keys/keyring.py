"""The signing keys as this process knows them: read from the database, decrypted, kept up to date by a watcher.

Each algorithm has keys of its own, which rotate by the rules of `rotation.py`. Time is the database's, carried on from
the last reading, so a node whose clock is wrong agrees with the others.
"""

import asyncio
import logging
import re
from contextvars import Context
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import audit, patience
from authserver.db import Database
from authserver.errors import AuthserverError, StoreUnavailable
from authserver.keys import rotation
from authserver.keys.models import SigningKey
from authserver.keys.pairs import ES256, RS256, Algorithm, Key, Pairs
from authserver.recent import Recent
from authserver.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
"""After `keys rotate --now`, other processes use the old keys at most so long."""
_ALWAYS: tuple[Algorithm, ...] = (ES256, RS256)
"""Keys of other algorithms are made when somebody asks for them."""
_LOCK = "signing keys"
_RELOAD_PAUSE_SECONDS = 0.1
_STRANGERS = 1000
_KID = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Reading:
    """When the keys were read: by the database's clock, and by the event loop's, in seconds."""

    now: datetime
    asked_at: float
    answered_at: float


@dataclass(frozen=True)
class Outlook:
    """How long a key has been signing, and when its successor takes over; None if only by hand."""

    key: Key
    age: timedelta
    next_rotation: datetime | None


class Keyring:
    """Which key signs now, and which one verifies a given `kid`."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._jwks_max_age = settings.jwks_max_age_seconds
        self._announcement = rotation.announcement(settings.jwks_max_age_seconds)
        self._period = timedelta(seconds=settings.key_rotation_seconds)
        self._db = db
        self._pairs = Pairs(settings)
        self._keys: dict[str, Key] = {}
        self._private: dict[str, list[Key]] = {}
        """Those that could sign, by algorithm."""
        self._reading: Reading | None = None
        self._reload: asyncio.Task[None] | None = None
        self._reload_at = 0.0
        """Not before."""
        self._strangers: Recent[str, float] = Recent(_STRANGERS)
        """Names that no key had, and when each was first seen."""

    # What is known

    @property
    def is_loaded(self) -> bool:
        """Tell whether tokens can be signed."""
        return any(key.private for key in self._keys.values())

    def signing_key(self, algorithm: Algorithm = ES256) -> Key:
        """Return the key that signs now; StoreUnavailable if there is none yet, or it was read too long ago."""
        if not rotation.may_sign(self._age_seconds(), self._announcement):
            raise StoreUnavailable("keys", "they have not been read for so long that others may sign now")
        key = self._signer(algorithm)
        if key is None:
            raise StoreUnavailable("keys", f"no signing key for {algorithm} has been read yet")
        return key

    def state(self, key: Key) -> str:
        """Return `announced`, `signing` (the newest that is past its announcement) or `verifying`."""
        if key.signs_from > self._now():
            return "announced"
        signer = self._signer(key.algorithm)
        return "signing" if signer is not None and key.kid == signer.kid else "verifying"

    async def find(self, kid: str) -> Key | None:
        """Return the key of that name, asking the database for one made a moment ago by another process."""
        if kid not in self._keys and _KID.fullmatch(kid) and not self._is_stranger(kid):
            await self._reload_shared()
        key = self._keys.get(kid)
        return key if key is not None and self.holds(key) else None

    def holds(self, key: Key) -> bool:
        """Tell whether a key that was found a while ago still verifies."""
        now = self._keys.get(key.kid)
        return now is not None and (now.verifies_until is None or rotation.verifies(now, self._now()))

    def published(self) -> list[Key]:
        """Return the keys of the JWKS: announced, signing, and as long as a token of theirs may live."""
        now = self._now()
        return [key for key in self._keys.values() if rotation.verifies(key, now)]

    def max_age_seconds(self) -> int:
        """Return how long others may keep what is published."""
        return rotation.max_age_seconds(self._age_seconds(), self._jwks_max_age)

    def outlooks(self) -> list[Outlook]:
        """Return how it stands with each algorithm that has a key that signs; nothing before the first reading."""
        if self._reading is None:
            return []
        now, found = self._now(), []
        for algorithm in sorted({key.algorithm for key in self._keys.values()}):
            key = self._signer(algorithm)
            if key is not None:
                following = [other.signs_from for other in self._of(algorithm) if other.signs_from > now]
                planned = key.signs_from + self._period if self._period else None
                found.append(Outlook(key, now - key.signs_from, min(following, default=planned)))
        return found

    # How it comes to be known

    async def load(self) -> None:
        """Read the keys, and make the first ones if there are none."""
        asked_at = _loop_seconds()
        now, rows = await self._read()
        if not rows:
            await self._make_first()
            now, rows = await self._read()
        answered_at = _loop_seconds()
        # Opened once: to check an RSA key costs as much as many signatures.
        known, keys = self._keys, {}
        for row in rows:  # those that are over too: a clock that was wrong for a moment must not cost us the others
            if row.kid in known:
                dated = replace(known[row.kid], signs_from=row.signs_from, verifies_until=row.verifies_until)
                keys[row.kid] = dated
            elif (key := await self._pairs.open(row)) is not None:
                keys[row.kid] = key
        if self._reading is not None and self._reading.asked_at > asked_at:
            return  # a reading that began later has overtaken this one
        self._keys, self._reading = keys, Reading(now, asked_at, answered_at)
        self._private = {name: [key for key in self._of(name) if key.private] for name in self.algorithms()}
        if not self.is_loaded:
            log.error("signing_keys_unreadable", extra={"reason": "SECRET_KEY is not the one that encrypted them"})

    async def watch(self) -> None:
        """Keep up with what other processes do to the keys, and rotate those whose time has come. Runs for ever."""
        while True:
            try:
                await self.load()
                await self.rotate_due()
            except AuthserverError as unavailable:
                log.warning("signing_keys_not_read", extra={"reason": str(unavailable)})
            await asyncio.sleep(POLL_SECONDS if self._keys else _RELOAD_PAUSE_SECONDS * 5)

    # How keys come and go

    async def rotate(self, algorithm: Algorithm = ES256, *, at_once: bool = False) -> str:
        """Make a successor and return its kid.

        It signs after everybody's copy of the JWKS has run out, and the old keys go when their last token has.
        `at_once` is for a key that leaked: the old keys of the algorithm and all their tokens die now.
        """
        kid = await self._make_successor(algorithm, at_once=at_once)
        assert kid is not None
        await self.load()
        return kid

    async def rotate_due(self) -> None:
        """Make the successors whose time has come, and the first key of an algorithm that should have one."""
        for algorithm in self.algorithms():
            newest = max(self._of(algorithm), key=lambda key: key.signs_from, default=None)
            # Whoever has a wrong SECRET_KEY must not make keys that the others cannot read.
            is_able = self.is_loaded if newest is None else newest.private is not None
            if is_able and self._is_due(self._of(algorithm), self._now()):
                await self._make_successor(algorithm, only_if_due=True)
                await self.load()

    async def introduce(self, algorithm: Algorithm) -> None:
        """See to it that there is a key of an algorithm; the first one signs after its announcement."""
        if not self._of(algorithm):
            await self._make_successor(algorithm, only_if_due=True)
            await self.load()

    def algorithms(self) -> list[Algorithm]:
        """Return those that have keys or always should, the one of access tokens first."""
        present: set[str] = {key.algorithm for key in self._keys.values()}
        return [name for name in ("ES256", "RS256", "EdDSA") if name in present or name in _ALWAYS]

    def _is_due(self, keys: list[Key] | list[SigningKey], now: datetime) -> bool:
        if not keys:
            return True
        return bool(self._period) and rotation.successor_at(keys, self._period, self._announcement) <= now

    async def _make_successor(
        self, algorithm: Algorithm, *, at_once: bool = False, only_if_due: bool = False
    ) -> str | None:
        """Make a key and date those before it, in one transaction of which all nodes have one at a time."""
        successor = await self._pairs.make(algorithm)  # no lock is held while this takes its time
        async with self._db.write() as tx:
            await self._db.lock(tx, _LOCK)
            now = await self._db.now(tx)
            before = [row for row in await _all(tx) if row.alg == algorithm]
            if only_if_due and not self._is_due(before, now):
                return None  # another node was faster
            successor.created_at = now
            successor.signs_from = now if at_once else rotation.signs_from(before, now, self._announcement)
            over = now if at_once else rotation.retired_at(successor.signs_from)
            until_longer = or_(SigningKey.verifies_until.is_(None), SigningKey.verifies_until > over)
            of_its_kind = SigningKey.alg == algorithm
            await tx.execute(update(SigningKey).where(of_its_kind, until_longer).values(verifies_until=over))
            tx.add(successor)
            _record(tx, "signing_key_rotated" if before else "signing_key_made", successor, at_once=at_once)
            return successor.kid

    async def _read(self) -> tuple[datetime, list[SigningKey]]:
        async with self._db.read() as tx:
            return await self._db.now(tx), await _all(tx)

    async def _make_first(self) -> None:
        """Make keys that sign at once: nobody can have a copy of the JWKS without them."""
        made = [await self._pairs.make(algorithm) for algorithm in _ALWAYS]
        async with self._db.write() as tx:
            await self._db.lock(tx, _LOCK)
            now = await self._db.now(tx)
            if not await _all(tx):
                for key in made:
                    key.created_at = key.signs_from = now
                    tx.add(key)
                    _record(tx, "signing_key_made", key, at_once=True)

    def _is_stranger(self, kid: str) -> bool:
        """Tell whether a name is nobody's: the keys have been read since we first saw it, and it was not there.

        A key is in the database before it signs, so before anybody can show us its name.
        """
        seen_at = self._strangers.get(kid)
        if seen_at is None:
            self._strangers.put(kid, _loop_seconds())
            return False
        return self._reading is not None and self._reading.asked_at > seen_at

    async def _reload_shared(self) -> None:
        """Read again; all who wait share one reading, so rubbish cannot make more than ten of them a second."""
        if self._reload is None or self._reload.done():
            self._reload = asyncio.create_task(self._pause_and_load(), context=Context())
        await patience.ask(asyncio.shield(self._reload))

    async def _pause_and_load(self) -> None:
        await asyncio.sleep(self._reload_at - _loop_seconds())
        self._reload_at = _loop_seconds() + _RELOAD_PAUSE_SECONDS
        self._reload = None  # who comes from now on needs a reading that begins later
        await self.load()

    def _signer(self, algorithm: str) -> Key | None:
        return rotation.signer(self._private.get(algorithm, []), self._now())

    def _of(self, algorithm: str) -> list[Key]:
        return [key for key in self._keys.values() if key.algorithm == algorithm]

    def _now(self) -> datetime:
        """Return the database's time, or a little less: a key signs late rather than early."""
        reading = self._last_reading()
        return reading.now + timedelta(seconds=_loop_seconds() - reading.answered_at)

    def _age_seconds(self) -> float:
        return _loop_seconds() - self._last_reading().asked_at

    def _last_reading(self) -> Reading:
        if self._reading is None:
            raise StoreUnavailable("keys", "no signing key has been read yet")
        return self._reading


def _record(tx: AsyncSession, event: str, key: SigningKey, *, at_once: bool) -> None:
    signs_from = key.signs_from.isoformat(timespec="seconds")
    audit.record(tx, event, kid=key.kid, alg=key.alg, at_once=at_once, signs_from=signs_from)


async def _all(tx: AsyncSession) -> list[SigningKey]:
    return list(await tx.scalars(select(SigningKey).order_by(SigningKey.signs_from, SigningKey.alg)))


def _loop_seconds() -> float:
    return asyncio.get_running_loop().time()
