"""POST /token, grant_type=client_credentials (RFC 6749 §4.4): a client that acts for itself."""

import uuid
from typing import Any

import httpx
import pytest

from authserver.clients import registration
from authserver.clients.models import Client
from authserver.services import Services
from tests.factories import App, NewClient, NewUser, basic, bearer, claims_of

FORM = {"grant_type": "client_credentials"}


async def token_of(client: httpx.AsyncClient, app: App, **form: str) -> dict[str, Any]:
    answer = await client.post("/token", data=FORM | form, auth=basic(app))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def introspected(client: httpx.AsyncClient, app: App, token: str) -> dict[str, Any]:
    answer = await client.post("/introspect", data={"token": token}, auth=basic(app))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.fixture
async def robot(new_client: NewClient) -> App:
    """A client that may act for itself."""
    return await new_client(grants=["client_credentials"], scopes=["reports:read", "reports:write", "openid"])


async def test_a_client_gets_a_token_for_itself(client: httpx.AsyncClient, robot: App) -> None:
    answer = await token_of(client, robot)
    assert answer.keys() == {"access_token", "token_type", "expires_in", "scope"}  # and no refresh token (§4.4.3)
    assert (answer["token_type"], answer["expires_in"], answer["scope"]) == (
        "Bearer",
        600,
        "reports:read reports:write",
    )
    claims = claims_of(answer["access_token"])
    assert claims["sub"] == claims["client_id"] == robot.client_id
    assert "username" not in claims
    known = await introspected(client, robot, answer["access_token"])
    assert known["active"] is True
    assert known["sub"] == robot.client_id
    assert "username" not in known


async def test_it_may_ask_for_less(client: httpx.AsyncClient, robot: App) -> None:
    assert (await token_of(client, robot, scope="reports:read"))["scope"] == "reports:read"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"scope": "reports:delete"}, "invalid_scope"),
        ({"scope": "openid"}, "invalid_scope"),  # there is no user whom it could tell of
        ({"scope": 'a"b'}, "invalid_scope"),
        ({"grant_type": "Client_Credentials"}, "unsupported_grant_type"),
    ],
)
async def test_bad_input(client: httpx.AsyncClient, robot: App, change: dict[str, str], error: str) -> None:
    answer = await client.post("/token", data=FORM | change, auth=basic(robot))
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_who_is_not_registered_for_it_is_refused(client: httpx.AsyncClient, new_client: NewClient) -> None:
    answer = await client.post("/token", data=FORM, auth=basic(await new_client()))
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")


async def test_a_public_client_has_nothing_to_prove_itself_with(
    client: httpx.AsyncClient, new_client: NewClient, services: Services
) -> None:
    app = await new_client(is_public=True)
    async with services.db.write() as tx:  # past the rule of registration
        row = await tx.get_one(Client, app.client_id)
        row.grants = ["client_credentials"]
    answer = await client.post("/token", data=FORM | {"client_id": app.client_id})
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")


async def test_no_row_is_written(client: httpx.AsyncClient, robot: App, services: Services) -> None:
    async with services.db.read() as tx:
        before = await services.sessions.count_alive(tx)
    await token_of(client, robot)
    async with services.db.read() as tx:
        assert await services.sessions.count_alive(tx) == before


async def test_the_token_can_be_revoked(client: httpx.AsyncClient, robot: App) -> None:
    one, other = (await token_of(client, robot))["access_token"], (await token_of(client, robot))["access_token"]
    assert (await client.post("/revoke", data={"token": one}, auth=basic(robot))).status_code == 200
    assert (await introspected(client, robot, one)) == {"active": False}
    assert (await introspected(client, robot, other))["active"] is True


async def test_ending_what_a_client_has_does_not_touch_what_it_gets_later(
    client: httpx.AsyncClient, robot: App, services: Services, new_client: NewClient
) -> None:
    observer = await new_client(may_introspect=True)
    before = (await token_of(client, robot))["access_token"]
    async with services.denylist.revoking() as tx:
        row = await registration.locked(tx, robot.client_id)
        assert row is not None
        await services.sessions.end_own(tx, row)
    assert await introspected(client, observer, before) == {"active": False}
    assert not (await introspected(client, observer, (await token_of(client, robot))["access_token"]))["active"]
    services.clients._kept.forget(robot.client_id)  # as after a second
    assert (await introspected(client, observer, (await token_of(client, robot))["access_token"]))["active"] is True


async def test_a_client_that_bears_the_name_of_a_user_is_not_that_user(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    user = await new_user()
    impostor = await new_client(grants=["client_credentials"], scopes=["openid", "x"], client_id=str(user.id))
    token = (await token_of(client, impostor))["access_token"]
    assert uuid.UUID(claims_of(token)["sub"]) == user.id
    for path in ("/userinfo", "/users/me", "/users/me/sessions"):
        assert (await client.get(path, headers=bearer(token))).status_code == 401
