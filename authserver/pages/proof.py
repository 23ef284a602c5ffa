"""Somebody has proved who they are: their browser is signed in, under a new cookie, or the proof is refreshed."""

from starlette.requests import Request

from authserver import services
from authserver.observability import requests
from authserver.sessions.browser import SignedIn
from authserver.sessions.models import BrowserSession
from authserver.users.authentication import VerifiedPassword

PASSWORD = "pwd"
"""RFC 8176."""


async def accept(request: Request, who: SignedIn | None, verified: VerifiedPassword) -> str | None:
    """Return the new cookie; None if the account changed while the password was verified.

    `who` was signed in here until now: the same user stays in the same browser session, another one is signed out.
    """
    house = services.of(request)
    is_other = who is not None and who.user_id != verified.user_id
    requests.note(user_id=str(verified.user_id))
    async with house.denylist.revoking() if is_other else house.db.write() as tx:
        if not await house.authentication.admit(tx, verified):
            return None
        cookie = None
        if who is not None and not is_other:
            cookie = await house.browser_sessions.renew(tx, who, generation=verified.generation, amr=PASSWORD)
        elif who is not None:
            mine = BrowserSession.id == who.browser_session_id
            await house.browser_sessions.end(tx, mine, because="another user signed in")
        return cookie or house.browser_sessions.start(
            tx,
            user_id=verified.user_id,
            generation=verified.generation,
            amr=PASSWORD,
            ip=ip_of(request),
            user_agent=request.headers.get("user-agent"),
        )


def ip_of(request: Request) -> str | None:
    """Return the address of who asks."""
    return request.client.host if request.client else None
