"""Who calls: everything under /users/me asks for a bearer token that is good (RFC 6750); nobody else gets in."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from freezegun import freeze_time
from sqlalchemy import update

from authserver import clock
from authserver.services import Services
from authserver.tokens.access_token import Claims
from authserver.users.models import User
from tests.factories import PASSWORD, basic, bearer
from tests.signed_in import SignedIn
from tests.test_register import assert_problem

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
        return claims and claims._replace(audience=("https://api.example.com",))

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


async def test_a_store_that_is_down_is_never_a_401(
    client: httpx.AsyncClient, services: Services, me: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.db.breaker, "_breaker", _Open())
    for method, path in ENDPOINTS:
        body = (
            {"current_password": PASSWORD, "new_password": "another good long sentence"}
            if "password" in path
            else {"username": "x"}
        )
        response = await client.request(method, path, json=body, headers=me.headers)
        assert_problem(response, 503, "temporarily-unavailable")
        assert response.headers["retry-after"] == "1"


class _Open:
    """A pybreaker that is open."""

    current_state = "open"
