"""Clients come and go: made, given a new secret, switched off, deleted."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast, get_args
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import audit, clock, opaque
from authserver.clients import jwks
from authserver.clients.authentication import SECRET_PREFIX, Clients
from authserver.clients.models import AuthMethod, Client
from authserver.errors import Fault, InvalidInput
from authserver.text import is_clean

DEFAULT_SCOPES = ("openid", "profile", "email")
KNOWN_GRANTS = ("client_credentials", "password", "refresh_token")
"""What a client may be given; oauth/grants has a function for each."""
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # scope-token of RFC 6749 §3.3
_MAX_SCOPE_CHARACTERS = 1000


@dataclass(frozen=True)
class NewClient:
    """What somebody asks for."""

    name: str
    grants: Sequence[str] = ()
    scopes: Sequence[str] = DEFAULT_SCOPES
    redirect_uris: Sequence[str] = ()
    audience: Sequence[str] = ()
    is_public: bool = False
    auth_method: str | None = None
    """The one way in which it proves itself; not given: by its secret, in Basic or in the body."""
    jwks: object = None
    """Its public keys, for private_key_jwt."""
    may_introspect: bool = False
    client_id: str | None = None
    """Made by the server unless given."""


def create(tx: AsyncSession, clients: Clients, new: NewClient) -> tuple[Client, str | None]:
    """Add a client; return it and its secret, which nobody can read again. InvalidInput names what is wrong."""
    if faults := _faults(new):
        raise InvalidInput(faults)
    client = Client(
        id=new.client_id or secrets.token_hex(16),
        name=new.name,
        auth_method="none" if new.is_public else cast("AuthMethod | None", new.auth_method),
        jwks=cast("dict[str, Any] | None", new.jwks),
        grants=_once(new.grants),
        scopes=_once(new.scopes),
        audience=_once(new.audience),
        redirect_uris=_once(new.redirect_uris),
        may_introspect=new.may_introspect,
    )
    secret = None if client.is_public or client.jwks else _new_secret(clients, client)
    tx.add(client)
    audit.record(tx, "client_created", client_id=client.id)
    return client, secret


async def rotate_secret(
    tx: AsyncSession, clients: Clients, client: Client, *, keep_old: timedelta = timedelta(0)
) -> str:
    """Give a `locked` client a new secret and return it.

    The one before stays good for `keep_old`, every other one is worth nothing from now on.
    """
    if client.is_public:
        raise InvalidInput([Fault("/client_id", "A public client has no secret.")])
    if client.jwks:
        raise InvalidInput([Fault("/client_id", "It has no secret: it proves itself by its keys (clients set-keys).")])
    is_kept = keep_old > timedelta(0)
    client.old_secret_hash = client.secret_hash if is_kept else None
    client.old_encrypted_secret = client.encrypted_secret if is_kept else None
    client.old_secret_until = clock.now() + keep_old if is_kept else None
    secret = _new_secret(clients, client)
    tx.add(client)
    audit.record(tx, "client_secret_rotated", client_id=client.id, old_kept_seconds=int(keep_old.total_seconds()))
    return secret


def set_keys(tx: AsyncSession, client: Client, keys: object) -> None:
    """Replace the public keys of a `locked` client that proves itself by keys; from now on it signs with these."""
    if client.auth_method != "private_key_jwt":
        raise InvalidInput([Fault("/client_id", "It does not prove itself by keys (private_key_jwt).")])
    if faults := jwks.faults(keys):
        raise InvalidInput(faults)
    client.jwks = cast("dict[str, Any]", keys)
    audit.record(tx, "client_keys_changed", client_id=client.id)


async def find(tx: AsyncSession, client_id: str) -> Client | None:
    """Return the client of that client_id, disabled or not."""
    return await tx.get(Client, client_id) if is_clean(client_id) else None


async def locked(tx: AsyncSession, client_id: str) -> Client | None:
    """Return the client, locked until the transaction ends: no session of it begins meanwhile."""
    query = select(Client).where(Client.id == client_id).with_for_update()
    return (await tx.scalars(query)).one_or_none() if is_clean(client_id) else None


def set_active(tx: AsyncSession, client: Client, *, is_active: bool) -> None:
    """Enable or disable a `locked` client; when disabling, the caller ends the sessions."""
    if client.is_active != is_active:
        client.is_active = is_active
        audit.record(tx, "client_enabled" if is_active else "client_disabled", client_id=client.id)


async def delete(tx: AsyncSession, client: Client) -> None:
    """Delete a `locked` client, after the caller has ended the sessions: their rows go too, the denylist stays."""
    audit.record(tx, "client_deleted", client_id=client.id)
    await tx.delete(client)


async def list_all(tx: AsyncSession) -> Sequence[Client]:
    """Return all clients by name."""
    return (await tx.scalars(select(Client).order_by(Client.name, Client.id))).all()


def _faults(new: NewClient) -> list[Fault]:
    faults = []
    if not 1 <= len(new.name) <= 100 or not is_clean(new.name):
        faults.append(Fault("/name", "A name has 1 to 100 characters, no control characters."))
    if new.client_id is not None and not re.fullmatch(r"[A-Za-z0-9._~-]{1,64}", new.client_id):
        faults.append(Fault("/client_id", "A client_id has 1 to 64 letters, digits and . _ ~ -"))
    if not set(new.grants) <= set(KNOWN_GRANTS):
        faults.append(Fault("/grants", f"There is no grant of that name; there are {', '.join(KNOWN_GRANTS)}."))
    if not new.scopes or len(" ".join(new.scopes)) > _MAX_SCOPE_CHARACTERS:
        faults.append(Fault("/scopes", f"One scope at least, {_MAX_SCOPE_CHARACTERS} characters at most in all."))
    if not all(_SCOPE.fullmatch(scope) for scope in new.scopes):
        faults.append(Fault("/scopes", "A scope has no spaces, quotes or backslashes, only ASCII (RFC 6749 §3.3)."))
    if not all(audience and is_clean(audience) and len(audience) <= 255 for audience in new.audience):
        faults.append(Fault("/audience", "An audience has 1 to 255 characters, no control characters."))
    if not all(_is_redirect_uri(uri) for uri in new.redirect_uris):
        faults.append(Fault("/redirect_uris", "A redirect URI is absolute and has no fragment (RFC 6749 §3.1.2)."))
    if new.is_public and "client_credentials" in new.grants:
        faults.append(Fault("/grants", "Only a client that can prove itself can act for itself (RFC 6749 §4.4)."))
    if new.is_public and new.may_introspect:
        faults.append(Fault("/introspect", "Only a client that can prove itself can introspect."))
    return faults + _proof_faults(new)


def _proof_faults(new: NewClient) -> list[Fault]:
    faults = []
    if new.auth_method not in (None, *get_args(AuthMethod)):
        faults.append(Fault("/auth_method", f"There are the methods {', '.join(get_args(AuthMethod))}."))
    if new.auth_method is not None and new.is_public is not (new.auth_method == "none"):
        faults.append(Fault("/auth_method", "A public client, and no other, proves itself by none."))
    if new.auth_method == "private_key_jwt":
        faults += jwks.faults(new.jwks)
    elif new.jwks is not None:
        faults.append(Fault("/jwks", "Keys are for private_key_jwt only."))
    return faults


def _new_secret(clients: Clients, client: Client) -> str:
    secret = opaque.random_text(SECRET_PREFIX)
    client.secret_hash = clients.hash_secret(secret)
    client.encrypted_secret = clients.encrypt_secret(secret) if client.auth_method == "client_secret_jwt" else None
    return secret


def _is_redirect_uri(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    is_http = parts.scheme in ("http", "https")
    return bool(parts.scheme) and "#" not in uri and (not is_http or bool(parts.hostname)) and uri.isascii()


def _once(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))
