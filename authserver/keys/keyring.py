"""The signing keys as this process knows them: read from the database, decrypted, kept up to date by a watcher."""

import asyncio
import base64
import json
import logging
import re
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from joserfc.jwk import ECKey
from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import clock, opaque
from authserver.db import Database
from authserver.errors import AuthserverError, StoreUnavailable
from authserver.keys.models import SigningKey
from authserver.settings import Settings

log = logging.getLogger(__name__)

ALGORITHM = "ES256"
LEEWAY = timedelta(seconds=60)
"""For clocks that differ."""
POLL_SECONDS = 5.0
"""After `keys rotate --now`, other processes use the old keys at most so long."""
_RELOAD_PAUSE_SECONDS = 0.1
_KID = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Key:
    """One key pair; `private` is absent when SECRET_KEY is not the one that encrypted it."""

    kid: str
    public_jwk: dict[str, Any]
    public: ECKey
    private: ECKey | None
    created_at: datetime
    signs_from: datetime
    verifies_until: datetime | None


class Keyring:
    """Which key signs now, and which one verifies a given `kid`."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._settings = settings
        self._db = db
        self._cipher = Fernet(_fernet_key(settings))
        self._keys: dict[str, Key] = {}
        self._reload: asyncio.Task[None] | None = None

    @property
    def is_loaded(self) -> bool:
        """Tell whether tokens can be signed."""
        return any(key.private for key in self._keys.values())

    def signing_key(self) -> Key:
        """Return the key that signs now; StoreUnavailable while none could be read."""
        now = clock.now()
        ready = [key for key in self._keys.values() if key.private and key.signs_from <= now]
        if not ready:
            raise StoreUnavailable("keys", "no signing key has been read yet")
        return max(ready, key=lambda key: key.signs_from)

    def state(self, key: Key) -> str:
        """Return `announced`, `signing` (the newest that is past its announcement) or `verifying`."""
        if key.signs_from > clock.now():
            return "announced"
        return "signing" if key.kid == self.signing_key().kid else "verifying"

    async def find(self, kid: str) -> Key | None:
        """Return the key of that name, asking the database for one made a moment ago by another process."""
        if kid not in self._keys and _KID.fullmatch(kid):
            await self._reload_shared()
        key = self._keys.get(kid)
        return key if key is not None and self.holds(key) else None

    def holds(self, key: Key) -> bool:
        """Tell whether a key that was found a while ago still verifies."""
        now = self._keys.get(key.kid)
        return now is not None and (now.verifies_until is None or now.verifies_until > clock.now())

    def published(self) -> list[Key]:
        """Return the keys of the JWKS: announced, signing, and as long as a token of theirs may live."""
        if not self._keys:
            raise StoreUnavailable("keys", "no signing key has been read yet")
        now = clock.now()
        return [key for key in self._keys.values() if key.verifies_until is None or key.verifies_until > now]

    async def load(self) -> None:
        """Read the keys, and make the first one if there is none."""
        async with self._db.read() as tx:
            keys = await _all(tx)
        if not keys:
            async with self._db.write() as tx:
                await self._db.lock(tx, "signing keys")
                if not await _all(tx):
                    tx.add(self._new_key(signs_from=clock.now()))
                    await tx.flush()
                keys = await _all(tx)
        self._keys = {key.kid: self._opened(key) for key in keys}
        if not self.is_loaded:
            log.error("signing_keys_unreadable", extra={"reason": "SECRET_KEY is not the one that encrypted them"})

    async def rotate(self, *, at_once: bool = False) -> str:
        """Make a successor and return its kid.

        It signs after everybody's copy of the JWKS has run out, and the old keys go when their last token has.
        `at_once` is for a key that leaked: the old keys and all their tokens die now.
        """
        now = clock.now()
        announce = timedelta(0) if at_once else timedelta(seconds=self._settings.jwks_max_age_seconds) + LEEWAY
        signs_from = now + announce
        last_token = timedelta(0) if at_once else timedelta(seconds=self._settings.access_token_seconds) + LEEWAY
        async with self._db.write() as tx:
            await self._db.lock(tx, "signing keys")
            until_longer = or_(SigningKey.verifies_until.is_(None), SigningKey.verifies_until > signs_from + last_token)
            await tx.execute(update(SigningKey).where(until_longer).values(verifies_until=signs_from + last_token))
            successor = self._new_key(signs_from=signs_from)
            tx.add(successor)
        await self.load()
        return successor.kid

    async def watch(self) -> None:
        """Keep up with what other processes do to the keys. Runs for ever."""
        while True:
            try:
                await self.load()
            except AuthserverError as unavailable:
                log.warning("signing_keys_not_read", extra={"reason": str(unavailable)})
            await asyncio.sleep(POLL_SECONDS if self._keys else _RELOAD_PAUSE_SECONDS * 5)

    async def _reload_shared(self) -> None:
        """Read again; all who wait share one reading, so rubbish cannot make more than ten of them a second."""
        if self._reload is None or self._reload.done():
            self._reload = asyncio.create_task(self._pause_and_load(), context=Context())
        await asyncio.shield(self._reload)

    async def _pause_and_load(self) -> None:
        await asyncio.sleep(_RELOAD_PAUSE_SECONDS)
        self._reload = None  # who comes from now on needs a reading that begins later
        await self.load()

    def _new_key(self, signs_from: datetime) -> SigningKey:
        pair = ECKey.generate_key("P-256", parameters={"use": "sig", "alg": ALGORITHM})
        kid = pair.thumbprint()
        private = json.dumps(pair.as_dict(private=True)).encode()
        return SigningKey(
            kid=kid,
            alg=ALGORITHM,
            public_jwk={**pair.as_dict(private=False), "kid": kid, "use": "sig", "alg": ALGORITHM},
            encrypted_private_jwk=self._cipher.encrypt(private),
            signs_from=signs_from,
        )

    def _opened(self, row: SigningKey) -> Key:
        try:
            private = ECKey.import_key(json.loads(self._cipher.decrypt(row.encrypted_private_jwk)))
        except InvalidToken:
            private = None
        return Key(
            kid=row.kid,
            public_jwk=row.public_jwk,
            public=ECKey.import_key(row.public_jwk),
            private=private,
            created_at=row.created_at,
            signs_from=row.signs_from,
            verifies_until=row.verifies_until,
        )


async def _all(tx: AsyncSession) -> list[SigningKey]:
    # Those that are over too, while they are there: a clock that was wrong for a moment must not cost us the others.
    return list(await tx.scalars(select(SigningKey).order_by(SigningKey.signs_from)))


def _fernet_key(settings: Settings) -> bytes:
    return base64.urlsafe_b64encode(opaque.derived_key(settings.secret_key.get_secret_value(), "signing keys"))
