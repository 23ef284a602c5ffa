"""POST /token with grant_type=password (RFC 6749 §4.3)."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from sqlalchemy import select

from authserver import clock
from authserver.clients import registration
from authserver.services import Services
from authserver.sessions.lifecycle import Authenticated, SignIn
from authserver.sessions.models import UserSession
from authserver.settings import Settings
from authserver.users import accounts
from authserver.users.models import User
from tests.application import ISSUER
from tests.factories import PASSWORD, NewClient, NewUser, basic, sign_in
from tests.test_token_form import assert_oauth_error

REFUSALS: dict[str, tuple[dict[str, str | None], str]] = {
    "no grant_type": ({"grant_type": None}, "invalid_request"),
    "an empty grant_type": ({"grant_type": ""}, "invalid_request"),
    "an unknown grant_type": ({"grant_type": "magic"}, "unsupported_grant_type"),
    "no username": ({"username": None}, "invalid_request"),
    "no password": ({"password": None}, "invalid_request"),
    "a wrong password": ({"password": "not the right password"}, "invalid_grant"),
    "an unknown user": ({"username": "nobody-at-all"}, "invalid_grant"),
    "a username of 5,000 characters": ({"username": "a" * 5000}, "invalid_grant"),
    "a password of 5,000 characters": ({"password": "a" * 5000}, "invalid_grant"),
    "a scope beyond the client's": ({"scope": "openid admin"}, "invalid_scope"),
    "a malformed scope": ({"scope": 'a"b'}, "invalid_scope"),
    "a scope with two spaces": ({"scope": "openid  profile"}, "invalid_scope"),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_bad_request_is_refused_with_its_code(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser, case: str
) -> None:
    app, user = await new_client(), await new_user()
    changes, error = REFUSALS[case]
    form = {"grant_type": "password", "username": user.username, "password": PASSWORD} | changes
    data = {name: value for name, value in form.items() if value is not None}
    assert_oauth_error(await client.post("/token", data=data, auth=basic(app)), 400, error)


async def test_signing_in_answers_with_tokens(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(), await new_user()
    response = await sign_in(client, app, user)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"
    body = response.json()
    assert body["token_type"] == "Bearer"
    assert body["scope"] == "openid profile email"
    assert body["expires_in"] == 600
    assert body["refresh_token"].startswith("authserver_rt_")


async def test_the_access_token_is_a_jwt_that_anybody_can_verify(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(audience=["https://api.example"]), await new_user()
    token = (await sign_in(client, app, user, scope="openid")).json()["access_token"]
    keys = KeySet.import_key_set((await client.get("/.well-known/jwks.json")).json())
    verified = jwt.decode(token, keys, algorithms=["ES256"])
    assert verified.header["typ"] == "at+jwt"
    claims = verified.claims
    assert claims["iss"] == ISSUER
    assert claims["sub"] == str(user.id)
    assert claims["aud"] == [ISSUER, "https://api.example"]
    assert claims["client_id"] == app.client_id
    assert claims["scope"] == "openid"
    assert claims["exp"] - claims["iat"] in (599, 600)
    assert {"jti", "sid", "nbf"} <= set(claims)


@pytest.mark.parametrize("spelling", ["username", "email", "upper", "full-width"])
async def test_a_username_or_an_address_in_any_spelling_signs_in(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser, spelling: str
) -> None:
    app, user = await new_client(), await new_user()
    name = {
        "username": user.username,
        "email": user.email,
        "upper": user.username.upper(),
        "full-width": "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in user.username),
    }[spelling]
    assert (await sign_in(client, app, user, username=name)).status_code == 200


async def test_the_password_grant_is_opt_in(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(grants=["refresh_token"]), await new_user()
    assert_oauth_error(await sign_in(client, app, user), 400, "unauthorized_client")


async def test_without_the_refresh_grant_there_is_no_refresh_token(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(grants=["password"]), await new_user()
    assert "refresh_token" not in (await sign_in(client, app, user)).json()


async def test_all_refusals_of_credentials_are_the_same_answer(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser, services: Services
) -> None:
    app, user, disabled = await new_client(), await new_user(), await new_user(is_active=False)
    wrong = await sign_in(client, app, user, password="not the right password")
    unknown = await sign_in(client, app, user, username="nobody-at-all")
    switched_off = await sign_in(client, app, disabled)
    assert wrong.status_code == unknown.status_code == switched_off.status_code == 400
    assert wrong.content == unknown.content == switched_off.content


async def test_a_public_client_signs_in_with_its_id_alone(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(is_public=True), await new_user()
    assert (await sign_in(client, app, user)).status_code == 200


async def test_a_sign_in_that_meets_a_password_change_does_not_survive_it(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser, services: Services
) -> None:
    """The password is verified, then changed, then the session would begin: it must not."""
    app, user = await new_client(), await new_user()
    verify, verified, changed = services.hasher.verify, asyncio.Event(), asyncio.Event()

    async def slow_verify(hashed: str | None, password: str) -> bool:
        answer = await verify(hashed, password)
        verified.set()
        await changed.wait()
        return answer

    token = (await sign_in(client, app, user)).json()["access_token"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services.hasher, "verify", slow_verify)
        signing_in = asyncio.create_task(sign_in(client, app, user))
        await verified.wait()
    change = await client.post(
        "/users/me/password",
        json={"current_password": PASSWORD, "new_password": "a wholly different sentence"},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert change.status_code == 204
    changed.set()
    assert_oauth_error(await signing_in, 400, "invalid_grant")


async def test_those_who_sign_in_at_the_same_moment_each_get_what_is_theirs(
    services: Services, settings: Settings, new_client: NewClient, new_user: NewUser
) -> None:
    """PostgreSQL is asked once for all; whoever is refused is refused alone."""
    apps, users = [await new_client() for _ in range(3)], [await new_user() for _ in range(3)]
    async with services.denylist.revoking() as tx:
        off = await registration.locked(tx, apps[2].client_id)
        assert off is not None
        registration.set_active(tx, off, is_active=False)
        gone = await accounts.locked(tx, users[2].id)
        assert gone is not None
        accounts.set_active(tx, gone, is_active=False)

    async def start(app: int, user: int, generation: int = 0, **more: Any) -> SignIn | None:
        return await services.sessions.start(
            user_id=users[user].id, username=users[user].username, generation=generation,
            client_id=apps[app].client_id, grant="password", scope="openid", refreshable=user == 0,
            ip="192.0.2.1", user_agent=None, **more,
        )  # fmt: skip

    more: dict[str, Any] = {
        "audience": ["https://a.example", "https://b.example"],
        "userinfo_claims": ["email"],
        "id_token_claims": ["name"],
        "authenticated": Authenticated(clock.now(), "pwd"),
    }
    started = await asyncio.gather(start(0, 0, **more), start(1, 1), start(2, 0), start(0, 2, 1), start(0, 1, 1))
    assert [sign_in is not None for sign_in in started] == [True, True, False, False, False]
    async with services.db.write() as tx:  # the same, each in a statement of its own
        alone = [await start(0, 0, **more, tx=tx), await start(1, 1, tx=tx), await start(0, 1, 1, tx=tx)]
    assert [sign_in is not None for sign_in in alone] == [True, True, False]
    async with services.db.read() as tx:
        for one, other in zip(started[:2], alone[:2], strict=True):
            assert one is not None
            assert other is not None
            rows = [await tx.get_one(UserSession, sign_in.session_id) for sign_in in (one, other)]
            assert _lasting(rows[0]) == _lasting(rows[1])
            assert rows[0].token_jti == one.jti
            assert (rows[0].refresh_hash is None) == (one.refresh_token is None)
            idle = settings.refresh_token_idle_seconds if one.refresh_token else settings.access_token_seconds
            assert rows[0].expires_at - rows[0].created_at == timedelta(seconds=idle)


def _lasting(row: UserSession) -> dict[str, Any]:
    """Return what does not differ from one sign-in to the next; the length of times instead of the times."""
    values = {column.key: getattr(row, column.key) for column in UserSession.__table__.columns}
    started_at = values.pop("created_at")
    for name in ("last_used_at", "expires_at", "max_expires_at", "tokens_expire_at"):
        values[name] -= started_at
    return {**values, "id": None, "token_jti": None, "refresh_hash": row.refresh_hash is None}


async def test_an_account_that_is_being_changed_keeps_only_its_own_sign_in_waiting(
    client: httpx.AsyncClient, services: Services, new_client: NewClient, new_user: NewUser
) -> None:
    app, held, free = await new_client(), await new_user(), [await new_user() for _ in range(3)]
    async with services.db.read() as tx:  # on SQLite nobody who reads keeps anybody waiting
        await tx.execute(select(User.id).where(User.id == held.id).with_for_update())
        waiting = asyncio.create_task(sign_in(client, app, held))
        async with asyncio.timeout(0.8):  # less than anybody waits for a lock
            others = await asyncio.gather(*(sign_in(client, app, user) for user in free))
        assert [answer.status_code for answer in others] == [200, 200, 200]
        assert services.db.is_sqlite or not waiting.done()
    assert (await waiting).status_code == 200


@pytest.mark.parametrize("how", ["disabled", "deleted"])
async def test_a_sign_in_that_meets_the_end_of_its_client_does_not_survive_it(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser, services: Services, how: str
) -> None:
    app, user = await new_client(), await new_user()
    verify = services.hasher.verify

    async def verify_while_the_client_ends(hashed: str | None, password: str) -> bool:
        async with services.denylist.revoking() as tx:
            ending = await registration.locked(tx, app.client_id)
            assert ending is not None
            if how == "deleted":
                await registration.delete(tx, ending)
            else:
                registration.set_active(tx, ending, is_active=False)
        return await verify(hashed, password)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services.hasher, "verify", verify_while_the_client_ends)
        assert_oauth_error(await sign_in(client, app, user), 401, "invalid_client")
    async with services.db.read() as tx:
        assert not await services.sessions.alive(tx, UserSession.client_id == app.client_id)


async def test_the_username_is_never_taken_from_two_accounts(
    client_with: Callable[..., Any], new_client: NewClient, new_user: NewUser
) -> None:
    """An e-mail address of one account cannot be the username of another: usernames have no @."""
    app, user = await new_client(), await new_user()
    client = await client_with()
    response = await client.post(
        "/register", json={"username": user.email, "email": "other@example.com", "password": PASSWORD}
    )
    assert response.status_code == 422
    assert (await sign_in(client, app, user, username=user.email)).status_code == 200
