"""A node committed a revocation and died before it told Redis: whoever hears of it anywhere hears it everywhere."""

import asyncio
from datetime import timedelta
from uuid import UUID

import httpx
import pytest
from sqlalchemy import delete, update

from authserver import clock
from authserver.services import Services
from authserver.sessions.models import UserSession
from authserver.tokens.denylist import session_entry
from authserver.tokens.models import DenylistEntry
from authserver.users.models import User
from tests.factories import App, NewClient, NewUser, Person, bearer, claims_of, sign_in
from tests.test_introspect import INACTIVE, introspect
from tests.test_token_form import assert_oauth_error
from tests.test_token_refresh import refresh


@pytest.fixture
async def caller(new_client: NewClient) -> App:
    return await new_client()


@pytest.fixture
async def user(new_user: NewUser) -> Person:
    return await new_user()


@pytest.fixture
async def tokens(client: httpx.AsyncClient, services: Services, caller: App, user: Person) -> dict[str, str]:
    """A sign-in, at a time when Redis may be believed (on PostgreSQL)."""
    for _ in range(400):
        if services.db.is_sqlite or "\nauthserver_denylist_trusted 1.0" in (await client.get("/metrics")).text:
            break
        await asyncio.sleep(0.05)
    given = dict((await sign_in(client, caller, user)).json())
    assert (await introspect(client, caller, given["access_token"])).json()["active"]
    return given


@pytest.mark.parametrize("heard", ["refresh", "introspect"])
async def test_a_refresh_token_of_a_session_that_has_ended_takes_the_access_tokens_with_it(
    client: httpx.AsyncClient, services: Services, caller: App, tokens: dict[str, str], heard: str
) -> None:
    session_id = UUID(claims_of(tokens["access_token"])["sid"])
    async with services.db.write() as tx:
        ended = update(UserSession).where(UserSession.id == session_id)
        await tx.execute(ended.values(revoked_at=clock.now(), revoked_because="revoked"))
        tx.add(DenylistEntry(entry=session_entry(session_id), forget_at=clock.now() + timedelta(hours=1)))
    if heard == "refresh":
        assert_oauth_error(await refresh(client, caller, tokens["refresh_token"]), 400, "invalid_grant")
    else:
        assert (await introspect(client, caller, tokens["refresh_token"])).content == INACTIVE
    assert (await introspect(client, caller, tokens["access_token"])).content == INACTIVE


async def test_a_token_that_is_refused_because_its_user_is_gone_is_dead_everywhere(
    client: httpx.AsyncClient, services: Services, caller: App, user: Person, tokens: dict[str, str]
) -> None:
    session_id = claims_of(tokens["access_token"])["sid"]
    async with services.db.write() as tx:
        await tx.execute(delete(User).where(User.id == user.id))
        tx.add(DenylistEntry(entry=session_entry(session_id), forget_at=clock.now() + timedelta(hours=1)))
    assert (await client.get("/users/me", headers=bearer(tokens["access_token"]))).status_code == 401
    assert (await introspect(client, caller, tokens["access_token"])).content == INACTIVE
