"""Requests that a client has pushed before it sends the browser: one row each, for one code (RFC 9126)."""

from datetime import timedelta
from typing import cast

from sqlalchemy import String, Table, bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import clock, opaque
from authserver.clients.models import PushedRequest
from authserver.db import Database
from authserver.oauth.authorization import ticket
from authserver.statement import Statement

URI_PREFIX = "urn:ietf:params:oauth:request_uri:"
SECONDS = 60
"""In which the browser must come with it."""
_TICKET_LIFE = timedelta(seconds=ticket.LIFE_SECONDS)
_TABLE = cast("Table", PushedRequest.__table__)
_KEEP = Statement(insert(_TABLE).returning(_TABLE.c.handle_hash))
_FIND = Statement(select(*_TABLE.columns).where(_TABLE.c.handle_hash == bindparam("this", type_=String)))


async def keep(db: Database, client_id: str, parameters: dict[str, str]) -> str:
    """Store a request that has been checked; return the `request_uri` it goes by."""
    uri = opaque.random_text(URI_PREFIX)
    # Who comes with it in time may take as long as a ticket lives to sign in.
    expires_at = clock.now() + timedelta(seconds=SECONDS) + _TICKET_LIFE
    values = {"handle_hash": _hash(uri), "client_id": client_id, "parameters": parameters, "expires_at": expires_at}
    await db.ask(_KEEP, values)
    return uri


async def find(db: Database, client_id: str, uri: str, *, has_ticket: bool) -> dict[str, str] | None:
    """Return the parameters that a client has pushed; None if they have been used, or it is too late.

    With a ticket the request was here in time, and is back from the sign-in page.
    """
    row = await db.ask(_FIND, {"this": _hash(uri)})
    if row is None or row["client_id"] != client_id:
        return None
    ends_at = row["expires_at"] if has_ticket else row["expires_at"] - _TICKET_LIFE
    parameters: dict[str, str] = row["parameters"]
    return parameters if clock.now() < ends_at else None


async def use(tx: AsyncSession, uri: str) -> bool:
    """Use a request up, in the transaction that makes its code; False if somebody else has."""
    gone = delete(PushedRequest).where(PushedRequest.handle_hash == _hash(uri)).returning(PushedRequest.handle_hash)
    return await tx.scalar(gone) is not None


def _hash(uri: str) -> str:
    return opaque.digest(uri.removeprefix(URI_PREFIX).encode("utf-8", "surrogatepass"))
