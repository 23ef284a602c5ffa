"""Authorization codes: made when a user has agreed, traded once for a session (RFC 6749 §4.1.2).

A code is worth nothing by itself: user, browser, consent and client are looked at again when it is traded, and locked
until the session is there. So a sign-out, a withdrawal or a new password comes before that and is seen, or after it and
ends the session.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import cast
from uuid import UUID, uuid4

from sqlalchemy import Row, String, Table, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import audit, clock, opaque
from authserver.clients.models import Client
from authserver.db import Database
from authserver.sessions.browser import SignedIn
from authserver.sessions.lifecycle import Authenticated, Sessions, SignIn
from authserver.sessions.models import AuthorizationCode, BrowserSession, Consent, UserSession
from authserver.settings import Settings
from authserver.statement import Statement
from authserver.tokens.denylist import Denylist
from authserver.users.models import User

PREFIX = "authserver_ac_"
"""For secret scanners."""
Ground = Row[str, str | None, str | None]
_TABLE = cast("Table", AuthorizationCode.__table__)
_ISSUE = Statement(insert(_TABLE).returning(_TABLE.c.code_hash))
_FIND = Statement(select(*_TABLE.columns).where(_TABLE.c.code_hash == bindparam("this", type_=String)))


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What a user allows a client, as one authorization request has asked for it."""

    client_id: str
    redirect_uri: str | None
    """As it stood in the request."""
    scope: str
    audience: list[str] | None = None
    id_token_claims: list[str] | None = None
    userinfo_claims: list[str] | None = None
    code_challenge: str | None = None
    nonce: str | None = None


class AuthorizationCodes:
    """Issues, finds and redeems them."""

    def __init__(self, settings: Settings, db: Database, denylist: Denylist, sessions: Sessions) -> None:
        self._db = db
        self._denylist = denylist
        self._sessions = sessions
        self._life = timedelta(seconds=settings.authorization_code_seconds)

    async def issue(self, who: SignedIn, allowed: Allowed, tx: AsyncSession | None = None) -> str:
        """Return a code for what somebody allows; one statement, in a transaction of its own unless there is one."""
        code, now = opaque.random_text(PREFIX), clock.now()
        values = {
            **vars(allowed),
            "code_hash": _hash(code),
            "user_id": who.user_id,
            "generation": who.generation,
            "browser_session_id": who.browser_session_id,
            "authenticated_at": who.authenticated_at,
            "amr": who.amr,
            "created_at": now,
            "expires_at": now + self._life,
            "session_id": None,
        }
        await self._db.ask(_ISSUE, values, tx)
        return code

    async def find(self, code: str) -> AuthorizationCode | None:
        """Return what is known of a code, good or not (any more)."""
        row = await self._db.ask(_FIND, {"this": _hash(code)}) if code.startswith(PREFIX) else None
        return None if row is None else AuthorizationCode(**row)

    async def redeem(self, code: AuthorizationCode, client: Client) -> SignIn | None:
        """Trade a code that its own client has shown, with all that belongs to it, for a session; None if it is over.

        The second time it ends the session of the first (RFC 6749 §4.1.2, RFC 9700 §2.1.1), also when both come at the
        same moment: then nobody can tell the client from somebody who knows as much.
        """
        if code.session_id is None:
            if clock.now() >= code.expires_at:
                return None
            session_id = uuid4()
            async with self._db.write() as tx:
                ground = await _ground(tx, code, client)
                if ground is None:
                    return None
                if await _take(tx, code, session_id):
                    return await self._start(tx, code, client, session_id, ground)
        await self._end_what_it_gave(code)
        return None

    async def _start(
        self, tx: AsyncSession, code: AuthorizationCode, client: Client, session_id: UUID, ground: Ground
    ) -> SignIn | None:
        return await self._sessions.start(
            session_id=session_id,
            user_id=code.user_id,
            username=ground.username,
            generation=code.generation,
            client_id=client.id,
            grant="authorization_code",
            scope=code.scope,
            refreshable="refresh_token" in client.grants,
            ip=ground.ip,  # of the browser, for that is where the user is; who asks may be a server
            user_agent=ground.user_agent,
            browser_session_id=code.browser_session_id,
            authenticated=Authenticated(code.authenticated_at, code.amr),
            audience=code.audience,
            userinfo_claims=code.userinfo_claims,
            id_token_claims=code.id_token_claims,
            tx=tx,
        )

    async def _end_what_it_gave(self, code: AuthorizationCode) -> None:
        async with self._denylist.revoking() as tx:
            session_id = await tx.scalar(
                select(AuthorizationCode.session_id).where(AuthorizationCode.code_hash == code.code_hash)
            )
            if session_id is None:
                return
            if await self._sessions.end(tx, UserSession.id == session_id, because="code reused"):
                audit.record(
                    tx,
                    "authorization_code_reused",
                    user_id=code.user_id,
                    client_id=code.client_id,
                    session_id=session_id,
                )


async def _ground(tx: AsyncSession, code: AuthorizationCode, client: Client) -> Ground | None:
    """Return whose code it is and from which browser, None if something is gone that it stands on.

    What is there stays so until the transaction ends. It is locked in the order of everybody who locks several of them
    (user, client, browser, consent, code, sessions), so nobody waits in a circle.
    """
    query = (
        select(User.username, BrowserSession.ip, BrowserSession.user_agent)
        .select_from(User)
        .join(Client, Client.id == code.client_id)
        .join(BrowserSession, BrowserSession.user_id == User.id)
        .where(
            User.id == code.user_id,
            User.is_active,
            User.generation == code.generation,
            Client.is_active,
            BrowserSession.id == code.browser_session_id,
        )
    )
    ground = (await tx.execute(query.with_for_update(read=True, of=[User, Client, BrowserSession]))).one_or_none()
    if ground is None or client.is_trusted:
        return ground
    of_both = (Consent.user_id == code.user_id, Consent.client_id == code.client_id)
    allowed = await tx.scalar(select(Consent.scope).where(*of_both).with_for_update(read=True))
    # It may have been withdrawn since, and given anew for less.
    return ground if allowed is not None and set(code.scope.split(" ")) <= set(allowed.split(" ")) else None


async def _take(tx: AsyncSession, code: AuthorizationCode, session_id: UUID) -> bool:
    """Be the one who redeems a code: the compare-and-set that decides between any number of requests."""
    taken = await tx.scalar(
        update(AuthorizationCode)
        .where(AuthorizationCode.code_hash == code.code_hash, AuthorizationCode.session_id.is_(None))
        .values(session_id=session_id)
        .returning(AuthorizationCode.code_hash)
        .execution_options(synchronize_session=False)
    )
    return taken is not None


def _hash(code: str) -> str:
    return opaque.digest(code.encode("utf-8", "surrogatepass"))
