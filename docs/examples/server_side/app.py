"""A web application whose people sign in at authserver: the code flow with PKCE, and sign-out in both directions.

Authlib does the protocol: state, PKCE, nonce, the ID token's signature and claims. What is ours is the session.
"""

import html
import os
import secrets
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.starlette_client import OAuth
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

ISSUER = os.environ.get("ISSUER", "http://127.0.0.1:8000")
URL = os.environ.get("URL", "http://127.0.0.1:3000")
CLIENT_ID = os.environ["CLIENT_ID"]
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
SESSIONS: dict[str, dict[str, Any]] = {}
"""By the name in the browser's cookie. In memory, as this is an example; the point is that they are kept here."""

authserver = OAuth().register(
    "authserver",
    client_id=CLIENT_ID,
    client_secret=os.environ["CLIENT_SECRET"],
    server_metadata_url=f"{ISSUER}/.well-known/openid-configuration",
    client_kwargs={"scope": "openid profile email", "code_challenge_method": "S256"},
)


async def home(request: Request) -> Response:
    """Greet whoever is signed in."""
    user = request.session.get("user")
    if user is None:
        return page('<p>Nobody is signed in.</p><p><a href="/login">Sign in</a></p>')
    name, email = html.escape(user["preferred_username"]), html.escape(user["email"])
    return page(f'<p>Hello {name} ({email}).</p><form method="post" action="/logout"><button>Sign out</button></form>')


async def login(request: Request) -> Response:
    """Send the browser to authserver."""
    redirect: Response = await authserver.authorize_redirect(request, f"{URL}/callback")
    return redirect


async def callback(request: Request) -> Response:
    """Trade the code for tokens, and begin a session under a new name."""
    if request.query_params.get("iss") != ISSUER:  # RFC 9207; Authlib does not look at it
        return page("<p>This answer is not from authserver.</p>", 400)
    try:
        tokens = await authserver.authorize_access_token(request)
        user = await authserver.userinfo(token=tokens)  # the ID token says who it is, not what they are called
    except OAuthError as refused:
        return page(
            f'<p>You are not signed in: {html.escape(refused.error)}.</p><p><a href="/login">Again</a></p>', 400
        )
    proved = tokens["userinfo"]  # the claims of the ID token, which Authlib has verified
    if user["sub"] != proved["sub"]:
        return page("<p>These are two people.</p>", 400)
    request.scope["session"] = {"user": dict(user), "sid": proved["sid"], "id_token": tokens["id_token"]}
    return RedirectResponse("/", 303)


async def logout(request: Request) -> Response:
    """Sign out here, then at authserver (RP-Initiated Logout), which sends the browser back."""
    id_token = request.session.get("id_token")
    request.scope["session"] = {}
    there = await authserver.create_logout_url(post_logout_redirect_uri=f"{URL}/", id_token_hint=id_token)
    return RedirectResponse(there["url"], 303)


async def backchannel_logout(request: Request) -> Response:
    """End the session of somebody who has signed out elsewhere (Back-Channel Logout §2.6)."""
    (token,) = parse_qs((await request.body()).decode()).get("logout_token", [""])
    try:
        keys = KeySet.import_key_set(await authserver.fetch_jwk_set(force=True))  # they rotate
        read = jwt.decode(token, keys, algorithms=["RS256"])
        expected = {"iss": ISSUER, "aud": CLIENT_ID}
        jwt.JWTClaimsRegistry(
            **{name: {"essential": True, "value": value} for name, value in expected.items()}, exp={"essential": True}
        ).validate(read.claims)
    except (JoseError, ValueError):
        return Response(status_code=400)
    if LOGOUT_EVENT not in read.claims.get("events", {}) or "nonce" in read.claims:
        return Response(status_code=400)
    for name, session in list(SESSIONS.items()):
        if session.get("sid") == read.claims["sid"]:
            del SESSIONS[name]
    return Response(headers={"Cache-Control": "no-store"})


class Sessions:
    """Finds a browser's session. A handler that puts another one in its place gives the browser a new cookie."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = Request(scope).cookies.get("session", "")
        scope["session"] = found = SESSIONS.get(name, {})

        async def send_with_cookie(message: Any) -> None:
            session = scope["session"]
            if message["type"] == "http.response.start" and session and (session is not found or name not in SESSIONS):
                new = secrets.token_urlsafe()
                SESSIONS[new] = session
                flags = "HttpOnly; SameSite=Lax; Path=/" + ("; Secure" if URL.startswith("https:") else "")
                message["headers"].append((b"set-cookie", f"session={new}; {flags}".encode()))
            if session is not found:
                SESSIONS.pop(name, None)
            await send(message)

        await self.app(scope, receive, send_with_cookie)


def page(body: str, status: int = 200) -> HTMLResponse:
    """Return a page."""
    start = '<!doctype html><html lang="en"><meta charset="utf-8"><title>An application</title><h1>An application</h1>'
    return HTMLResponse(start + body, status)


app = Starlette(
    routes=[
        Route("/", home),
        Route("/login", login),
        Route("/callback", callback),
        Route("/logout", logout, methods=["POST"]),
        Route("/backchannel-logout", backchannel_logout, methods=["POST"]),
    ],
    middleware=[Middleware(Sessions)],
)

if __name__ == "__main__":
    host, _, port = URL.rpartition("/")[2].partition(":")
    uvicorn.run(app, host=host, port=int(port or 80))
