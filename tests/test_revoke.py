"""POST /revoke (RFC 7009): after the 200 the token is dead, everywhere."""

import asyncio
from datetime import timedelta

import httpx
import pytest
from freezegun import freeze_time

from authserver import clock
from tests.factories import App, NewClient, NewUser, basic, claims_of, sign_in
from tests.test_introspect import INACTIVE, introspect
from tests.test_token_form import assert_oauth_error
from tests.test_token_refresh import refresh


@pytest.fixture
async def caller(new_client: NewClient) -> App:
    return await new_client()


@pytest.fixture
async def tokens(client: httpx.AsyncClient, caller: App, new_user: NewUser) -> dict[str, str]:
    return dict((await sign_in(client, caller, await new_user())).json())


async def revoke(client: httpx.AsyncClient, caller: App, token: str, **form: str) -> httpx.Response:
    return await client.post("/revoke", data={"token": token} | form, auth=basic(caller))


def assert_done(response: httpx.Response) -> None:
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.content == b"{}"


async def test_revoking_an_access_token_kills_it_alone(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    assert_done(await revoke(client, caller, tokens["access_token"]))
    assert (await introspect(client, caller, tokens["access_token"])).content == INACTIVE
    again = await refresh(client, caller, tokens["refresh_token"])
    assert again.status_code == 200
    assert (await introspect(client, caller, again.json()["access_token"])).json()["active"] is True


async def test_revoking_a_refresh_token_ends_the_session_with_all_access_tokens(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    second = (await refresh(client, caller, tokens["refresh_token"])).json()
    assert_done(await revoke(client, caller, second["refresh_token"]))
    for answer in (tokens, second):
        assert (await introspect(client, caller, answer["access_token"])).content == INACTIVE
    assert_oauth_error(await refresh(client, caller, second["refresh_token"]), 400, "invalid_grant")


@pytest.mark.parametrize("minutes", [-5, 11], ids=["not good yet", "expired"])
async def test_a_token_is_revoked_whatever_the_date_on_this_node(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str], minutes: int
) -> None:
    """On another node, whose clock is right, it is good."""
    with freeze_time(clock.now() + timedelta(minutes=minutes), tick=True, real_asyncio=True):
        assert_done(await revoke(client, caller, tokens["access_token"]))
    assert (await introspect(client, caller, tokens["access_token"])).content == INACTIVE


async def test_a_sign_out_that_races_a_refresh_wins(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    """The refresh was first, the sign-out still has the old token: the session ends all the same."""
    second = (await refresh(client, caller, tokens["refresh_token"])).json()
    assert_done(await revoke(client, caller, tokens["refresh_token"]))
    assert (await introspect(client, caller, second["access_token"])).content == INACTIVE
    assert_oauth_error(await refresh(client, caller, second["refresh_token"]), 400, "invalid_grant")


async def test_no_refresh_in_parallel_outlives_a_revocation(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    refreshes = [asyncio.create_task(refresh(client, caller, tokens["refresh_token"])) for _ in range(20)]
    assert_done(await revoke(client, caller, tokens["refresh_token"]))
    for answer in await asyncio.gather(*refreshes):
        if answer.status_code == 200:
            assert (await introspect(client, caller, answer.json()["access_token"])).content == INACTIVE


async def test_revoking_again_is_as_good_as_once(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    for kind in ("access_token", "access_token", "refresh_token", "refresh_token", "access_token"):
        assert_done(await revoke(client, caller, tokens[kind]))


@pytest.mark.parametrize(
    "token", ["rubbish", "a.b.c", "authserver_rt_x", "eyJhbGciOiJub25lIn0.e30.", "ü", "a" * 15_000]
)
async def test_a_token_that_never_was_is_dead_already(client: httpx.AsyncClient, caller: App, token: str) -> None:
    assert_done(await revoke(client, caller, token))


async def test_no_token_is_an_invalid_request(client: httpx.AsyncClient, caller: App) -> None:
    assert_oauth_error(await revoke(client, caller, ""), 400, "invalid_request")


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "saml2"])
@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_a_hint_only_hints(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str], kind: str, hint: str
) -> None:
    assert_done(await revoke(client, caller, tokens[kind], token_type_hint=hint))
    assert (await introspect(client, caller, tokens[kind])).content == INACTIVE


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_another_clients_token_is_refused_and_untouched(
    client: httpx.AsyncClient, caller: App, new_client: NewClient, tokens: dict[str, str], kind: str
) -> None:
    stranger = await new_client()
    assert_oauth_error(await revoke(client, stranger, tokens[kind]), 400, "invalid_grant")
    assert (await introspect(client, caller, tokens[kind])).json()["active"] is True


async def test_a_public_client_revokes_with_its_id_alone(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    caller = await new_client(is_public=True)
    tokens = (await sign_in(client, caller, await new_user())).json()
    data = {"client_id": caller.client_id, "token": tokens["refresh_token"]}
    assert_done(await client.post("/revoke", data=data))
    watcher = await new_client(may_introspect=True)
    assert (await introspect(client, watcher, tokens["access_token"])).content == INACTIVE


async def test_only_the_one_session_ends(client: httpx.AsyncClient, caller: App, new_user: NewUser) -> None:
    user = await new_user()
    first, second = [(await sign_in(client, caller, user)).json() for _ in range(2)]
    assert claims_of(first["access_token"])["sid"] != claims_of(second["access_token"])["sid"]
    assert_done(await revoke(client, caller, first["refresh_token"]))
    assert (await introspect(client, caller, second["access_token"])).json()["active"] is True
