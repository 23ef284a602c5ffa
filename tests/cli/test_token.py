"""`authserver token explain`."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from authserver import clock, opaque
from authserver.services import Services
from authserver.sessions.models import UserSession
from authserver.tokens.logout_token import LogoutTokens
from tests.cli.conftest import Run
from tests.code_flow import NewFlow
from tests.factories import App, NewClient, NewUser, Person, claims_of, sign_in
from tests.test_token_refresh import refresh

Tokens = dict[str, Any]


@pytest.fixture
async def caller(new_client: NewClient) -> App:
    return await new_client()


@pytest.fixture
async def user(new_user: NewUser) -> Person:
    return await new_user()


@pytest.fixture
async def tokens(client: httpx.AsyncClient, caller: App, user: Person) -> Tokens:
    return dict((await sign_in(client, caller, user)).json())


async def explain(run: Run, token: str) -> dict[str, Any]:
    """Ask about a token on stdin, and look that nothing usable comes out again."""
    done = await run("token", "explain", "--json", stdin=token + "\n")
    signature = token.rpartition(".")[2]
    assert len(signature) < 40 or signature not in done.stdout + done.stderr
    explained: dict[str, Any] = done.json
    assert explained["good"] is not bool(explained["because"])
    return explained


async def test_a_good_access_token(run: Run, tokens: Tokens, caller: App, user: Person) -> None:
    explained = await explain(run, tokens["access_token"])
    claims = claims_of(tokens["access_token"])
    assert (explained["kind"], explained["good"], explained["signed_by_us"]) == ("access token", True, True)
    assert (explained["expired"], explained["revoked"]) == (False, False)
    assert explained["header"]["typ"] == "at+jwt"
    assert explained["claims"] == claims
    assert explained["user"] == {"id": str(user.id), "username": user.username, "is_active": True}
    assert explained["client"] == {"client_id": caller.client_id, "name": "A client of the tests", "active": True}
    assert (explained["session"]["id"], explained["session"]["revoked_at"]) == (claims["sid"], None)


async def test_the_token_may_be_an_argument_and_people_get_sentences(run: Run, tokens: Tokens) -> None:
    good = await run("token", "explain", tokens["access_token"])
    assert good.stdout.startswith("An access token, good.\n")
    assert tokens["access_token"].split(".")[2] not in good.stdout
    assert (await run("token", "explain", "rubbish")).stdout == (
        "Something unknown, not good: it is nothing that this server makes.\n"
    )


async def test_an_expired_access_token_can_still_be_read(
    run: Run, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_now = clock.now
    monkeypatch.setattr(clock, "now", lambda: true_now() + timedelta(minutes=11))
    explained = await explain(run, tokens["access_token"])
    assert (explained["signed_by_us"], explained["expired"], explained["revoked"]) == (True, True, False)
    assert explained["because"] == ["it has expired"]


async def test_a_revoked_access_token(run: Run, tokens: Tokens, user: Person) -> None:
    await run("users", "disable", user.username)
    explained = await explain(run, tokens["access_token"])
    assert (explained["revoked"], explained["because"]) == (True, ["it has been revoked"])
    assert explained["session"]["revoked_because"] == "account disabled"
    assert explained["user"]["is_active"] is False
    await run("users", "delete", user.username)
    explained = await explain(run, tokens["access_token"])
    assert (explained["user"], explained["session"], explained["revoked"]) == (None, None, True)


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_other_claims(token: str) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{encoded(claims_of(token) | {'sub': 'somebody'})}.{signature}"


def without_signature(token: str) -> str:
    return f"{encoded({'alg': 'none', 'typ': 'at+jwt'})}.{token.split('.')[1]}.c2ln"


@pytest.mark.parametrize("forge", [with_other_claims, without_signature])
async def test_a_forged_token_says_nothing(run: Run, tokens: Tokens, forge: Callable[[str], str]) -> None:
    explained = await explain(run, forge(tokens["access_token"]))
    assert (explained["signed_by_us"], explained["good"]) == (False, False)
    assert "user" not in explained


async def test_an_issuer_that_has_been_renamed_is_noticed(run: Run, tokens: Tokens) -> None:
    done = await run("token", "explain", "--json", tokens["access_token"], issuer="https://elsewhere.example")
    assert done.json["because"] == ["its issuer is not ours as it is set now"]


@pytest.mark.parametrize(
    "rubbish",
    [
        "rubbish",
        "a.b.c",
        "a.b.c.d",
        "é.b.c",
        f"{encoded([])}.{encoded({})}.c2ln",
        opaque.b64encode(b'{"a": NaN}') + ".e30.c2ln",
        opaque.b64encode(b'{"a": 1e999}') + ".e30.c2ln",
        opaque.b64encode(b"[" * 10_000) + ".e30.c2ln",
    ],
)
async def test_rubbish_is_nothing_of_ours(run: Run, rubbish: str) -> None:
    assert (await explain(run, rubbish))["kind"] == "unknown"


async def test_a_refresh_token_and_the_one_before_it(
    run: Run, client: httpx.AsyncClient, caller: App, tokens: Tokens
) -> None:
    first = tokens["refresh_token"]
    explained = await explain(run, first)
    sid = claims_of(tokens["access_token"])["sid"]
    assert (explained["kind"], explained["good"], explained["session"]["id"]) == ("refresh token", True, sid)
    assert (explained["generation"], explained["current_generation"]) == (0, 0)
    second = (await refresh(client, caller, first)).json()["refresh_token"]
    used = await explain(run, first)
    assert (used["generation"], used["current_generation"], used["good"]) == (0, 1, False)
    assert used["because"][0].startswith("it has been used")
    assert (await explain(run, second))["good"] is True


async def test_a_refresh_token_of_a_session_that_is_over(
    run: Run, services: Services, client: httpx.AsyncClient, caller: App, user: Person, tokens: Tokens
) -> None:
    session_id = claims_of(tokens["access_token"])["sid"]
    async with services.db.write() as tx:
        session = (await services.sessions.alive(tx, UserSession.user_id == user.id))[0]
        session.expires_at = clock.now() - timedelta(seconds=1)
    assert (await explain(run, tokens["refresh_token"]))["because"] == ["its session has run out"]
    await run("sessions", "revoke", "--session", session_id)
    ended = ["its session has ended: revoked by operator"]
    assert (await explain(run, tokens["refresh_token"]))["because"] == ended
    assert (await run("clients", "disable", caller.client_id)).status == 0
    assert (await explain(run, tokens["refresh_token"]))["because"] == [*ended, "the client is disabled"]
    await run("users", "delete", user.username)
    assert "long over" in (await explain(run, tokens["refresh_token"]))["because"][0]


async def test_a_refresh_token_that_the_database_has_forgotten(
    run: Run, services: Services, client: httpx.AsyncClient, caller: App, user: Person, tokens: Tokens
) -> None:
    second = (await refresh(client, caller, tokens["refresh_token"])).json()["refresh_token"]
    async with services.db.write() as tx:
        (await services.sessions.alive(tx, UserSession.user_id == user.id))[0].generation = 0
    assert "newer" in (await explain(run, second))["because"][0]


async def test_a_client_secret_tells_whose_it_is(run: Run, caller: App) -> None:
    assert caller.secret
    explained = await explain(run, caller.secret)
    assert (explained["kind"], explained["good"]) == ("client secret", True)
    assert explained["client"]["client_id"] == caller.client_id
    await run("clients", "disable", caller.client_id)
    assert (await explain(run, caller.secret))["because"] == ["the client is disabled"]
    await run("clients", "rotate-secret", caller.client_id)
    assert (await explain(run, caller.secret))["because"] == ["no client has it (any more)"]


async def test_an_id_token_and_a_logout_token(run: Run, services: Services, new_flow: NewFlow) -> None:
    flow = await new_flow()
    token = (await flow.tokens())["id_token"]
    explained = await explain(run, token)
    assert (explained["kind"], explained["good"], explained["signed_by_us"]) == ("ID token", True, True)
    assert explained["client"]["client_id"] == flow.app.client_id
    sid = claims_of(token)["sid"]
    async with services.denylist.revoking() as tx:
        await services.sessions.end(tx, UserSession.id == UUID(sid), because="test")
    assert (await explain(run, token))["because"] == ["it has been revoked"]
    told = LogoutTokens(services.settings, services.keyring).issue(
        algorithm="RS256", client_id=flow.app.client_id, subject=str(flow.user.id), session_id=sid
    )
    explained = await explain(run, told)
    assert (explained["kind"], explained["good"], explained["session"]["id"]) == ("logout token", True, sid)
