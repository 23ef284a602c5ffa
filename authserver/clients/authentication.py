"""Who asks: client authentication (RFC 6749 §2.3)."""

import secrets
import time
from dataclasses import dataclass
from typing import Literal

from authserver import opaque
from authserver.clients.models import Client
from authserver.db import Database
from authserver.settings import Settings
from authserver.text import is_clean

SECRET_PREFIX = "authserver_cs_"
_CACHE_SIZE = 1000


@dataclass(frozen=True)
class Credentials:
    """What a request offers as proof."""

    client_id: str
    secret: str | None
    method: Literal["client_secret_basic", "client_secret_post", "none"]


class Clients:
    """Finds clients, and checks what they offer as proof."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._db = db
        self._key = opaque.derived_key(settings.secret_key.get_secret_value(), "client secrets")
        self._cache_seconds = settings.client_cache_seconds
        self._cache: dict[str, tuple[float, Client]] = {}
        self._nobody = self.hash_secret(secrets.token_urlsafe())

    def hash_secret(self, secret: str) -> str:
        """Return what is stored of a secret; 256 random bits need no slow hash."""
        return opaque.mac(self._key, secret.encode("utf-8", "surrogatepass")).hex()

    async def authenticate(self, credentials: Credentials, *, briefly_cached: bool = False) -> Client | None:
        """Return the client that has proved to be who it says it is, else None.

        Nobody by that name, switched off, and a wrong secret are one answer in one time. A public client proves
        nothing, so it offers nothing. `briefly_cached` allows an answer that was true `client_cache_seconds` ago.
        """
        if len(credentials.client_id) > 64 or not is_clean(credentials.client_id):
            return None
        kept = self._kept(credentials.client_id) if briefly_cached else None
        if self._proves(kept, credentials):
            return kept
        # Also after a wrong secret for a client that we know: it may be new, and guessing must not be quicker here.
        client = await self._find(credentials.client_id)
        return client if self._proves(client, credentials) else None

    def _proves(self, client: Client | None, credentials: Credentials) -> bool:
        expected = self._nobody if client is None or client.secret_hash is None else client.secret_hash
        is_right = opaque.same(expected, self.hash_secret(credentials.secret or ""))
        if client is None or not client.is_active:
            return False
        return credentials.secret is None if client.is_public else is_right

    def _kept(self, client_id: str) -> Client | None:
        kept = self._cache.get(client_id)
        return kept[1] if kept is not None and time.monotonic() < kept[0] + self._cache_seconds else None

    async def _find(self, client_id: str) -> Client | None:
        asked_at = time.monotonic()
        async with self._db.read() as tx:
            client = await tx.get(Client, client_id)
        # Only clients that exist are kept, so rubbish cannot push anybody out.
        if client is not None:
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[client_id] = (asked_at, client)
        else:
            self._cache.pop(client_id, None)
        return client
