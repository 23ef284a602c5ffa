"""How much a grant is used, as far as the sessions that are kept can tell."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import clock
from authserver.sessions.models import UserSession
from authserver.sessions.statements import is_alive


@dataclass(frozen=True)
class Usage:
    """What one client has done with one grant."""

    sign_ins: int = 0
    """Those whose rows are still there: alive, or over for less than the pruning's grace."""
    alive: int = 0
    users: int = 0
    last_sign_in: datetime | None = None
    last_used: datetime | None = None
    """The last refresh, or the sign-in."""
    ends_at: datetime | None = None
    """After that, none of those alive can be left."""


async def of_grant(tx: AsyncSession, grant: str) -> dict[str, Usage]:
    """Return the usage of a grant by client_id. Reads the whole table: not for requests."""
    alive = is_alive(clock.now())
    query = (
        select(
            UserSession.client_id,
            func.count(),
            func.count(case((alive, 1))),
            func.count(UserSession.user_id.distinct()),
            func.max(UserSession.created_at),
            func.max(UserSession.last_used_at),
            func.max(case((alive, UserSession.max_expires_at))),
        )
        .where(UserSession.grant == grant)
        .group_by(UserSession.client_id)
    )
    return {client_id: Usage(*usage) for client_id, *usage in (await tx.execute(query)).all()}
