"""What people have allowed applications: one row for a user and a client, deleted when it is withdrawn."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Row, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import audit, clock
from authserver.clients.models import Client
from authserver.sessions.lifecycle import Sessions
from authserver.sessions.models import Consent, UserSession

_MAX_SCOPE_CHARACTERS = 1000
"""What the column holds, and the scopes of a client at one time are within."""


async def find(tx: AsyncSession, user_id: UUID, client_id: str) -> Consent | None:
    """Return what the user has allowed the client, if anything."""
    return await tx.get(Consent, (user_id, client_id))


async def give(tx: AsyncSession, user_id: UUID, client_id: str, scope: str) -> None:
    """Remember that a user allows a client these scopes, besides those allowed before."""
    now = clock.now()
    consent = await tx.get(Consent, (user_id, client_id), with_for_update=True)
    if consent is None:
        tx.add(Consent(user_id=user_id, client_id=client_id, scope=scope, created_at=now, given_at=now))
    else:
        both = " ".join(dict.fromkeys([*consent.scope.split(" "), *scope.split(" ")]))
        consent.scope = (
            both if len(both) <= _MAX_SCOPE_CHARACTERS else scope
        )  # of scopes that a client has had over time
        consent.given_at = now
    audit.record(tx, "consent_given", user_id=user_id, client_id=client_id, scope=scope)


async def withdraw(tx: AsyncSession, sessions: Sessions, user_id: UUID, client_id: str) -> bool:
    """Take back what a user allowed a client, and end its sign-ins; False if there was nothing to take back.

    `tx` comes from `denylist.revoking()`. Who redeems a code holds the consent's row, so it comes before this and its
    session is ended here, or after this and finds no consent (authorization_code.redeem).
    """
    withdrawn = await tx.scalar(
        delete(Consent).where(Consent.user_id == user_id, Consent.client_id == client_id).returning(Consent.client_id)
    )
    of_both = (UserSession.user_id == user_id, UserSession.client_id == client_id)
    ended = await sessions.end(tx, *of_both, because="consent withdrawn")
    if withdrawn is not None:
        audit.record(tx, "consent_withdrawn", user_id=user_id, client_id=client_id)
    return withdrawn is not None or ended > 0


async def of(tx: AsyncSession, user_id: UUID) -> Sequence[Row[Consent, Client]]:
    """Return what a user has allowed whom, newest first."""
    query = select(Consent, Client).join(Client, Client.id == Consent.client_id).where(Consent.user_id == user_id)
    return (await tx.execute(query.order_by(Consent.given_at.desc()))).all()
