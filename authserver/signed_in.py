"""Who sits at the browser: the cookie of the sign-in, read and written."""

from starlette.requests import Request
from starlette.responses import Response

from authserver import services
from authserver.observability import requests
from authserver.sessions.browser import SignedIn
from authserver.settings import Settings


def cookie_name(settings: Settings, purpose: str = "session") -> str:
    """Return `__Host-authserver_…`, which nobody else can set; over plain http (loopback) browsers do not take that."""
    prefix = "__Host-" if settings.issuer.startswith("https:") else ""
    return f"{prefix}authserver_{purpose}"


async def who(request: Request, client_id: str | None = None) -> SignedIn | None:
    """Return who is signed in in this browser, if anybody is, with what they allow a client.

    StoreUnavailable if nobody knows.
    """
    house = services.of(request)
    cookie = request.cookies.get(cookie_name(house.settings))
    found = await house.browser_sessions.find(cookie, client_id) if cookie else None
    if found is not None:
        requests.note(user_id=str(found.user_id))
    return found


def remember(response: Response, settings: Settings, cookie: str) -> None:
    """Have the browser keep the cookie of a sign-in."""
    response.set_cookie(
        cookie_name(settings),
        cookie,
        max_age=settings.browser_session_seconds,
        path="/",
        secure=settings.issuer.startswith("https:"),
        httponly=True,
        samesite="lax",  # clients send people here by links and redirects
    )


def forget(response: Response, settings: Settings) -> None:
    """Have the browser throw the cookie away."""
    response.delete_cookie(
        cookie_name(settings), path="/", secure=settings.issuer.startswith("https:"), httponly=True, samesite="lax"
    )
