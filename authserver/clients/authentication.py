"""Who asks: client authentication (RFC 6749 §2.3)."""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import NamedTuple

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import String, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY, insert

from authserver import opaque, patience
from authserver.clients.models import AuthMethod, Client, UsedAssertion
from authserver.db import Database, UTCDateTime
from authserver.gathering import Gathering
from authserver.recent import Recent
from authserver.settings import Settings
from authserver.statement import Row, Statement
from authserver.text import is_clean

MAX_ID_CHARACTERS = 64
SECRET_PREFIX = "authserver_cs_"
_CACHE_SIZE = 1000
_AT_ONCE = 100
_ALL = select(*Client.__table__.columns)
_FIND = Statement(_ALL.where(Client.id == bindparam("this", type_=String)))
_FIND_TOGETHER = Statement(_ALL.where(Client.id == func.any(bindparam("these", type_=ARRAY(String)))))
_USE_ONCE = Statement(
    insert(UsedAssertion)  # SQLite writes ON CONFLICT in the same way
    .values(key=bindparam("this", type_=String), expires_at=bindparam("until", type_=UTCDateTime))
    .on_conflict_do_nothing()
    .returning(UsedAssertion.key)
)


class Credentials(NamedTuple):
    """What a request offers as proof."""

    client_id: str
    secret: str | None
    method: AuthMethod


@dataclass(slots=True)
class _Kept:
    """A client as it was at some moment (monotonic seconds), and the secret that it has proved itself with since."""

    client: Client
    asked_at: float
    only: AuthMethod | None
    """The one way in which it may prove itself, if it has been given one."""
    proven: str | None = None


class Clients:
    """Finds clients, and checks what they offer as proof."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._db = db
        secret_key = settings.secret_key.get_secret_value()
        self._key = opaque.derived_key(secret_key, "client secrets")
        self._cipher = Fernet(base64.urlsafe_b64encode(opaque.derived_key(secret_key, "client secrets in clear")))
        self._cache_seconds = settings.client_cache_seconds
        # Only clients that exist are kept, so rubbish cannot push anybody out.
        self._kept: Recent[str, _Kept] = Recent(_CACHE_SIZE)
        self._finding: Gathering[str, _Kept | None] = Gathering(self._find_together, _AT_ONCE)
        self._nobody = self.hash_secret(secrets.token_urlsafe())

    def hash_secret(self, secret: str) -> str:
        """Return what is stored of a secret; 256 random bits need no slow hash."""
        return opaque.mac(self._key, secret.encode("utf-8", "surrogatepass")).hex()

    def encrypt_secret(self, secret: str) -> bytes:
        """Return what is stored of a secret that signs: it must be read again, so it cannot be a hash."""
        return self._cipher.encrypt(secret.encode())

    def signing_secrets(self, client: Client) -> list[str]:
        """Return the secrets that a client may sign with now; none if SECRET_KEY is not the one that encrypted them."""
        encrypted = [client.encrypted_secret, client.old_encrypted_secret if client.old_secret_is_good else None]
        try:
            return [self._cipher.decrypt(secret).decode() for secret in encrypted if secret is not None]
        except InvalidToken:
            return []

    async def authenticate(self, credentials: Credentials, *, briefly_cached: bool = False) -> Client | None:
        """Return the client that has proved to be who it says it is, else None.

        Nobody by that name, switched off, and a wrong secret are one answer in one time. A public client proves
        nothing, so it offers nothing. `briefly_cached` allows an answer that was true `client_cache_seconds` ago.
        """
        client_id, secret, method = credentials
        if len(client_id) > MAX_ID_CHARACTERS or not is_clean(client_id):
            return None
        kept = self._kept.get(client_id) if briefly_cached else None
        if kept is not None and monotonic() < kept.asked_at + self._cache_seconds:
            is_proven = secret is not None and kept.proven is not None and opaque.same(secret, kept.proven)
            if is_proven and (kept.only is None or kept.only == method):
                return kept.client
            if self._proves(kept, credentials):
                return kept.client
        # Also after a wrong secret for a client that we know: it may be new, and guessing must not be quicker here.
        kept = await self._find(client_id)
        return kept.client if self._proves(kept, credentials) and kept is not None else None

    async def find_active(self, client_id: str, *, briefly_cached: bool = False) -> Client | None:
        """Return the client, if there is one at this moment that has not been switched off.

        `briefly_cached` allows an answer that was true `client_cache_seconds` ago.
        """
        if len(client_id) > MAX_ID_CHARACTERS or not is_clean(client_id):
            return None
        kept = self._kept.get(client_id) if briefly_cached else None
        if kept is None or monotonic() >= kept.asked_at + self._cache_seconds:
            kept = await self._find(client_id)
        return kept.client if kept is not None and kept.client.is_active else None

    async def is_active(self, client_id: str) -> bool:
        """Tell whether there is such a client, and it has not been switched off, at this moment."""
        return await self.find_active(client_id) is not None

    async def use_once(self, client_id: str, jti: str, until: datetime) -> bool:
        """Tell whether this is the first use of an assertion, on all nodes; the row is there before the answer.

        StoreUnavailable if that cannot be known.
        """
        key = opaque.digest(f"{client_id}\n{jti}".encode())
        return await self._db.ask(_USE_ONCE, {"this": key, "until": until}) is not None

    def _proves(self, kept: _Kept | None, credentials: Credentials) -> bool:
        """Compare, also where there is nothing to compare with, and remember a secret that is right."""
        _, secret, method = credentials
        client = None if kept is None else kept.client
        given = self.hash_secret(secret or "")
        is_newest = opaque.same(given, (client and client.secret_hash) or self._nobody)
        is_older = opaque.same(given, (client and client.old_secret_hash) or self._nobody)
        if kept is None or client is None or not client.is_active or method not in client.auth_methods:
            return False
        if client.is_public:
            return secret is None
        is_right = is_newest or (is_older and client.old_secret_is_good)
        if is_right:
            kept.proven = secret
        return is_right

    async def _find(self, client_id: str) -> _Kept | None:
        """Return the client as the database has it now; it is asked once for all requests that come at this moment."""
        return await patience.ask(self._finding.ask(client_id))

    async def _find_together(self, client_ids: Sequence[str]) -> Sequence[_Kept | None]:
        asked_at = monotonic()
        found = {}
        for row in await self._rows(list(set(client_ids))):
            client = Client(**row)
            kept = found[client.id] = _Kept(client, asked_at, only=client.auth_method)
            self._kept.put(client.id, kept)
        for client_id in client_ids:
            if client_id not in found:
                self._kept.forget(client_id)
        return [found.get(client_id) for client_id in client_ids]

    async def _rows(self, client_ids: list[str]) -> list[Row]:
        if not self._db.is_sqlite:
            return await self._db.ask_all(_FIND_TOGETHER, {"these": client_ids})
        return [row for this in client_ids if (row := await self._db.ask(_FIND, {"this": this}))]
