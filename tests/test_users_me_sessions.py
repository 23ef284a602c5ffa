"""/users/me/sessions: users see where they are signed in, and sign out there."""

from typing import Any
from uuid import uuid4

import httpx

from authserver.services import Services
from tests.application import ISSUER
from tests.factories import NewClient, NewUser, sign_in
from tests.signed_in import SignedIn, assert_over, events, is_active, refresh, signed_in
from tests.test_register import assert_problem


async def sessions(client: httpx.AsyncClient, who: SignedIn) -> list[dict[str, Any]]:
    response = await client.get("/users/me/sessions", headers=who.headers)
    assert response.status_code == 200
    found: list[dict[str, Any]] = response.json()["sessions"]
    return found


async def test_users_see_where_they_are_signed_in(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser, me: SignedIn
) -> None:
    await sign_in(client, me.app, await new_user())
    client.headers["User-Agent"] = "A browser"
    second = await signed_in(client, await new_client(), me.user, scope="openid")
    newest, oldest = await sessions(client, me)
    assert newest == {
        "id": second.session_id,
        "client_id": second.app.client_id,
        "client_name": "A client of the tests",
        "scope": "openid",
        "grant": "password",
        "ip": "192.0.2.1",
        "user_agent": "A browser",
        "created_at": newest["created_at"],
        "last_used_at": newest["created_at"],
        "expires_at": newest["expires_at"],
        "current": False,
    }
    assert (oldest["id"], oldest["current"]) == (me.session_id, True)
    assert newest["created_at"] > oldest["created_at"]


async def test_a_refreshed_session_is_one_session(client: httpx.AsyncClient, me: SignedIn) -> None:
    assert await refresh(client, me) == 200
    [session] = await sessions(client, me)
    assert session["last_used_at"] > session["created_at"]


async def test_users_sign_out_of_one_session(client: httpx.AsyncClient, services: Services, me: SignedIn) -> None:
    other = await signed_in(client, me.app, me.user)
    path = f"/users/me/sessions/{other.session_id}"
    assert (await client.delete(path, headers=me.headers)).status_code == 204
    await assert_over(client, other)
    assert [session["id"] for session in await sessions(client, me)] == [me.session_id]
    assert_problem(await client.delete(path, headers=me.headers), 404, "not-found")
    assert await events(services, me.user) == ["signed_out"]


async def test_users_sign_out_everywhere(client: httpx.AsyncClient, services: Services, me: SignedIn) -> None:
    other = await signed_in(client, me.app, me.user)
    assert (await client.delete("/users/me/sessions", headers=me.headers)).status_code == 204
    for who in (me, other):
        await assert_over(client, who)
    assert (await sign_in(client, me.app, me.user)).status_code == 200
    assert await events(services, me.user) == ["signed_out_everywhere"]


async def test_nobody_ends_a_session_of_somebody_else(
    client: httpx.AsyncClient, new_user: NewUser, me: SignedIn
) -> None:
    stranger = await signed_in(client, me.app, await new_user())
    for session_id in (stranger.session_id, str(uuid4()), "not-an-id", "%00", "é"):
        response = await client.delete(f"/users/me/sessions/{session_id}", headers=me.headers)
        assert response.status_code == 404
        assert response.json()["type"] == f"{ISSUER}/errors#not-found"
    assert await is_active(client, stranger)
