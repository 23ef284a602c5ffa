"""Somebody who is signed in, and how to tell that this is over."""

from dataclasses import dataclass

import httpx
import pytest
from sqlalchemy import select

from authserver.audit import AuditEvent
from authserver.services import Services
from tests.factories import App, NewClient, NewUser, Person, basic, bearer, claims_of, sign_in
from tests.test_register import assert_problem


@dataclass(frozen=True)
class SignedIn:
    """A user, and the tokens of one session."""

    app: App
    user: Person
    tokens: dict[str, str]

    @property
    def headers(self) -> dict[str, str]:
        return bearer(self.tokens["access_token"])

    @property
    def session_id(self) -> str:
        return str(claims_of(self.tokens["access_token"])["sid"])


async def signed_in(client: httpx.AsyncClient, app: App, user: Person, **form: str) -> SignedIn:
    response = await sign_in(client, app, user, **form)
    assert response.status_code == 200, response.text
    return SignedIn(app, user, response.json())


@pytest.fixture
async def me(client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser) -> SignedIn:
    """Somebody who is signed in."""
    return await signed_in(client, await new_client(), await new_user())


async def is_active(client: httpx.AsyncClient, who: SignedIn) -> bool:
    response = await client.post("/introspect", data={"token": who.tokens["access_token"]}, auth=basic(who.app))
    return bool(response.json()["active"])


async def refresh(client: httpx.AsyncClient, who: SignedIn) -> int:
    form = {"grant_type": "refresh_token", "refresh_token": who.tokens["refresh_token"]}
    return (await client.post("/token", data=form, auth=basic(who.app))).status_code


async def assert_over(client: httpx.AsyncClient, who: SignedIn) -> None:
    assert not await is_active(client, who)
    assert await refresh(client, who) == 400
    assert_problem(await client.get("/users/me", headers=who.headers), 401, "unauthenticated")


async def events(services: Services, user: Person) -> list[str]:
    async with services.db.read() as tx:
        query = select(AuditEvent.event).where(AuditEvent.user_id == user.id).order_by(AuditEvent.at)
        return list((await tx.scalars(query)).all())
