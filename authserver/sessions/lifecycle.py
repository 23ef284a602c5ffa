"""The life of a sign-in: it starts, its refresh token rotates, it ends.

The refresh rule is all in `rotate`: one compare-and-set on the session row decides, the database being the only judge
between any number of requests on any number of nodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    ColumnElement,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import audit, clock, opaque, patience
from authserver.clients.models import Client
from authserver.db import Database
from authserver.gathering import Gathering
from authserver.observability import metrics
from authserver.sessions import logout_notices, refresh_token, statements
from authserver.sessions.models import UserSession
from authserver.sessions.refresh_token import RefreshToken
from authserver.sessions.statements import is_alive
from authserver.settings import Settings
from authserver.statement import Row
from authserver.tokens import access_token
from authserver.tokens.denylist import MARGIN, Denylist, session_entry

_Rotated = tuple[Row, datetime]
"""What a rotation returned of the session, and when the new access token expires if the session lasts so long."""
_AT_ONCE = 100
"""So many sessions are begun, rotated or ended in one transaction."""
_ENDED = (
    UserSession.id,
    UserSession.browser_session_id,
    UserSession.tokens_expire_at,
    UserSession.expires_at,
    UserSession.revoked_at,
)


@dataclass(frozen=True)
class SignIn:
    """What a token response is made from: the session as it is after `start` or `rotate`."""

    session_id: UUID
    user_id: UUID | None
    """None: a client acts for itself."""
    username: str | None
    scope: str
    jti: str
    """Of the access token to be signed."""
    access_expires_at: datetime
    refresh_token: str | None
    audience: list[str] | None = None
    """Whom its access tokens are for; None: whom the client's are for."""
    userinfo_claims: list[str] | None = None
    id_token_claims: list[str] | None = None
    authenticated: "Authenticated | None" = None


@dataclass(frozen=True)
class Authenticated:
    """How and when a user has proved, in a browser, who they are."""

    at: datetime
    amr: str
    """Separated by spaces (RFC 8176)."""


@dataclass(frozen=True)
class Found:
    """The session of a refresh token."""

    session: UserSession
    username: str
    token: RefreshToken
    """Of whatever age; the session's generation is that of the one that is good now."""
    is_alive: bool
    """The session has neither ended nor run out."""

    @property
    def is_good(self) -> bool:
        """Tell whether the token can be traded for its successor."""
        return self.is_alive and self.token.generation == self.session.generation


class Sessions:
    """Starts, rotates, finds and ends sign-ins. Whoever ends them does so inside `denylist.revoking()`."""

    def __init__(self, settings: Settings, db: Database, denylist: Denylist) -> None:
        self._db = db
        self._access_life = timedelta(seconds=settings.access_token_seconds)
        self._idle_life = timedelta(seconds=settings.refresh_token_idle_seconds)
        self._max_life = timedelta(seconds=settings.session_max_seconds)
        self._client_memory = timedelta(seconds=settings.client_cache_seconds)
        self._retry_window = timedelta(seconds=settings.refresh_retry_seconds)
        self._key = opaque.derived_key(settings.secret_key.get_secret_value(), "refresh tokens")
        self._denylist = denylist
        self._ending: Gathering[tuple[UUID, str], None] = Gathering(self._end_together, _AT_ONCE)
        self._starting: Gathering[Mapping[str, Any], bool] = Gathering(self._start_together, _AT_ONCE)
        self._rotating: Gathering[tuple[RefreshToken, str], _Rotated | None] = Gathering(
            self._rotate_together, _AT_ONCE
        )

    async def start(
        self,
        *,
        user_id: UUID,
        username: str,
        generation: int,
        client_id: str,
        grant: str,
        scope: str,
        refreshable: bool,
        ip: str | None,
        user_agent: str | None,
        session_id: UUID | None = None,
        browser_session_id: UUID | None = None,
        authenticated: Authenticated | None = None,
        audience: list[str] | None = None,
        userinfo_claims: list[str] | None = None,
        id_token_claims: list[str] | None = None,
        tx: AsyncSession | None = None,
    ) -> SignIn | None:
        """Begin a session; None if the user or the client has been switched off, or the user's generation has changed.

        One statement decides that and writes the row, so whatever ends sign-ins comes before it and is seen, or after
        it and ends this one too. On PostgreSQL it writes those of all that sign in at this moment, unless there is a
        `tx`. `session_id` is made here unless given.
        """
        now = clock.now()
        max_expires_at = now + self._max_life
        access_expires_at = min(now + self._access_life, max_expires_at)
        token = refresh_token.first() if refreshable else None
        session_id, jti = session_id or uuid4(), access_token.new_jti()
        values = {
            "session_id": session_id,
            "of_user": user_id,
            "of_generation": generation,
            "of_client": client_id,
            "by_grant": grant,
            "scope": scope,
            "jti": jti,
            "access_expires_at": access_expires_at,
            "family_hash": token.family_hash if token else None,
            "ip": ip,
            "user_agent": user_agent and user_agent[:255],
            "now": now,
            "idle_until": min(now + self._idle_life, max_expires_at) if refreshable else access_expires_at,
            "max_expires_at": max_expires_at,
            "browser_session_id": browser_session_id,
            "audience": audience,
            "userinfo_claims": userinfo_claims,
            "id_token_claims": id_token_claims,
            "authenticated_at": authenticated and authenticated.at,
            "amr": authenticated and authenticated.amr,
        }
        may_share = tx is None and not self._db.is_sqlite
        is_started = may_share and await patience.ask(self._starting.ask(values))
        if not is_started and await self._db.ask(statements.START, values, tx) is None:
            return None
        metrics.SESSIONS_STARTED.inc()
        return SignIn(
            session_id=session_id,
            user_id=user_id,
            username=username,
            scope=scope,
            jti=jti,
            access_expires_at=access_expires_at,
            refresh_token=refresh_token.write(self._key, token) if token else None,
            audience=audience,
            userinfo_claims=userinfo_claims,
            id_token_claims=id_token_claims,
            authenticated=authenticated,
        )

    async def _start_together(self, wanted: Sequence[Mapping[str, Any]]) -> Sequence[bool]:
        """Begin those sessions whose user and client nobody else works on; tell which."""
        values = {name: [one[name] for one in wanted] for name in wanted[0]}
        started = {row["id"] for row in await self._db.ask_all(statements.START_TOGETHER, values)}
        return [one["session_id"] in started for one in wanted]

    async def rotate(self, text: str, client_id: str) -> SignIn | None:
        """Trade a refresh token for its successor; None when it is not good (RFC 9700 §4.14.2).

        The current token moves the session on by one generation. The one before it gets the same successor again for
        `refresh_retry_seconds`: an answer was lost, or two tabs asked. Any other genuine token has been used before:
        somebody else has a copy, and the session ends with all its tokens.
        """
        token = refresh_token.read(self._key, text)
        if token is None:
            return None
        rotated = None if self._db.is_sqlite else await patience.ask(self._rotating.ask((token, client_id)))
        rotated = rotated or await self._rotate_alone(token, client_id)
        if rotated is None:
            async with self._denylist.revoking() as tx:  # for reuse ends the session
                return await self._retried_or_reused(tx, text, client_id)
        row, access_expires_at = rotated
        return SignIn(
            session_id=row["id"],
            user_id=row["user_id"],
            username=row["username"],
            scope=row["scope"],
            jti=row["token_jti"],
            access_expires_at=min(access_expires_at, row["max_expires_at"]),
            refresh_token=refresh_token.write(self._key, token.successor()),
            audience=row["audience"],
            userinfo_claims=row["userinfo_claims"],
            id_token_claims=row["id_token_claims"],
            authenticated=_authenticated(row["authenticated_at"], row["amr"]),
        )

    async def _rotate_together(self, presented: Sequence[tuple[RefreshToken, str]]) -> Sequence[_Rotated | None]:
        """Rotate those sessions that nobody else works on. Who comes second with a token gets nothing here."""
        first: dict[str, int] = {}
        for number, (token, _) in enumerate(presented):
            first.setdefault(token.family_hash, number)
        moment = self._moment()
        rows = await self._db.ask_all(
            statements.ROTATE_TOGETHER,
            {
                "family_hash": list(first),
                "of_client": [presented[number][1] for number in first.values()],
                "presented": [presented[number][0].generation for number in first.values()],
                "jti": [access_token.new_jti() for _ in first],
                **moment,
            },
        )
        rotated = {first[row["refresh_hash"]]: (row, moment["access_expires_at"]) for row in rows}
        return [rotated.get(number) for number in range(len(presented))]

    async def _rotate_alone(self, token: RefreshToken, client_id: str) -> _Rotated | None:
        moment = self._moment()
        row = await self._db.ask(
            statements.ROTATE,
            {
                "family_hash": token.family_hash,
                "of_client": client_id,
                "presented": token.generation,
                "jti": access_token.new_jti(),
                **moment,
            },
        )
        return None if row is None else (row, moment["access_expires_at"])

    def _moment(self) -> dict[str, datetime]:
        now = clock.now()
        return {"now": now, "access_expires_at": now + self._access_life, "idle_until": now + self._idle_life}

    async def _retried_or_reused(self, tx: AsyncSession, text: str, client_id: str) -> SignIn | None:
        """Tell a retry, which gets what the first one got and writes nothing, from reuse, which ends the session."""
        found = await self.find(text, tx)
        # A token in the hands of another client is refused, but not that client's to end a session with.
        if found is None or found.session.client_id != client_id:
            return None
        session, now = found.session, clock.now()
        if not found.is_alive:
            if session.revoked_at is not None:
                # Who ended it may not have told everybody yet; whoever hears of it here must not hear "good" elsewhere.
                await self.end(tx, UserSession.id == session.id, because="revoked")
            return None
        is_previous = found.token.generation + 1 == session.generation
        if is_previous and session.rotated_at is not None and now < session.rotated_at + self._retry_window:
            metrics.REFRESH_RETRIES.inc()
            return SignIn(
                session_id=session.id,
                user_id=session.user_id,
                username=found.username,
                scope=session.scope,
                jti=access_token.new_jti(),
                access_expires_at=min(now + self._access_life, session.tokens_expire_at),
                refresh_token=refresh_token.write(self._key, found.token.successor()),
                audience=session.audience,
                userinfo_claims=session.userinfo_claims,
                id_token_claims=session.id_token_claims,
                authenticated=_authenticated(session.authenticated_at, session.amr),
            )
        metrics.REFRESH_REUSES.inc()
        await self.end(tx, UserSession.id == session.id, because="reuse")
        audit.record(
            tx,
            "refresh_token_reused",
            user_id=session.user_id,
            client_id=client_id,
            session_id=session.id,
            presented_generation=found.token.generation,
            current_generation=session.generation,
        )
        return None

    async def find(self, text: str, tx: AsyncSession | None = None) -> Found | None:
        """Return the session that a refresh token belongs to; None if it has none (any more)."""
        token = refresh_token.read(self._key, text)
        if token is None:
            return None
        row = await self._db.ask(statements.FIND, {"family_hash": token.family_hash}, tx)
        if row is None:
            return None
        username = row.pop("username")
        session = UserSession(**row)
        is_alive = session.revoked_at is None and session.expires_at > clock.now()
        return Found(session, username, token, is_alive)

    async def alive(
        self, tx: AsyncSession, *which: ColumnElement[bool], limit: int | None = None
    ) -> Sequence[UserSession]:
        """Return the living sessions that meet all conditions, newest first."""
        query = select(UserSession).where(is_alive(clock.now()), *which).order_by(UserSession.created_at.desc())
        return (await tx.scalars(query.limit(limit))).all()

    async def count_alive(self, tx: AsyncSession, *which: ColumnElement[bool]) -> int:
        """Return how many living sessions meet all conditions."""
        query = select(func.count()).select_from(UserSession).where(is_alive(clock.now()), *which)
        return await tx.scalar(query) or 0

    async def end(self, tx: AsyncSession, *which: ColumnElement[bool], because: str) -> int:
        """End all sessions that meet the conditions, with every token that was or is being made from them.

        `tx` comes from `denylist.revoking()`. Ending again is as good as once: what has ended already is denied
        anew, since whoever ended it may not have lived to tell everybody. Returns how many were alive until now.
        """
        now = clock.now()
        result = await tx.execute(
            update(UserSession)
            .where(*which, or_(UserSession.revoked_at.is_(None), UserSession.tokens_expire_at > now - MARGIN))
            .values(
                revoked_at=func.coalesce(UserSession.revoked_at, now),
                revoked_because=func.coalesce(UserSession.revoked_because, because),
            )
            .returning(*_ENDED)
            .execution_options(synchronize_session=False)
        )
        rows = result.all()
        await self._denylist.deny(tx, {session_entry(row.id): row.tokens_expire_at for row in rows})
        ended = [row for row in rows if row.revoked_at == now]
        from_browsers = [row.id for row in ended if row.browser_session_id is not None]
        if from_browsers:
            await logout_notices.write(self._db, tx, UserSession.id.in_(from_browsers))
        metrics.SESSIONS_REVOKED.labels(because).inc(len(ended))
        return sum(row.expires_at > now for row in ended)

    async def end_found(self, found: Found, *, because: str) -> None:
        """End the session of a refresh token, as `end` does, in one transaction with all others of this moment."""
        session = found.session
        if self._db.is_sqlite:
            async with self._denylist.revoking() as tx:
                await self.end(tx, UserSession.id == session.id, because=because)
            return
        await patience.ask(self._ending.ask((session.id, because)))
        if session.revoked_at is None:
            metrics.SESSIONS_REVOKED.labels(because).inc()

    async def _end_together(self, sessions: Sequence[tuple[UUID, str]]) -> Sequence[None]:
        for because in {because for _, because in sessions}:
            these = [session_id for session_id, reason in sessions if reason == because]
            values = {"these": these, "now": clock.now(), "margin": MARGIN, "because": because}
            await self._denylist.deny_by(statements.END, values)
        return [None] * len(sessions)

    async def end_own(self, tx: AsyncSession, client: Client) -> None:
        """End what a client got for itself (client_credentials), and what it may still get from a node's short memory.

        `tx` comes from `denylist.revoking()`, the client is locked in it. What it gets later is good again.
        """
        last_exp = clock.now() + self._client_memory + self._access_life
        await self._denylist.deny(tx, {session_entry(client.own_session_id): last_exp})
        client.own_session_id = uuid4()


def _authenticated(at: datetime | None, amr: str | None) -> Authenticated | None:
    return None if at is None or amr is None else Authenticated(at, amr)
