"""Clients come and go: made, changed, given a new secret, switched off, deleted."""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import audit, clock, opaque
from authserver.clients.authentication import SECRET_PREFIX, Clients
from authserver.clients.metadata import Metadata
from authserver.clients.models import Client
from authserver.errors import Fault, InvalidInput
from authserver.text import is_clean

REGISTRATION_TOKEN_PREFIX = "authserver_rat_"


@dataclass(frozen=True)
class NewClient(Metadata):
    """What somebody asks for."""

    client_id: str | None = None
    """Made by the server unless given."""


def create(tx: AsyncSession, clients: Clients, new: NewClient) -> tuple[Client, str | None]:
    """Add a client; return it and its secret, which nobody can read again. InvalidInput names what is wrong."""
    faults = new.faults()
    if new.client_id is not None and not re.fullmatch(r"[A-Za-z0-9._~-]{1,64}", new.client_id):
        faults.append(Fault("/client_id", "A client_id has 1 to 64 letters, digits and . _ ~ -"))
    if faults:
        raise InvalidInput(faults)
    client = Client(id=new.client_id or secrets.token_hex(16))
    new.write(client)
    secret = _new_secret(clients, client) if _has_secret(client) else None
    tx.add(client)
    audit.record(tx, "client_created", client_id=client.id)
    return client, secret


def change(tx: AsyncSession, client: Client, changes: Mapping[str, object]) -> None:
    """Change these columns of a `locked` client and leave the rest; InvalidInput if what comes of it is wrong."""
    _write(client, changes)
    audit.record(tx, "client_changed", client_id=client.id, changed=sorted(changes))


async def rotate_secret(
    tx: AsyncSession, clients: Clients, client: Client, *, keep_old: timedelta = timedelta(0)
) -> str:
    """Give a `locked` client a new secret and return it.

    The one before stays good for `keep_old`, every other one is worth nothing from now on.
    """
    if client.is_public:
        raise InvalidInput([Fault("/client_id", "A public client has no secret.")])
    if not _has_secret(client):
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
    """Replace the public keys of a `locked` client; from now on it signs with these."""
    _write(client, {"jwks": keys})
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


def let_manage_itself(clients: Clients, client: Client) -> str:
    """Return a token with which a client may read, change and delete its own registration (RFC 7592)."""
    token = opaque.random_text(REGISTRATION_TOKEN_PREFIX)
    client.registration_token_hash = clients.hash_secret(token)
    return token


async def count_registered(tx: AsyncSession) -> int:
    """Return how many clients have registered themselves."""
    query = select(func.count()).where(Client.registration_token_hash.is_not(None))
    return await tx.scalar(query) or 0


async def list_all(tx: AsyncSession) -> Sequence[Client]:
    """Return all clients by name."""
    return (await tx.scalars(select(Client).order_by(Client.name, Client.id))).all()


def _write(client: Client, changes: Mapping[str, object]) -> None:
    changed = replace(Metadata.of(client), **cast("dict[str, Any]", changes))
    if faults := changed.faults():
        raise InvalidInput(faults)
    changed.write(client)


def _has_secret(client: Client) -> bool:
    return client.auth_method not in ("none", "private_key_jwt")


def _new_secret(clients: Clients, client: Client) -> str:
    secret = opaque.random_text(SECRET_PREFIX)
    client.secret_hash = clients.hash_secret(secret)
    client.encrypted_secret = clients.encrypt_secret(secret) if client.auth_method == "client_secret_jwt" else None
    return secret
