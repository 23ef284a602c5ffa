"""Ending many sessions: in batches, so that no transaction is long and the server's own requests get their turn."""

from typing import TYPE_CHECKING

from authserver import clock
from authserver.cli import output

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncSession

    from authserver.services import Services

_BATCH = 1000


async def end(services: "Services", *which: "ColumnElement[bool]", because: str) -> int:
    """End the sessions that now meet all conditions, with all their tokens; return how many were alive.

    When it is interrupted, those so far have ended; the same command again ends the others.
    """
    from sqlalchemy import and_, or_, select

    from authserver.sessions.models import UserSession
    from authserver.tokens.denylist import MARGIN

    now = clock.now()
    is_alive = and_(UserSession.revoked_at.is_(None), UserSession.expires_at > now)
    # Left by a session that has run out, or that was ended by somebody who did not live to tell everybody.
    has_token = UserSession.tokens_expire_at > now - MARGIN
    async with services.db.read() as tx:
        query = select(UserSession.id).where(*which, or_(is_alive, has_token))
        found = (await tx.scalars(query)).all()
    ended = 0
    with output.counting("Ending sessions", len(found)) as counter:
        for start in range(0, len(found), _BATCH):
            batch = found[start : start + _BATCH]
            async with services.denylist.revoking() as tx:
                ended += await services.sessions.end(tx, UserSession.id.in_(batch), because=because)
            counter.add(len(batch))
    return ended


async def end_rest(services: "Services", tx: "AsyncSession", *which: "ColumnElement[bool]", because: str) -> int:
    """End the few that began since `end`, in the transaction after which no more can begin; return how many."""
    from authserver.sessions.models import UserSession

    return await services.sessions.end(tx, *which, UserSession.revoked_at.is_(None), because=because)
