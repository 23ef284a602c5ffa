"""Browsers in which people are signed in: one row each, found by a random cookie of which only a hash is kept."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, String, and_, bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import clock, opaque
from authserver.db import Database, UTCDateTime
from authserver.sessions import logout_notices
from authserver.sessions.lifecycle import Sessions
from authserver.sessions.models import BrowserSession, Consent, UserSession
from authserver.sessions.statements import has_scope, is_alive
from authserver.settings import Settings
from authserver.statement import Statement
from authserver.users.models import User

OFFLINE = "offline_access"
"""The scope of what outlives the browser's sign-in (OpenID Connect Core §11)."""
_COOKIE_PREFIX = "authserver_bs_"
_FIND = Statement(
    select(
        BrowserSession.id,
        BrowserSession.user_id,
        BrowserSession.generation,
        BrowserSession.authenticated_at,
        BrowserSession.amr,
        User.username,
        User.email,
        Consent.scope.label("consent_scope"),
        Consent.given_at.label("consent_given_at"),
    )
    .join(User, User.id == BrowserSession.user_id)
    .outerjoin(Consent, and_(Consent.user_id == User.id, Consent.client_id == bindparam("for_client", type_=String)))
    .where(
        BrowserSession.cookie_hash == bindparam("cookie_hash", type_=String),
        BrowserSession.expires_at > bindparam("now", type_=UTCDateTime),
        User.is_active,
        User.generation == BrowserSession.generation,
    )
)


@dataclass(frozen=True)
class SignedIn:
    """Who is signed in in a browser."""

    browser_session_id: UUID
    user_id: UUID
    username: str
    email: str
    generation: int
    """The user's; whatever it is good for ends when that changes."""
    authenticated_at: datetime
    amr: str
    """How they proved it, separated by spaces (RFC 8176)."""
    consent_scope: str | None
    """What they allow the client that was asked about, and since when they do."""
    consent_given_at: datetime | None


class BrowserSessions:
    """Starts, finds and ends them."""

    def __init__(self, settings: Settings, db: Database, sessions: Sessions) -> None:
        self._db = db
        self._sessions = sessions
        self._life = timedelta(seconds=settings.browser_session_seconds)

    async def find(self, cookie: str, client_id: str | None = None) -> SignedIn | None:
        """Return who is signed in, with what they allow a client; None for a cookie of nobody (any more).

        StoreUnavailable if nobody knows.
        """
        if not cookie.startswith(_COOKIE_PREFIX):
            return None
        values = {"cookie_hash": _hash(cookie), "for_client": client_id, "now": clock.now()}
        row = await self._db.ask(_FIND, values)
        return None if row is None else SignedIn(row.pop("id"), **row)

    def start(
        self, tx: AsyncSession, *, user_id: UUID, generation: int, amr: str, ip: str | None, user_agent: str | None
    ) -> str:
        """Sign a browser in as somebody who has proved it (authentication.admit in the same `tx`); return the cookie.

        It is a new one each time, so a cookie that somebody planted before is worth nothing.
        """
        cookie, now = opaque.random_text(_COOKIE_PREFIX), clock.now()
        tx.add(
            BrowserSession(
                id=uuid4(),
                user_id=user_id,
                cookie_hash=_hash(cookie),
                generation=generation,
                amr=amr,
                authenticated_at=now,
                ip=ip,
                user_agent=user_agent and user_agent[:255],
                created_at=now,
                expires_at=now + self._life,
            )
        )
        return cookie

    async def renew(self, tx: AsyncSession, who: SignedIn, *, generation: int, amr: str | None = None) -> str | None:
        """Give the browser of somebody who has proved it anew another cookie; None if it was signed out meanwhile.

        `amr`: how they proved it now; without it, only the cookie changes and `generation` (after a new password).
        """
        row = await tx.get(BrowserSession, who.browser_session_id, with_for_update=True)
        if row is None:
            return None
        cookie, now = opaque.random_text(_COOKIE_PREFIX), clock.now()
        row.cookie_hash, row.generation, row.expires_at = _hash(cookie), generation, now + self._life
        if amr is not None:
            row.amr, row.authenticated_at = amr, now
        return cookie

    async def end(self, tx: AsyncSession, *which: ColumnElement[bool], because: str) -> int:
        """Sign out the browsers that meet the conditions, and what came from them, save what may live offline.

        The clients of that hear of the logout too, and may go on (Back-Channel Logout §2.7).
        `tx` comes from `denylist.revoking()`. Returns how many browsers they were.
        """
        query = delete(BrowserSession).where(*which).returning(BrowserSession.id)
        ended = (await tx.scalars(query.execution_options(synchronize_session=False))).all()
        if ended:
            came_from_them = UserSession.browser_session_id.in_(ended)
            await self._sessions.end(tx, came_from_them, ~has_scope(OFFLINE), because=because)
            lives_on = is_alive(clock.now())
            await logout_notices.write(self._db, tx, came_from_them, has_scope(OFFLINE), lives_on)
        return len(ended)

    async def alive(self, tx: AsyncSession, user_id: UUID) -> list[BrowserSession]:
        """Return the browsers in which a user is signed in, newest first."""
        query = (
            select(BrowserSession)
            .join(User, User.id == BrowserSession.user_id)
            .where(
                BrowserSession.user_id == user_id,
                BrowserSession.expires_at > clock.now(),
                BrowserSession.generation == User.generation,
            )
            .order_by(BrowserSession.created_at.desc())
        )
        return list(await tx.scalars(query))


def _hash(cookie: str) -> str:
    return opaque.digest(cookie.encode("utf-8", "surrogatepass"))
