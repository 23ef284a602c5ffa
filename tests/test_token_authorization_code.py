"""POST /token, grant_type=authorization_code (RFC 6749 §4.1.3, RFC 7636): a code works once, for its own client."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest
from freezegun import freeze_time
from sqlalchemy import select

from authserver import clock
from authserver.audit import AuditEvent
from authserver.clients import registration
from authserver.errors import StoreUnavailable
from authserver.services import Services
from authserver.sessions import consents
from authserver.sessions.lifecycle import Sessions
from authserver.sessions.models import AuthorizationCode, BrowserSession, UserSession
from authserver.users import accounts
from tests.application import ISSUER
from tests.code_flow import CALLBACK, SCOPE, Flow, NewFlow, challenge_of, sent_back
from tests.factories import NewClient, agreed, basic, claims_of
from tests.test_token_form import assert_oauth_error

BOTH = ["https://a.example", "https://b.example"]


@pytest.fixture
async def flow(new_flow: NewFlow) -> Flow:
    """Somebody who is signed in and has agreed."""
    return await new_flow()


async def sign_out(flow: Flow) -> None:
    async with flow.services.denylist.revoking() as tx:
        of_user = BrowserSession.user_id == flow.user.id
        await flow.services.browser_sessions.end(tx, of_user, because="signed out")


async def withdraw(flow: Flow) -> None:
    async with flow.services.denylist.revoking() as tx:
        await consents.withdraw(tx, flow.services.sessions, flow.user.id, flow.app.client_id)


async def change_password(flow: Flow) -> None:
    async with flow.services.denylist.revoking() as tx:
        user = await accounts.locked(tx, flow.user.id)
        assert user is not None
        await accounts.set_password(tx, user, user.hashed_password)
        await flow.services.sessions.end(tx, UserSession.user_id == user.id, because="password changed")


async def switch_client_off(flow: Flow) -> None:
    async with flow.services.denylist.revoking() as tx:
        client = await registration.locked(tx, flow.app.client_id)
        assert client is not None
        registration.set_active(tx, client, is_active=False)
        await flow.services.sessions.end(tx, UserSession.client_id == client.id, because="client disabled")


ENDINGS: Mapping[str, Callable[[Flow], Awaitable[None]]] = {
    "sign-out": sign_out,
    "withdrawal": withdraw,
    "a new password": change_password,
    "the client switched off": switch_client_off,
}


# What a code is traded for


async def test_a_code_is_traded_for_tokens(flow: Flow) -> None:
    tokens = await flow.tokens()
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "scope", "refresh_token", "id_token"}
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", SCOPE)
    claims = claims_of(tokens["access_token"])
    assert (claims["sub"], claims["client_id"], claims["scope"]) == (str(flow.user.id), flow.app.client_id, SCOPE)
    assert claims_of(tokens["id_token"])["nonce"] == "the nonce"
    assert claims_of(tokens["id_token"])["sid"] == claims["sid"]
    assert await flow.is_active(tokens["access_token"])
    assert (await flow.refresh(tokens["refresh_token"])).status_code == 200


async def test_who_may_not_refresh_gets_no_refresh_token(new_flow: NewFlow) -> None:
    flow = await new_flow(grants=["authorization_code"])
    assert "refresh_token" not in await flow.tokens()


async def test_a_public_client_proves_itself_by_its_verifier_alone(new_flow: NewFlow) -> None:
    flow = await new_flow(is_public=True)
    assert (await flow.refresh((await flow.tokens())["refresh_token"])).status_code == 200


async def test_the_session_remembers_the_browser_not_the_server_that_asks(flow: Flow, services: Services) -> None:
    sid = claims_of((await flow.tokens())["access_token"])["sid"]
    async with services.db.read() as tx:
        row = (await tx.scalars(select(UserSession).where(UserSession.client_id == flow.app.client_id))).one()
    assert str(row.id) == sid
    assert (row.grant, row.user_agent, row.scope) == ("authorization_code", "A browser", SCOPE)
    assert row.browser_session_id is not None


# What is wrong with a request

BAD_INPUT: Mapping[str, tuple[dict[str, str | None], str]] = {
    "no code": ({"code": None}, "invalid_request"),
    "an empty code": ({"code": ""}, "invalid_request"),
    "rubbish": ({"code": "rubbish"}, "invalid_grant"),
    "our prefix and rubbish": ({"code": "authserver_ac_rubbish"}, "invalid_grant"),
    "not ASCII": ({"code": "authserver_ac_ü"}, "invalid_grant"),
    "5,000 characters": ({"code": "authserver_ac_" + "A" * 5000}, "invalid_grant"),
    "no redirect_uri": ({"redirect_uri": None}, "invalid_grant"),
    "another redirect_uri": ({"redirect_uri": f"{CALLBACK}/"}, "invalid_grant"),
    "no verifier": ({"code_verifier": None}, "invalid_grant"),
    "another verifier": ({"code_verifier": secrets.token_urlsafe(32)}, "invalid_grant"),
    "a short verifier": ({"code_verifier": "x" * 42}, "invalid_grant"),
    "a long verifier": ({"code_verifier": "x" * 129}, "invalid_grant"),
    "a verifier that is not ASCII": ({"code_verifier": "ü" * 43}, "invalid_grant"),
    "a resource that is not the client's": ({"resource": "https://c.example"}, "invalid_target"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
async def test_bad_input_is_refused_and_uses_nothing_up(new_flow: NewFlow, case: str) -> None:
    changes, error = BAD_INPUT[case]
    flow = await new_flow(audience=BOTH)
    code = await flow.code()
    assert_oauth_error(await flow.redeem(code, **changes), 400, error)
    assert (await flow.redeem(code)).status_code == 200
    for _ in range(2):
        assert_oauth_error(await flow.redeem(code, **changes), 400, error)


async def test_the_challenge_itself_is_no_verifier(flow: Flow) -> None:
    code = await flow.code()
    assert_oauth_error(await flow.redeem(code, code_verifier=challenge_of(flow.verifier)), 400, "invalid_grant")


async def test_a_verifier_without_a_challenge_is_refused(new_flow: NewFlow) -> None:
    """A downgrade: somebody has taken the challenge out of the request (RFC 9700 §4.8.2)."""
    flow = await new_flow(require_pkce=False)
    code = await flow.code(code_challenge=None, code_challenge_method=None)
    assert_oauth_error(await flow.redeem(code), 400, "invalid_grant")
    assert (await flow.redeem(code, code_verifier=None)).status_code == 200


async def test_a_repeated_code_is_an_invalid_request(flow: Flow) -> None:
    code = await flow.code()
    body = f"grant_type=authorization_code&code={code}&code={code}&redirect_uri={CALLBACK}"
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = await flow.client.post("/token", content=body, headers=headers, auth=basic(flow.app))
    assert_oauth_error(answer, 400, "invalid_request")


async def test_a_code_lives_for_a_minute(flow: Flow) -> None:
    start, first, second = clock.now(), await flow.code(), await flow.code()
    with freeze_time(start + timedelta(seconds=58), tick=True, real_asyncio=True):
        assert (await flow.redeem(first)).status_code == 200
    with freeze_time(start + timedelta(seconds=65), tick=True, real_asyncio=True):
        assert_oauth_error(await flow.redeem(second), 400, "invalid_grant")


# Once


async def test_a_second_use_ends_what_the_first_one_gave(flow: Flow, services: Services) -> None:
    code = await flow.code()
    tokens = (await flow.redeem(code)).json()
    other = await flow.tokens()
    for _ in range(2):
        assert_oauth_error(await flow.redeem(code), 400, "invalid_grant")
    assert not await flow.is_active(tokens["access_token"])
    assert_oauth_error(await flow.refresh(tokens["refresh_token"]), 400, "invalid_grant")
    assert await flow.is_active(other["access_token"]), "another sign-in of the same person"
    async with services.db.read() as tx:
        query = select(AuditEvent).where(AuditEvent.event == "authorization_code_reused")
        events = (await tx.scalars(query.where(AuditEvent.client_id == flow.app.client_id))).all()
    assert [str(event.session_id) for event in events] == [claims_of(tokens["access_token"])["sid"]]


async def test_a_second_use_is_known_for_as_long_as_it_can_matter(flow: Flow) -> None:
    """After it has expired, too: its refresh token may be alive."""
    start, code = clock.now(), await flow.code()
    tokens = (await flow.redeem(code)).json()
    with freeze_time(start + timedelta(minutes=50), tick=True, real_asyncio=True):
        assert_oauth_error(await flow.redeem(code), 400, "invalid_grant")
        assert_oauth_error(await flow.refresh(tokens["refresh_token"]), 400, "invalid_grant")


async def test_a_second_use_after_the_sign_out_ends_what_lives_offline(new_flow: NewFlow) -> None:
    scope = "openid offline_access"
    flow = await new_flow(scopes=scope.split(" "), consent=scope)
    code = await flow.code(scope=scope)
    tokens = (await flow.redeem(code)).json()
    await sign_out(flow)
    assert await flow.is_active(tokens["access_token"])
    assert_oauth_error(await flow.redeem(code), 400, "invalid_grant")
    assert not await flow.is_active(tokens["access_token"])


async def test_another_client_neither_gets_anything_nor_ends_anything(flow: Flow, new_client: NewClient) -> None:
    thief = await new_client(grants=["authorization_code"], redirect_uris=[CALLBACK])
    code = await flow.code()
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    form["code_verifier"] = flow.verifier
    for _ in range(2):
        assert_oauth_error(await flow.client.post("/token", data=form, auth=basic(thief)), 400, "invalid_grant")
    tokens = (await flow.redeem(code)).json()
    assert_oauth_error(await flow.client.post("/token", data=form, auth=basic(thief)), 400, "invalid_grant")
    assert await flow.is_active(tokens["access_token"])


async def test_of_fifty_at_once_one_wins(flow: Flow) -> None:
    """Those that come second know all that belongs to the code, so what the first one got ends: always, not by luck."""
    code = await flow.code()
    answers = await asyncio.gather(*(flow.redeem(code) for _ in range(50)))
    counted = Counter(answer.status_code for answer in answers)
    assert counted[200] == 1
    assert counted.keys() <= {200, 400, 503}  # 503: a slow machine cannot do so many in time
    assert {answer.json()["error"] for answer in answers if answer.status_code == 400} == {"invalid_grant"}
    assert_oauth_error(await flow.redeem(code), 400, "invalid_grant")  # the others may all have been 503
    (winner,) = (answer.json() for answer in answers if answer.status_code == 200)
    assert not await flow.is_active(winner["access_token"])


async def test_fifty_that_lack_the_verifier_end_nothing(flow: Flow) -> None:
    code = await flow.code()
    wrong = [flow.redeem(code, code_verifier="x" * 43) for _ in range(50)]
    answers = await asyncio.gather(*wrong[:25], flow.redeem(code), *wrong[25:])
    assert Counter(answer.status_code for answer in answers)[200] == 1
    (winner,) = (answer.json() for answer in answers if answer.status_code == 200)
    assert await flow.is_active(winner["access_token"])


# What a code stands on


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_code_is_worth_nothing_once_what_it_stands_on_is_gone(flow: Flow, ending: str) -> None:
    code = await flow.code()
    await ENDINGS[ending](flow)
    answer = await flow.redeem(code)
    assert answer.status_code == (401 if "client" in ending else 400)
    assert answer.json()["error"] == ("invalid_client" if "client" in ending else "invalid_grant")


@pytest.mark.parametrize("ending", ENDINGS)
async def test_what_ends_at_the_same_moment_has_ended(new_flow: NewFlow, ending: str) -> None:
    """Whichever of the two comes first: nobody holds a living token afterwards."""
    observer = await new_flow(may_introspect=True)

    async def after(seconds: float, happens: Awaitable[Any]) -> Any:
        await asyncio.sleep(seconds)
        return await happens

    for pause in (-0.01, -0.004, -0.002, -0.001, 0, 0.001, 0.002, 0.004, 0.01):
        flow = await new_flow()
        code = await flow.code()
        answer, _ = await asyncio.gather(
            after(max(0, -pause), flow.redeem(code)), after(max(0, pause), ENDINGS[ending](flow))
        )
        assert answer.status_code in (200, 400, 401)
        if answer.status_code == 200:
            assert not await observer.is_active(answer.json()["access_token"])
            assert (await flow.refresh(answer.json()["refresh_token"])).status_code in (400, 401)


async def test_a_withdrawn_consent_that_is_given_anew_for_less_does_not_cover_an_older_code(flow: Flow) -> None:
    code = await flow.code()
    await withdraw(flow)
    await agreed(flow.services, flow.user, flow.app, "openid")
    assert_oauth_error(await flow.redeem(code), 400, "invalid_grant")
    await agreed(flow.services, flow.user, flow.app, SCOPE)
    assert (await flow.redeem(code)).status_code == 200


async def test_the_operator_s_own_applications_need_no_consent(new_flow: NewFlow) -> None:
    flow = await new_flow(is_trusted=True, consent=None)
    assert (await flow.redeem(await flow.code())).status_code == 200


async def test_who_fails_in_the_middle_has_used_nothing_up(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code and the session are one transaction: with a database that goes away in it neither has happened."""
    code = await flow.code()

    async def fail(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("database", "gone after the compare-and-set")

    with monkeypatch.context() as broken:
        broken.setattr(Sessions, "start", fail)
        answer = await flow.redeem(code)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (await flow.redeem(code)).status_code == 200


async def test_what_is_stored_of_a_code_goes_with_pruning(flow: Flow, services: Services) -> None:
    await flow.code()
    async with services.db.read() as tx:
        query = select(AuthorizationCode).where(AuthorizationCode.client_id == flow.app.client_id)
        row = (await tx.scalars(query)).one()
    assert row.expires_at <= clock.now() + timedelta(seconds=60)
    assert row.session_id is None


# Whom the tokens are for (RFC 8707)


def audience_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    issuer, *others = claims_of(answer.json()["access_token"])["aud"]
    assert issuer == ISSUER
    return list(others)


async def test_without_a_resource_tokens_are_for_all_that_the_client_s_are_for(new_flow: NewFlow) -> None:
    flow = await new_flow(audience=BOTH)
    answer = await flow.redeem(await flow.code())
    assert audience_of(answer) == BOTH
    assert audience_of(await flow.refresh(answer.json()["refresh_token"])) == BOTH


async def test_a_request_may_be_for_some_of_them(new_flow: NewFlow) -> None:
    flow = await new_flow(audience=BOTH)
    answer = await flow.redeem(await flow.code(resource=BOTH[0]))
    assert audience_of(answer) == BOTH[:1]
    assert audience_of(await flow.refresh(answer.json()["refresh_token"])) == BOTH[:1]
    code = await flow.code(resource=BOTH[0])
    assert_oauth_error(await flow.redeem(code, resource=BOTH[1]), 400, "invalid_target")


async def test_a_resource_may_be_repeated(new_flow: NewFlow) -> None:
    flow = await new_flow(audience=[*BOTH, "https://c.example"])
    query = httpx.QueryParams([*flow.request().items(), *(("resource", name) for name in BOTH)])
    answer = await flow.redeem(sent_back(await flow.browser.get("/authorize", params=query))["code"])
    assert audience_of(answer) == BOTH


async def test_each_access_token_may_be_for_less(new_flow: NewFlow) -> None:
    flow = await new_flow(audience=BOTH)
    answer = await flow.redeem(await flow.code(), resource=BOTH[1])
    assert audience_of(answer) == BOTH[1:]
    token = answer.json()["refresh_token"]
    assert_oauth_error(await flow.refresh(token, resource="https://c.example"), 400, "invalid_target")
    second = await flow.refresh(token, resource=BOTH[0])
    assert audience_of(second) == BOTH[:1]
    assert audience_of(await flow.refresh(second.json()["refresh_token"])) == BOTH


@pytest.mark.parametrize("grant", ["password", "client_credentials"])
async def test_the_other_grants_know_resources_too(client: httpx.AsyncClient, new_flow: NewFlow, grant: str) -> None:
    flow = await new_flow(grants=["password", "client_credentials", "refresh_token"], audience=BOTH, scopes=["read"])
    form = {"grant_type": grant, "username": flow.user.username, "password": "correct horse battery staple"}
    answer = await client.post("/token", data=form | {"resource": BOTH[0]}, auth=basic(flow.app))
    assert audience_of(answer) == BOTH[:1]
    if grant == "password":
        assert audience_of(await flow.refresh(answer.json()["refresh_token"])) == BOTH[:1]
    wrong = await client.post("/token", data=form | {"resource": "https://c.example"}, auth=basic(flow.app))
    assert_oauth_error(wrong, 400, "invalid_target")
