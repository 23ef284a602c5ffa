"""A browser and a client that go through the authorization code flow, for tests."""

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from authserver.services import Services
from tests import application
from tests.application import ISSUER
from tests.factories import App, NewClient, NewUser, Person, agreed, basic, signed_in_browser

CALLBACK = "https://app.example/callback"
SCOPE = "openid profile email"


def challenge_of(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


@dataclass
class Flow:
    """One person in one browser, and the client that sends them here."""

    services: Services
    browser: httpx.AsyncClient
    client: httpx.AsyncClient
    app: App
    user: Person
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def request(self, **changes: str | None) -> dict[str, str]:
        """Return the parameters of a sound request; a change to None leaves one out."""
        usual: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.app.client_id,
            "redirect_uri": CALLBACK,
            "scope": SCOPE,
            "state": "the state",
            "nonce": "the nonce",
            "code_challenge": challenge_of(self.verifier),
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in (usual | changes).items() if value is not None}

    async def authorize(self, **changes: str | None) -> httpx.Response:
        """Send the browser to /authorize."""
        return await self.browser.get("/authorize", params=self.request(**changes))

    async def code(self, **changes: str | None) -> str:
        """Return the code of a request that must succeed."""
        return sent_back(await self.authorize(**changes))["code"]

    async def redeem(self, code: str, /, **changes: str | None) -> httpx.Response:
        """Trade a code as the client should; a change to None leaves a parameter out."""
        usual: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": self.verifier,
            "client_id": self.app.client_id if self.app.secret is None else None,
        }
        form = {name: value for name, value in (usual | changes).items() if value is not None}
        return await self.client.post("/token", data=form, auth=self.proof)

    async def tokens(self, **changes: str | None) -> dict[str, Any]:
        """Go all the way, which must succeed."""
        answer = await self.redeem(await self.code(**changes))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def refresh(self, token: str, **form: str) -> httpx.Response:
        """Trade a refresh token."""
        data = {"grant_type": "refresh_token", "refresh_token": token} | form
        if self.app.secret is None:
            data["client_id"] = self.app.client_id
        return await self.client.post("/token", data=data, auth=self.proof)

    async def is_active(self, token: str) -> bool:
        """Ask, as the client, whether a token is good."""
        answer = await self.client.post("/introspect", data={"token": token}, auth=self.proof)
        return bool(answer.json()["active"])

    @property
    def proof(self) -> Any:
        """How the client proves itself."""
        return httpx.USE_CLIENT_DEFAULT if self.app.secret is None else basic(self.app)


NewFlow = Callable[..., Awaitable[Flow]]


@pytest.fixture
async def new_flow(
    app: FastAPI, services: Services, client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> AsyncIterator[NewFlow]:
    """Make a client, and a person who is signed in and has agreed unless the test says so: `await new_flow()`."""
    async with AsyncExitStack() as stack:

        async def make(*, is_signed_in: bool = True, consent: str | None = SCOPE, **changes: Any) -> Flow:
            usual = {"grants": ["authorization_code", "refresh_token"], "redirect_uris": [CALLBACK]}
            made, user = await new_client(**(usual | changes)), await new_user()
            browser = await stack.enter_async_context(application.client_of(app))
            if is_signed_in:
                await signed_in_browser(services, browser, user)
            if consent:
                await agreed(services, user, made, consent)
            return Flow(services, browser, client, made, user)

        yield make


def sent_back(answer: httpx.Response, mode: str = "query") -> dict[str, str]:
    """Return what the client is sent, which must be at its redirect URI."""
    assert answer.status_code == 303, answer.text
    address = answer.headers["location"]
    parts = urlsplit(address)
    assert address.startswith(CALLBACK), address
    pairs = parse_qsl(getattr(parts, mode), keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    assert dict(pairs)["iss"] == ISSUER
    return dict(pairs)


def sent_to(answer: httpx.Response, page: str) -> dict[str, str]:
    """Return the parameters with which the browser is sent to one of our pages."""
    assert answer.status_code == 303, answer.text
    parts = urlsplit(answer.headers["location"])
    assert (parts.scheme, parts.netloc, parts.path) == ("", "", page), answer.headers["location"]
    return dict(parse_qsl(parts.query, strict_parsing=True))
