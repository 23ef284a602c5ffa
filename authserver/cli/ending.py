"""Ending many sessions: in batches, so that no transaction is long and the server's own requests get their turn."""

from typing import TYPE_CHECKING

from authserver import clock
from authserver.cli import output

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from authserver.services import Services

_BATCH = 200


async def end(services: "Services", *which: "ColumnElement[bool]", because: str) -> int:
    """End the sessions that now meet all conditions, with all their tokens; return how many were alive.

    When it is interrupted, those so far have ended; the same command again ends the others.
    """
    from sqlalchemy import or_, select

    from authserver.sessions.models import UserSession

    now = clock.now()
    # A session that has run out may have left a living access token.
    may_live = or_(UserSession.expires_at > now, UserSession.tokens_expire_at > now)
    async with services.db.read() as tx:
        query = select(UserSession.id).where(*which, UserSession.revoked_at.is_(None), may_live)
        found = (await tx.scalars(query)).all()
    ended = 0
    with output.counting("Ending sessions", len(found)) as counter:
        for start in range(0, len(found), _BATCH):
            batch = found[start : start + _BATCH]
            async with services.denylist.revoking() as tx:
                ended += await services.sessions.end(tx, UserSession.id.in_(batch), because=because)
            counter.add(len(batch))
    return ended
