"""/users/me and its sessions: users look after their own account; everybody else is kept out."""

import asyncio
import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from freezegun import freeze_time
from sqlalchemy import func, select, update

from authserver import clock
from authserver.audit import AuditEvent
from authserver.services import Services
from authserver.sessions.models import UserSession
from authserver.tokens.access_token import Claims
from authserver.users import accounts
from authserver.users.models import KnownAddress, User
from tests.application import ISSUER
from tests.factories import PASSWORD, App, NewClient, NewUser, Person, basic, bearer, claims_of, sign_in
from tests.test_register import assert_problem, pointers

NEW_PASSWORD = "another good long sentence"


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


# Who calls


ENDPOINTS = [
    ("GET", "/users/me"),
    ("PATCH", "/users/me"),
    ("DELETE", "/users/me"),
    ("POST", "/users/me/password"),
    ("GET", "/users/me/sessions"),
    ("DELETE", "/users/me/sessions"),
    ("DELETE", "/users/me/sessions/00000000-0000-4000-8000-000000000000"),
]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
async def test_without_a_token_nothing_is_done(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path)
    assert_problem(response, 401, "unauthenticated")
    # RFC 6750 §3: no error code when no token was sent.
    assert response.headers["www-authenticate"] == 'Bearer realm="authserver"'


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
async def test_with_a_token_that_is_none_nothing_is_done(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path, headers=bearer("not.a.token"))
    assert_problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"].startswith('Bearer realm="authserver", error="invalid_token"')


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer a b", "bearer  "])
async def test_a_malformed_header_is_a_bad_request(client: httpx.AsyncClient, header: str) -> None:
    response = await client.get("/users/me", headers={"Authorization": header})
    assert_problem(response, 400, "bad-request")
    assert response.headers["www-authenticate"] == 'Bearer realm="authserver", error="invalid_request"'


async def test_two_headers_are_a_bad_request(client: httpx.AsyncClient, me: SignedIn) -> None:
    headers = [("Authorization", me.headers["Authorization"])] * 2
    assert_problem(await client.get("/users/me", headers=headers), 400, "bad-request")


async def test_the_scheme_is_read_in_any_case(client: httpx.AsyncClient, me: SignedIn) -> None:
    for scheme in ("bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {me.tokens['access_token']}"}
        assert (await client.get("/users/me", headers=headers)).status_code == 200
    basic_header = {"Authorization": f"Basic {me.tokens['access_token']}"}
    assert_problem(await client.get("/users/me", headers=basic_header), 401, "unauthenticated")


async def test_a_token_is_taken_from_the_header_only(client: httpx.AsyncClient, me: SignedIn) -> None:
    token = me.tokens["access_token"]
    assert (await client.get("/users/me", params={"access_token": token})).status_code == 401


@pytest.mark.parametrize(
    "token",
    ["a" * 9000, "a.b.c.d", "..", "é.b.c", "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30."],
    ids=lambda token: ascii(token)[:20],
)
async def test_rubbish_for_a_token_is_a_401(client: httpx.AsyncClient, token: str) -> None:
    headers = [(b"Authorization", f"Bearer {token}".encode())]
    assert_problem(await client.get("/users/me", headers=headers), 401, "unauthenticated")


async def test_a_refresh_token_opens_nothing(client: httpx.AsyncClient, me: SignedIn) -> None:
    response = await client.get("/users/me", headers=bearer(me.tokens["refresh_token"]))
    assert_problem(response, 401, "unauthenticated")


async def test_an_expired_token_opens_nothing(client: httpx.AsyncClient, me: SignedIn) -> None:
    with freeze_time(clock.now() + timedelta(seconds=601), tick=True, real_asyncio=True):
        assert_problem(await client.get("/users/me", headers=me.headers), 401, "unauthenticated")


async def test_a_revoked_token_opens_nothing(client: httpx.AsyncClient, me: SignedIn) -> None:
    await client.post("/revoke", data={"token": me.tokens["access_token"]}, auth=basic(me.app))
    assert_problem(await client.get("/users/me", headers=me.headers), 401, "unauthenticated")


def token_for(services: Services, subject: str, **changes: Any) -> dict[str, str]:
    claims: dict[str, Any] = {
        "jti": str(uuid4()),
        "expires_at": clock.now() + timedelta(minutes=5),
        "subject": subject,
        "client_id": "somebody",
        "scope": "openid",
        "audience": [],
        "session_id": None,
        "username": "ada",
    }
    return bearer(services.access_tokens.issue(**(claims | changes)))


async def test_a_token_without_a_user_opens_nothing(client: httpx.AsyncClient, services: Services) -> None:
    for subject, username in ((str(uuid4()), "ada"), ("a-client-for-itself", None)):
        response = await client.get("/users/me", headers=token_for(services, subject, username=username))
        assert_problem(response, 401, "unauthenticated")


async def test_a_token_for_somebody_else_opens_nothing(
    client: httpx.AsyncClient, services: Services, me: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = token_for(services, str(me.user.id))
    assert (await client.get("/users/me", headers=headers)).status_code == 200
    read = services.access_tokens.read

    async def meant_for_another(token: str) -> Claims | None:
        claims = await read(token)
        return claims and replace(claims, audience=("https://api.example.com",))

    monkeypatch.setattr(services.access_tokens, "read", meant_for_another)
    assert_problem(await client.get("/users/me", headers=headers), 401, "unauthenticated")


async def test_a_disabled_user_is_kept_out(client: httpx.AsyncClient, services: Services, me: SignedIn) -> None:
    async with services.db.write() as tx:
        await tx.execute(update(User).where(User.id == me.user.id).values(is_active=False))
    assert_problem(await client.get("/users/me", headers=me.headers), 401, "unauthenticated")


async def test_head_works_where_get_does(client: httpx.AsyncClient, me: SignedIn) -> None:
    for path in ("/users/me", "/users/me/sessions"):
        response = await client.head(path, headers=me.headers)
        assert (response.status_code, response.content) == (200, b"")


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


# Sessions


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


# For operators


async def test_disabling_ends_sign_ins_in_progress(client: httpx.AsyncClient, services: Services, me: SignedIn) -> None:
    async with services.denylist.revoking() as tx:
        user = await accounts.locked(tx, me.user.id)
        assert user is not None
        accounts.set_active(tx, user, is_active=False)
        await services.sessions.end(tx, UserSession.user_id == user.id, because="disabled")
    await assert_over(client, me)
    assert (await sign_in(client, me.app, me.user)).status_code == 400
    async with services.db.write() as tx:
        user = await accounts.locked(tx, me.user.id)
        assert user is not None
        accounts.set_active(tx, user, is_active=True)
        accounts.set_active(tx, user, is_active=True)
    assert (await sign_in(client, me.app, me.user)).status_code == 200
    assert await events(services, me.user) == ["user_disabled", "user_enabled"]


async def test_accounts_are_found_by_any_of_their_names(services: Services, new_user: NewUser) -> None:
    person = await new_user()
    async with services.db.read() as tx:
        for name in (person.username, person.username.upper(), person.email, str(person.id)):
            found = await accounts.find(tx, name)
            assert found is not None
            assert found.id == person.id
        for name in ("", "nobody", "nobody@example.com", str(uuid4())):
            assert await accounts.find(tx, name) is None


async def test_accounts_are_listed_page_by_page(services: Services, new_user: NewUser) -> None:
    made = {(await new_user()).id for _ in range(5)}
    seen: list[User] = []
    async with services.db.read() as tx:
        while page := await accounts.page(tx, after=seen[-1].username_key if seen else "", limit=2):
            assert len(page) <= 2
            seen += page
        assert len(seen) == await accounts.count(tx)
    assert made <= {user.id for user in seen}
    assert len(seen) == len({user.id for user in seen})


async def test_a_store_that_is_down_is_never_a_401(
    client: httpx.AsyncClient, services: Services, me: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.db.breaker, "_breaker", _Open())
    for method, path in ENDPOINTS:
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD} if "password" in path else {"username": "x"}
        response = await client.request(method, path, json=body, headers=me.headers)
        assert_problem(response, 503, "temporarily-unavailable")
        assert response.headers["retry-after"] == "1"


class _Open:
    """A pybreaker that is open."""

    current_state = "open"
