"""/users/me and its password: users look after their own account."""

import asyncio
import secrets
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from authserver.services import Services
from authserver.sessions.models import UserSession
from authserver.users.models import KnownAddress
from tests.factories import PASSWORD, NewClient, NewUser, sign_in
from tests.signed_in import SignedIn, assert_over, events, is_active, refresh, signed_in
from tests.test_register import assert_problem, pointers

NEW_PASSWORD = "another good long sentence"


# The account


async def test_users_see_themselves(client: httpx.AsyncClient, me: SignedIn) -> None:
    response = await client.get("/users/me", headers=me.headers)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    user = response.json()
    assert set(user) == {"id", "username", "email", "is_active", "is_superuser", "created_at", "updated_at"}
    assert (user["id"], user["username"], user["email"]) == (str(me.user.id), me.user.username, me.user.email)


async def test_users_change_their_names(client: httpx.AsyncClient, services: Services, me: SignedIn) -> None:
    name = f"New-{secrets.token_hex(4)}"
    response = await client.patch("/users/me", json={"username": name}, headers=me.headers)
    assert response.status_code == 200
    assert (response.json()["username"], response.json()["email"]) == (name, me.user.email)
    assert response.json()["updated_at"] > response.json()["created_at"]
    response = await client.patch("/users/me", json={"email": f"{name}@Example.ORG"}, headers=me.headers)
    assert response.json()["email"] == f"{name}@example.org"
    assert (await sign_in(client, me.app, me.user)).status_code == 400
    assert (await sign_in(client, me.app, me.user, username=f"{name.upper()}@example.org")).status_code == 200
    assert await events(services, me.user) == ["user_changed", "user_changed"]


async def test_changing_nothing_changes_nothing(client: httpx.AsyncClient, services: Services, me: SignedIn) -> None:
    before = (await client.get("/users/me", headers=me.headers)).json()
    for change in ({}, {"username": me.user.username}):
        assert (await client.patch("/users/me", json=change, headers=me.headers)).json() == before
    assert await events(services, me.user) == []


async def test_another_spelling_of_ones_own_name_is_free(client: httpx.AsyncClient, me: SignedIn) -> None:
    response = await client.patch("/users/me", json={"username": me.user.username.upper()}, headers=me.headers)
    assert response.json()["username"] == me.user.username.upper()


async def test_a_name_of_somebody_else_is_taken(client: httpx.AsyncClient, new_user: NewUser, me: SignedIn) -> None:
    other = await new_user()
    for change, slug in (
        ({"username": other.username.title()}, "username-taken"),
        ({"email": other.email.upper()}, "email-taken"),
        ({"username": me.user.username, "email": other.email}, "email-taken"),
        ({"username": other.username, "email": "new@example.com"}, "username-taken"),
    ):
        assert_problem(await client.patch("/users/me", json=change, headers=me.headers), 409, slug)
    assert (await client.get("/users/me", headers=me.headers)).json()["username"] == me.user.username


async def test_of_ten_who_change_to_one_name_one_gets_it(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, name = await new_client(), f"wanted-{secrets.token_hex(6)}"
    people = [await signed_in(client, app, await new_user()) for _ in range(10)]
    asked = [client.patch("/users/me", json={"username": name}, headers=who.headers) for who in people]
    assert sorted(response.status_code for response in await asyncio.gather(*asked)) == [200] + [409] * 9


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"is_superuser": True}, "/is_superuser"),
        ({"is_active": True}, "/is_active"),
        ({"id": "x"}, "/id"),
        ({"password": NEW_PASSWORD}, "/password"),
        ({"hashed_password": "x"}, "/hashed_password"),
        ({"username": None}, "/username"),
        ({"username": ""}, "/username"),
        ({"username": "a b"}, "/username"),
        ({"email": ""}, "/email"),
        ({"email": "nowhere"}, "/email"),
    ],
    ids=str,
)
async def test_nothing_else_can_be_changed(
    client: httpx.AsyncClient, me: SignedIn, change: dict[str, Any], pointer: str
) -> None:
    assert pointers(await client.patch("/users/me", json=change, headers=me.headers)) == [pointer]
    assert not (await client.get("/users/me", headers=me.headers)).json()["is_superuser"]


async def test_a_deleted_account_is_gone_with_all_its_tokens(
    client: httpx.AsyncClient, services: Services, me: SignedIn
) -> None:
    other = await signed_in(client, me.app, me.user)
    response = await client.delete("/users/me", headers=me.headers)
    assert (response.status_code, response.content) == (204, b"")
    for who in (me, other):
        await assert_over(client, who)
    assert (await sign_in(client, me.app, me.user)).status_code == 400
    async with services.db.read() as tx:
        for table in (UserSession, KnownAddress):
            rows = select(func.count()).select_from(table).where(table.user_id == me.user.id)
            assert await tx.scalar(rows) == 0
    assert await events(services, me.user) == ["user_deleted"]
    new = {"username": me.user.username, "email": me.user.email, "password": PASSWORD}
    again = await client.post("/register", json=new)
    assert again.status_code == 201
    assert again.json()["id"] != str(me.user.id)


async def test_no_sign_in_survives_the_deletion_it_races_with(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app = await new_client()
    for _ in range(5):
        who = await signed_in(client, app, await new_user())
        *responses, deleted = await asyncio.gather(
            *(sign_in(client, app, who.user) for _ in range(4)), client.delete("/users/me", headers=who.headers)
        )
        assert deleted.status_code == 204
        for response in responses:
            assert response.status_code in {200, 400}
            if response.status_code == 200:
                await assert_over(client, SignedIn(app, who.user, response.json()))


# The password


async def change_password(
    client: httpx.AsyncClient, who: SignedIn, current: str = PASSWORD, new: str = NEW_PASSWORD
) -> httpx.Response:
    body = {"current_password": current, "new_password": new}
    return await client.post("/users/me/password", json=body, headers=who.headers)


async def test_a_new_password_ends_all_other_sessions(
    client: httpx.AsyncClient, services: Services, me: SignedIn, new_user: NewUser
) -> None:
    other, stranger = await signed_in(client, me.app, me.user), await signed_in(client, me.app, await new_user())
    response = await change_password(client, me)
    assert (response.status_code, response.content) == (204, b"")
    await assert_over(client, other)
    for who in (me, stranger):
        assert await is_active(client, who)
        assert await refresh(client, who) == 200
    assert (await sign_in(client, me.app, me.user)).status_code == 400
    assert (await sign_in(client, me.app, me.user, password=NEW_PASSWORD)).status_code == 200
    assert await events(services, me.user) == ["password_changed"]


async def test_the_current_password_must_be_right(client: httpx.AsyncClient, me: SignedIn) -> None:
    assert_problem(await change_password(client, me, current="not it"), 400, "wrong-password")
    assert (await sign_in(client, me.app, me.user)).status_code == 200


@pytest.mark.parametrize("password", ["short", "passwordpassword", "x" * 300, "line\nbreak in the password"])
async def test_a_new_password_meets_the_policy(client: httpx.AsyncClient, me: SignedIn, password: str) -> None:
    response = await change_password(client, me, new=password)
    assert pointers(response) == ["/new_password"]
    assert "x" * 300 not in response.text
    assert pointers(await change_password(client, me, new=f"I am {me.user.username}, hello")) == ["/new_password"]
    assert (await sign_in(client, me.app, me.user)).status_code == 200


async def test_of_two_password_changes_at_a_time_one_is_made(client: httpx.AsyncClient, me: SignedIn) -> None:
    passwords = [f"{NEW_PASSWORD} {number}" for number in range(4)]
    responses = await asyncio.gather(*(change_password(client, me, new=password) for password in passwords))
    assert sorted(response.status_code for response in responses) == [204, 400, 400, 400]
    made = next(password for password, response in zip(passwords, responses, strict=True) if response.is_success)
    assert (await sign_in(client, me.app, me.user, password=made)).status_code == 200


async def test_no_sign_in_with_the_old_password_survives_the_change_it_races_with(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app = await new_client()
    for _ in range(5):
        who = await signed_in(client, app, await new_user())
        *responses, changed = await asyncio.gather(
            *(sign_in(client, app, who.user) for _ in range(4)), change_password(client, who)
        )
        assert changed.status_code == 204
        for response in responses:
            if response.status_code == 200:
                await assert_over(client, SignedIn(app, who.user, response.json()))
            else:
                assert response.json()["error"] == "invalid_grant"
