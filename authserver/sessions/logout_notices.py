"""Notices of logout in the database: written with the end of a session, picked by one deliverer at a time, settled.

Who picks a notice has it for `LEASE`, by the database's clock, and holds neither a row nor a connection meanwhile. If
he is gone before he settles it, it is due again: so each is delivered at least once (Back-Channel Logout §2.5).
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Select, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import audit
from authserver.clients.models import Client
from authserver.db import Database
from authserver.sessions.models import LogoutNotice, UserSession
from authserver.sessions.statements import has_scope
from authserver.statement import Statement

LEASE = timedelta(seconds=30)
GIVEN_UP_AFTER = timedelta(days=1)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=1)
_COUNT = Statement(
    select(
        func.count().label("waiting"),
        func.count().filter(LogoutNotice.next_try_at <= func.now()).label("due"),
    ).select_from(LogoutNotice)
)


@dataclass(frozen=True)
class Picked:
    """A notice that nobody else will look at before the lease is over, and the client as it is now."""

    id: UUID
    client_id: str
    uri: str
    id_token_alg: str
    user_id: UUID
    session_id: UUID
    attempts: int
    """Which one this is; the first is 1."""
    created_at: datetime


async def write(db: Database, tx: AsyncSession, *which: ColumnElement[bool]) -> None:
    """Note that the clients of the sessions that meet the conditions shall hear of their end.

    Those that came from a browser, whose client knows the user and has an address for it. Written with what ends them.
    """
    query = (
        select(UserSession.id, UserSession.client_id, UserSession.user_id)
        .join(Client, Client.id == UserSession.client_id)
        .where(
            *which,
            UserSession.browser_session_id.is_not(None),
            has_scope("openid"),
            Client.backchannel_logout_uri.is_not(None),
        )
    )
    found = (await tx.execute(query)).all()
    now = await db.now(tx) if found else None
    tx.add_all(
        LogoutNotice(
            id=uuid4(),
            client_id=row.client_id,
            user_id=row.user_id,
            session_id=row.id,
            created_at=now,
            attempts=0,
            next_try_at=now,
        )
        for row in found
    )


async def count(db: Database) -> tuple[int, int]:
    """Return how many wait, and how many of these are due."""
    row = await db.ask(_COUNT, {})
    assert row is not None
    return row["waiting"], row["due"]


async def pick(db: Database, at_most: int, *, but_of: Collection[str]) -> Sequence[Picked]:
    """Take some that are due, the oldest first, but none of these clients."""
    async with db.write() as tx:
        now = await db.now(tx)
        due = (
            select(LogoutNotice.id)
            .where(LogoutNotice.next_try_at <= now, LogoutNotice.client_id.not_in(but_of))
            .order_by(LogoutNotice.next_try_at)
            .limit(at_most)
            .with_for_update(skip_locked=True)
        )
        taken = (
            update(LogoutNotice)
            .where(LogoutNotice.id.in_(due))
            .values(attempts=LogoutNotice.attempts + 1, next_try_at=now + LEASE)
            .returning(LogoutNotice)
            .execution_options(synchronize_session=False)
        )
        notices = (await tx.scalars(taken)).all()
        clients = {client.id: client for client in await tx.scalars(_of(notices))}
        gone = [notice.id for notice in notices if notice.client_id not in clients]
        if gone:  # nobody is there who could hear of it (any more)
            await tx.execute(delete(LogoutNotice).where(LogoutNotice.id.in_(gone)))
        return [
            Picked(
                id=notice.id,
                client_id=notice.client_id,
                uri=client.backchannel_logout_uri or "",
                id_token_alg=client.id_token_alg,
                user_id=notice.user_id,
                session_id=notice.session_id,
                attempts=notice.attempts,
                created_at=notice.created_at,
            )
            for notice in notices
            if (client := clients.get(notice.client_id))
        ]


async def delivered(db: Database, notice: Picked) -> None:
    """Forget a notice that the client has heard."""
    async with db.write() as tx:
        await tx.execute(delete(LogoutNotice).where(LogoutNotice.id == notice.id))


async def failed(db: Database, notice: Picked, reason: str) -> bool:
    """Put a notice off; give it up, and tell so, when it is a day old. Returns whether it was given up."""
    async with db.write() as tx:
        now = await db.now(tx)
        # Somebody else has it if we were slow: then it is theirs to settle.
        ours = LogoutNotice.id == notice.id, LogoutNotice.attempts == notice.attempts
        if now < notice.created_at + GIVEN_UP_AFTER:
            await tx.execute(update(LogoutNotice).where(*ours).values(next_try_at=now + pause(notice.attempts)))
            return False
        gone = await tx.scalar(delete(LogoutNotice).where(*ours).returning(LogoutNotice.id))
        if gone is not None:
            audit.record(
                tx,
                "logout_notice_given_up",
                user_id=notice.user_id,
                client_id=notice.client_id,
                session_id=notice.session_id,
                attempts=notice.attempts,
                reason=reason,
            )
        return gone is not None


def pause(attempts: int) -> timedelta:
    """Return how long to wait after so many attempts: twice as long each time, up to an hour, give or take a fifth."""
    doubled: timedelta = min(_FIRST_PAUSE * 2 ** min(attempts - 1, 20), _LONGEST_PAUSE)
    return doubled * random.uniform(0.8, 1.2)  # noqa: S311 - so that nodes do not all come at once


def _of(notices: Sequence[LogoutNotice]) -> Select[Client]:
    names = {notice.client_id for notice in notices}
    return select(Client).where(Client.id.in_(names), Client.backchannel_logout_uri.is_not(None))
