"""People in browsers, for tests: signed in without the pages, they bring applications their codes."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from authserver import opaque, signed_in
from authserver.services import Services
from authserver.users.models import User
from tests.factories import App, NewClient, Person, basic

REDIRECT_URI = "https://app.example/callback"
VERIFIER = "a-verifier-that-is-long-enough-for-everybody-who-counts"
Answer = dict[str, Any]


@dataclass
class Browser:
    """A browser in which somebody is signed in; `client` is how it and everybody else reaches the server."""

    client: httpx.AsyncClient
    name: str
    cookie: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Cookie": f"{self.name}={self.cookie}"}

    async def get(self, path: str, **query: str) -> httpx.Response:
        return await self.client.get(path, params=query, headers=self.headers)

    async def code(self, app: App, scope: str = "openid", **more: str) -> str:
        """Return a code that the browser brings back from /authorize."""
        asked = {
            "response_type": "code", "client_id": app.client_id, "redirect_uri": REDIRECT_URI, "scope": scope,
            "code_challenge": opaque.b64encode(bytes.fromhex(opaque.digest(VERIFIER.encode()))),
            "code_challenge_method": "S256",
        } | more  # fmt: skip
        response = await self.get("/authorize", **asked)
        assert response.status_code == 303, response.text
        answer = parse_qs(urlsplit(response.headers["location"]).query)
        assert "code" in answer, response.headers["location"]
        return answer["code"][0]

    async def sign_in_to(self, app: App, scope: str = "openid", **more: str) -> Answer:
        """Return the tokens that an application gets for a code."""
        code = await self.code(app, scope, **more)
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT_URI}
        response = await self.client.post("/token", data=form | {"code_verifier": VERIFIER}, auth=basic(app))
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def is_signed_in(self, services: Services) -> bool:
        return await services.browser_sessions.find(self.cookie) is not None


NewBrowser = Callable[..., Awaitable[Browser]]


@pytest.fixture
def new_browser(services: Services, client: httpx.AsyncClient) -> NewBrowser:
    """Sign somebody in: `browser = await new_browser(user)`."""

    async def make(user: Person, through: httpx.AsyncClient | None = None) -> Browser:
        async with services.db.write() as tx:
            row = await tx.get_one(User, user.id)
            cookie = services.browser_sessions.start(
                tx, user_id=user.id, generation=row.generation, amr="pwd", ip=None, user_agent=None
            )
        return Browser(through or client, signed_in.cookie_name(services.settings), cookie)

    return make


async def new_party(new_client: NewClient, **changes: Any) -> App:
    """Register a relying party that may do all that signs people in, and that nobody is asked about."""
    usual: dict[str, Any] = {
        "grants": ["authorization_code", "refresh_token"],
        "scopes": ["openid", "profile", "email", "offline_access"],
        "redirect_uris": [REDIRECT_URI],
        "is_trusted": True,
    }
    return await new_client(**usual | changes)


async def refreshed(client: httpx.AsyncClient, app: App, tokens: Answer, **form: str) -> Answer:
    """Return what the refresh token of an answer gives."""
    data = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], **form}
    response = await client.post("/token", data=data, auth=basic(app))
    assert response.status_code == 200, response.text
    return dict(response.json())


def nonce() -> str:
    return secrets.token_urlsafe()
