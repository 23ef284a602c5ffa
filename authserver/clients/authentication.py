"""Who asks: client authentication (RFC 6749 §2.3)."""

import asyncio
import secrets
from contextvars import Context
from dataclasses import dataclass
from time import monotonic
from typing import Literal, NamedTuple

from sqlalchemy import String, bindparam, select

from authserver import opaque
from authserver.clients.models import Client
from authserver.db import Database
from authserver.recent import Recent
from authserver.settings import Settings
from authserver.statement import Statement
from authserver.text import is_clean

SECRET_PREFIX = "authserver_cs_"
_CACHE_SIZE = 1000
_FIND = Statement(select(*Client.__table__.columns).where(Client.id == bindparam("this", type_=String)))


class Credentials(NamedTuple):
    """What a request offers as proof."""

    client_id: str
    secret: str | None
    method: Literal["client_secret_basic", "client_secret_post", "none"]


@dataclass(slots=True)
class _Kept:
    """A client as it was at some moment (monotonic seconds), and the secret that it has proved itself with since."""

    client: Client
    asked_at: float
    proven: str | None = None


class Clients:
    """Finds clients, and checks what they offer as proof."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._db = db
        self._key = opaque.derived_key(settings.secret_key.get_secret_value(), "client secrets")
        self._cache_seconds = settings.client_cache_seconds
        # Only clients that exist are kept, so rubbish cannot push anybody out.
        self._kept: Recent[str, _Kept] = Recent(_CACHE_SIZE)
        self._asking: dict[str, asyncio.Task[_Kept | None]] = {}
        self._nobody = self.hash_secret(secrets.token_urlsafe())

    def hash_secret(self, secret: str) -> str:
        """Return what is stored of a secret; 256 random bits need no slow hash."""
        return opaque.mac(self._key, secret.encode("utf-8", "surrogatepass")).hex()

    async def authenticate(self, credentials: Credentials, *, briefly_cached: bool = False) -> Client | None:
        """Return the client that has proved to be who it says it is, else None.

        Nobody by that name, switched off, and a wrong secret are one answer in one time. A public client proves
        nothing, so it offers nothing. `briefly_cached` allows an answer that was true `client_cache_seconds` ago.
        """
        client_id, secret, _ = credentials
        if len(client_id) > 64 or not is_clean(client_id):
            return None
        kept = self._kept.get(client_id) if briefly_cached else None
        if kept is not None:
            is_proven = secret is not None and kept.proven is not None and opaque.same(secret, kept.proven)
            if monotonic() >= kept.asked_at + self._cache_seconds:
                kept = await self._find_shared(client_id) if is_proven else None
            elif is_proven:
                return kept.client
            if kept is not None and self._proves(kept, secret):
                return kept.client
        # Also after a wrong secret for a client that we know: it may be new, and guessing must not be quicker here.
        kept = await self._find(client_id)
        return kept.client if self._proves(kept, secret) and kept is not None else None

    async def is_active(self, client_id: str) -> bool:
        """Tell whether there is such a client, and it has not been switched off, at this moment."""
        kept = await self._find(client_id)
        return kept is not None and kept.client.is_active

    def _proves(self, kept: _Kept | None, secret: str | None) -> bool:
        """Compare, also where there is nothing to compare with, and remember a secret that is right."""
        expected = self._nobody if kept is None or kept.client.secret_hash is None else kept.client.secret_hash
        is_right = opaque.same(expected, self.hash_secret(secret or ""))
        if kept is None or not kept.client.is_active:
            return False
        if kept.client.is_public:
            return secret is None
        if is_right:
            kept.proven = secret
        return is_right

    async def _find_shared(self, client_id: str) -> _Kept | None:
        """Ask the database once for all requests of a client that was good a moment ago."""
        asking = self._asking.get(client_id)
        if asking is None:
            asking = self._asking[client_id] = asyncio.create_task(self._find(client_id), context=Context())
            asking.add_done_callback(lambda _: self._asking.pop(client_id).exception())
        await asyncio.wait([asking])  # who goes away must not take the question with him
        return asking.result()

    async def _find(self, client_id: str) -> _Kept | None:
        asked_at = monotonic()
        row = await self._db.ask(_FIND, {"this": client_id})
        if row is None:
            self._kept.forget(client_id)
            return None
        kept = _Kept(Client(**row), asked_at)
        self._kept.put(client_id, kept)
        return kept
