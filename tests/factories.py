"""Users and clients for tests, each with names of its own, so that tests can share a database."""

import base64
import json
import secrets
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import KeySet

from authserver import signed_in, text
from authserver.clients import registration
from authserver.services import Services
from authserver.sessions import consents
from authserver.users.models import User
from tests.application import ISSUER

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class App:
    """A registered client; a public one has no secret."""

    client_id: str
    secret: str | None


@dataclass(frozen=True)
class Person:
    """A registered user, whose password is `PASSWORD`."""

    id: UUID
    username: str
    email: str


NewClient = Callable[..., Awaitable[App]]
NewUser = Callable[..., Awaitable[Person]]


@pytest.fixture
def new_client(services: Services) -> NewClient:
    """Register a client: `app = await new_client(is_public=True)`; it may do all unless the test says otherwise."""

    async def make(
        grants: Sequence[str] = ("password", "refresh_token"),
        is_active: bool = True,
        is_public: bool = False,
        **changes: Any,
    ) -> App:
        if is_public:
            changes["auth_method"] = "none"
        new = registration.NewClient(name="A client of the tests", grants=grants, **changes)
        async with services.db.write() as tx:
            made, secret = registration.create(tx, services.clients, new)
            made.is_active = is_active
        return App(made.id, secret)

    return make


@pytest.fixture
def new_user(services: Services) -> NewUser:
    """Add a user: `user = await new_user()`."""

    async def make(**changes: Any) -> Person:
        name = f"user-{secrets.token_hex(6)}"
        email = f"{name}@example.com"
        user = User(
            username=name,
            username_key=text.fold(name),
            email=email,
            email_key=text.fold(email),
            hashed_password=await services.hasher.hash(PASSWORD),
            **changes,
        )
        async with services.db.write() as tx:
            tx.add(user)
        return Person(user.id, name, email)

    return make


async def signed_in_browser(services: Services, client: httpx.AsyncClient, user: Person, *, amr: str = "pwd") -> None:
    """Sign the browser that `client` stands for in as somebody, without the pages."""
    async with services.db.write() as tx:
        row = await tx.get_one(User, user.id)
        cookie = services.browser_sessions.start(
            tx, user_id=user.id, generation=row.generation, amr=amr, ip="192.0.2.1", user_agent="A browser"
        )
    client.cookies.set(signed_in.cookie_name(services.settings), cookie, domain=urlsplit(ISSUER).hostname or "")


async def agreed(services: Services, user: Person, app: App, scope: str = "openid profile email") -> None:
    """Have somebody consent to what a client asks for, without the pages."""
    async with services.db.write() as tx:
        await consents.give(tx, user.id, app.client_id, scope)


def basic(app: App) -> httpx.BasicAuth:
    """Return the proof of a confidential client."""
    return httpx.BasicAuth(app.client_id, app.secret or "")


def bearer(token: str) -> dict[str, str]:
    """Return the headers of a request with an access token."""
    return {"Authorization": f"Bearer {token}"}


async def sign_in(
    client: httpx.AsyncClient,
    app: App,
    user: Person,
    *,
    username: str | None = None,
    password: str = PASSWORD,
    **form: str,
) -> httpx.Response:
    """Ask for tokens with the password grant."""
    data = {"grant_type": "password", "username": username or user.username, "password": password} | form
    if app.secret is None:
        return await client.post("/token", data=data | {"client_id": app.client_id})
    return await client.post("/token", data=data, auth=basic(app))


def verified(text: str, keys: KeySet, algorithm: str) -> jwt.Token:
    """Return a JWT that one of the keys has signed with this algorithm; joserfc's error if none has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # EdDSA has a new name (RFC 9864)
        return jwt.decode(text, keys, algorithms=[algorithm])


def claims_of(token: str) -> dict[str, Any]:
    """Read the claims of a JWT without verifying it."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims
