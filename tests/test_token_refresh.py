"""POST /token with grant_type=refresh_token: rotation, retry, reuse (RFC 6749 §6, RFC 9700 §4.14.2)."""

import asyncio
from datetime import timedelta
from uuid import UUID

import httpx
import pytest
from freezegun import freeze_time
from sqlalchemy import select, update

from authserver import clock
from authserver.audit import AuditEvent
from authserver.services import Services
from authserver.sessions.models import UserSession
from tests.factories import App, NewClient, NewUser, basic, claims_of, sign_in
from tests.test_token_form import assert_oauth_error


async def refresh(client: httpx.AsyncClient, caller: App, token: str, **form: str) -> httpx.Response:
    data = {"grant_type": "refresh_token", "refresh_token": token} | form
    if caller.secret is None:
        return await client.post("/token", data=data | {"client_id": caller.client_id})
    return await client.post("/token", data=data, auth=basic(caller))


async def is_active(client: httpx.AsyncClient, caller: App, token: str) -> bool:
    response = await client.post("/introspect", data={"token": token}, auth=basic(caller))
    assert response.status_code == 200
    return bool(response.json()["active"])


@pytest.fixture
async def caller(new_client: NewClient) -> App:
    return await new_client()


@pytest.fixture
async def tokens(client: httpx.AsyncClient, caller: App, new_user: NewUser) -> dict[str, str]:
    return dict((await sign_in(client, caller, await new_user())).json())


BAD_TOKENS = {
    "rubbish": "rubbish",
    "our prefix and rubbish": "authserver_rt_rubbish",
    "our prefix, right length": "authserver_rt_" + "A" * 91,
    "an access token's form": "eyJhbGciOiJub25lIn0.e30.",
    "not ASCII": "authserver_rt_ü",
    "5,000 characters": "authserver_rt_" + "A" * 5000,
}


@pytest.mark.parametrize("case", BAD_TOKENS)
async def test_a_token_that_is_none_is_an_invalid_grant(client: httpx.AsyncClient, caller: App, case: str) -> None:
    assert_oauth_error(await refresh(client, caller, BAD_TOKENS[case]), 400, "invalid_grant")


async def test_a_missing_token_is_an_invalid_request(client: httpx.AsyncClient, caller: App) -> None:
    assert_oauth_error(await refresh(client, caller, ""), 400, "invalid_request")


async def test_every_changed_character_makes_a_token_invalid(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    token = tokens["refresh_token"]
    for position in range(len("authserver_rt_"), len(token), 7):
        changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
        assert_oauth_error(await refresh(client, caller, changed), 400, "invalid_grant")
    assert (await refresh(client, caller, token)).status_code == 200


async def test_refreshing_gives_new_tokens_of_the_same_session(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    answer = (await refresh(client, caller, tokens["refresh_token"])).json()
    assert answer["refresh_token"] != tokens["refresh_token"]
    assert answer["scope"] == tokens["scope"]
    before, after = claims_of(tokens["access_token"]), claims_of(answer["access_token"])
    assert before["sid"] == after["sid"]
    assert before["sub"] == after["sub"]
    assert before["jti"] != after["jti"]
    assert await is_active(client, caller, answer["access_token"])


async def test_a_retry_gets_the_same_successor(client: httpx.AsyncClient, caller: App, tokens: dict[str, str]) -> None:
    first = (await refresh(client, caller, tokens["refresh_token"])).json()
    again = (await refresh(client, caller, tokens["refresh_token"])).json()
    assert first["refresh_token"] == again["refresh_token"]
    assert await is_active(client, caller, again["access_token"])
    assert (await refresh(client, caller, again["refresh_token"])).status_code == 200


async def test_a_hundred_parallel_refreshes_have_one_successor(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    answers = await asyncio.gather(*(refresh(client, caller, tokens["refresh_token"]) for _ in range(100)))
    assert {answer.status_code for answer in answers} <= {200, 503}  # 503: a slow machine cannot do so many in time
    (successor,) = {answer.json()["refresh_token"] for answer in answers if answer.status_code == 200}
    assert (await refresh(client, caller, successor)).status_code == 200


async def test_those_who_refresh_at_the_same_moment_each_get_what_is_theirs(
    client: httpx.AsyncClient, caller: App, new_client: NewClient, new_user: NewUser
) -> None:
    """Good tokens, a used one, and one in the hands of another client: PostgreSQL is asked once for all."""
    user, other = await new_user(), await new_client()
    signed_in = [dict((await sign_in(client, caller, user)).json()) for _ in range(10)]
    used = (await refresh(client, caller, signed_in[0]["refresh_token"])).json()
    used = (await refresh(client, caller, used["refresh_token"])).json()
    answers = await asyncio.gather(
        *(refresh(client, caller, tokens["refresh_token"]) for tokens in signed_in[:9]),
        refresh(client, other, signed_in[9]["refresh_token"]),
    )
    assert [answer.status_code for answer in answers] == [400, *[200] * 8, 400]
    for before, answer in zip(signed_in[1:9], answers[1:9], strict=True):
        claims = claims_of(answer.json()["access_token"])
        assert claims["sid"] == claims_of(before["access_token"])["sid"]
        assert (await refresh(client, caller, answer.json()["refresh_token"])).status_code == 200
    assert_oauth_error(await refresh(client, caller, used["refresh_token"]), 400, "invalid_grant")
    assert (await refresh(client, caller, signed_in[9]["refresh_token"])).status_code == 200


async def test_a_session_that_is_being_worked_on_keeps_only_its_own_request_waiting(
    client: httpx.AsyncClient, caller: App, new_user: NewUser, services: Services
) -> None:
    user = await new_user()
    held, free = [dict((await sign_in(client, caller, user)).json()) for _ in range(2)]
    async with services.db.read() as tx:  # on SQLite nobody who reads keeps anybody waiting
        its_row = UserSession.id == UUID(claims_of(held["access_token"])["sid"])
        await tx.execute(select(UserSession.id).where(its_row).with_for_update())
        waiting = asyncio.create_task(refresh(client, caller, held["refresh_token"]))
        async with asyncio.timeout(0.8):  # less than anybody waits for a lock
            others = await asyncio.gather(*(refresh(client, caller, free["refresh_token"]) for _ in range(2)))
        assert [answer.status_code for answer in others] == [200, 200]
        assert services.db.is_sqlite or not waiting.done()
    assert (await waiting).status_code == 200


async def test_reusing_a_spent_refresh_token_ends_the_session(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str], services: Services
) -> None:
    second = (await refresh(client, caller, tokens["refresh_token"])).json()
    third = (await refresh(client, caller, second["refresh_token"])).json()
    assert_oauth_error(await refresh(client, caller, tokens["refresh_token"]), 400, "invalid_grant")
    for answer in (tokens, second, third):
        assert not await is_active(client, caller, answer["access_token"])
        assert_oauth_error(await refresh(client, caller, answer["refresh_token"]), 400, "invalid_grant")
    session_id = claims_of(tokens["access_token"])["sid"]
    async with services.db.read() as tx:
        events = (await tx.scalars(select(AuditEvent).where(AuditEvent.event == "refresh_token_reused"))).all()
    assert [str(event.session_id) for event in events].count(session_id) == 1


async def test_a_retry_after_the_window_is_reuse(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    second = (await refresh(client, caller, tokens["refresh_token"])).json()
    with freeze_time(clock.now() + timedelta(seconds=11), tick=True, real_asyncio=True):
        assert_oauth_error(await refresh(client, caller, tokens["refresh_token"]), 400, "invalid_grant")
        assert_oauth_error(await refresh(client, caller, second["refresh_token"]), 400, "invalid_grant")
        assert not await is_active(client, caller, second["access_token"])


async def test_a_retry_does_not_prolong_the_window(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    await refresh(client, caller, tokens["refresh_token"])
    start = clock.now()
    with freeze_time(start + timedelta(seconds=6), tick=True, real_asyncio=True):
        assert (await refresh(client, caller, tokens["refresh_token"])).status_code == 200
    with freeze_time(start + timedelta(seconds=12), tick=True, real_asyncio=True):
        assert_oauth_error(await refresh(client, caller, tokens["refresh_token"]), 400, "invalid_grant")


async def test_another_client_cannot_use_the_token_nor_end_the_session_with_it(
    client: httpx.AsyncClient, caller: App, new_client: NewClient, tokens: dict[str, str]
) -> None:
    other = await new_client()
    second = (await refresh(client, caller, tokens["refresh_token"])).json()
    await refresh(client, caller, second["refresh_token"])
    for token in (tokens["refresh_token"], second["refresh_token"]):
        assert_oauth_error(await refresh(client, other, token), 400, "invalid_grant")
    assert await is_active(client, caller, tokens["access_token"])


async def test_a_narrower_scope_is_for_the_access_token_alone(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    narrow = (await refresh(client, caller, tokens["refresh_token"], scope="email")).json()
    assert narrow["scope"] == claims_of(narrow["access_token"])["scope"] == "email"
    assert (await refresh(client, caller, narrow["refresh_token"])).json()["scope"] == tokens["scope"]


async def test_a_repeated_scope_counts_once(client: httpx.AsyncClient, caller: App, tokens: dict[str, str]) -> None:
    """As requests-oauthlib sends it."""
    answer = await refresh(client, caller, tokens["refresh_token"], scope="openid openid email")
    assert answer.json()["scope"] == "openid email"


async def test_a_wider_scope_is_refused_and_uses_nothing_up(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    caller, user = await new_client(), await new_user()
    tokens = (await sign_in(client, caller, user, scope="openid")).json()
    for _ in range(2):
        answer = await refresh(client, caller, tokens["refresh_token"], scope="openid email")
        assert_oauth_error(answer, 400, "invalid_scope")
    first = (await refresh(client, caller, tokens["refresh_token"])).json()
    assert (await refresh(client, caller, first["refresh_token"])).status_code == 200


async def test_a_session_unused_for_its_idle_time_is_over(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    start = clock.now()
    with freeze_time(start + timedelta(days=13), tick=True, real_asyncio=True):
        second = (await refresh(client, caller, tokens["refresh_token"])).json()
    with freeze_time(start + timedelta(days=26), tick=True, real_asyncio=True):
        third = (await refresh(client, caller, second["refresh_token"])).json()
    with freeze_time(start + timedelta(days=41), tick=True, real_asyncio=True):
        assert_oauth_error(await refresh(client, caller, third["refresh_token"]), 400, "invalid_grant")


async def test_a_session_ends_at_its_maximum_however_much_it_is_used(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    start, token = clock.now(), tokens["refresh_token"]
    for day in range(10, 90, 10):
        with freeze_time(start + timedelta(days=day), tick=True, real_asyncio=True):
            token = (await refresh(client, caller, token)).json()["refresh_token"]
    with freeze_time(start + timedelta(days=90, seconds=-100), tick=True, real_asyncio=True):
        last = (await refresh(client, caller, token)).json()
        assert 95 <= last["expires_in"] <= 100
    with freeze_time(start + timedelta(days=90, seconds=1), tick=True, real_asyncio=True):
        assert_oauth_error(await refresh(client, caller, last["refresh_token"]), 400, "invalid_grant")


async def test_one_sign_in_is_one_row_however_often_it_is_refreshed(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str], services: Services
) -> None:
    token = tokens["refresh_token"]
    for _ in range(5):
        answer = (await refresh(client, caller, token)).json()
        token = answer["refresh_token"]
    async with services.db.read() as tx:
        rows = (await tx.scalars(select(UserSession).where(UserSession.client_id == caller.client_id))).all()
    assert [(row.generation, row.token_jti) for row in rows] == [(5, claims_of(answer["access_token"])["jti"])]


async def test_the_database_holds_nothing_that_could_be_used(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str], services: Services
) -> None:
    await refresh(client, caller, tokens["refresh_token"])
    async with services.db.read() as tx:
        row = (await tx.execute(select(UserSession.__table__).where(UserSession.client_id == caller.client_id))).one()
    for value in row:
        assert str(value) not in tokens["refresh_token"] or len(str(value)) < 4


async def test_a_database_that_lost_the_last_rotation_signs_nobody_out(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str], services: Services
) -> None:
    """After a failover that lost commits the newest token is ahead of the database: it is still the newest."""
    second = (await refresh(client, caller, tokens["refresh_token"])).json()
    async with services.db.write() as tx:
        await tx.execute(update(UserSession).where(UserSession.client_id == caller.client_id).values(generation=0))
    third = await refresh(client, caller, second["refresh_token"])
    assert third.status_code == 200
    assert (await refresh(client, caller, third.json()["refresh_token"])).status_code == 200


async def test_a_public_client_refreshes_too(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    caller = await new_client(is_public=True)
    tokens = (await sign_in(client, caller, await new_user())).json()
    assert (await refresh(client, caller, tokens["refresh_token"])).status_code == 200


async def test_a_lost_right_to_refresh_is_an_unauthorized_client(
    client: httpx.AsyncClient, new_client: NewClient
) -> None:
    caller = await new_client(grants=["password"])
    assert_oauth_error(await refresh(client, caller, "x"), 400, "unauthorized_client")
