"""/userinfo: what scopes and names open, the three ways to ask, and the signed answer."""

import json
from typing import Any

import httpx
import pytest
from joserfc.jwk import KeySet

from authserver.services import Services
from tests.application import ISSUER
from tests.code_flow import Flow, NewFlow
from tests.factories import bearer, verified

PROFILE, EMAIL = {"preferred_username", "updated_at"}, {"email", "email_verified"}


@pytest.fixture
async def flow(new_flow: NewFlow) -> Flow:
    return await new_flow()


async def told(flow: Flow, **request: Any) -> dict[str, Any]:
    token = (await flow.tokens(**request))["access_token"]
    answer = await flow.client.get("/userinfo", headers=bearer(token))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


@pytest.mark.parametrize(
    ("scope", "opened"),
    [
        ("openid", set()),
        ("openid profile", PROFILE),
        ("openid email", EMAIL),
        ("openid email profile", PROFILE | EMAIL),
    ],
)
async def test_each_scope_opens_its_claims(flow: Flow, scope: str, opened: set[str]) -> None:
    about = await told(flow, scope=scope)
    assert set(about) == {"sub"} | opened
    said = {"sub": str(flow.user.id), "preferred_username": flow.user.username, "email": flow.user.email}
    assert about.items() <= (said | {"email_verified": False, "updated_at": about.get("updated_at")}).items()


@pytest.mark.parametrize(
    ("asked", "opened"),
    [
        ({"email": None}, {"email"}),
        ({"updated_at": {"essential": True}, "email_verified": {"essential": False}}, {"updated_at", "email_verified"}),
        ({"preferred_username": {"value": "somebody else"}}, {"preferred_username"}),
        ({"shoe_size": None, "phone_number": {"essential": True}}, set()),
    ],
)
async def test_a_claim_can_be_asked_for_by_name(flow: Flow, asked: dict[str, Any], opened: set[str]) -> None:
    about = await told(flow, scope="openid", claims=json.dumps({"userinfo": asked}))
    assert set(about) == {"sub"} | opened
    about = await told(flow, scope="openid", claims=json.dumps({"id_token": asked}))
    assert set(about) == {"sub"}  # each place for itself (OIDC Core §5.5)


async def test_names_are_remembered_over_a_refresh(flow: Flow) -> None:
    tokens = await flow.tokens(scope="openid", claims=json.dumps({"userinfo": {"email": None}}))
    again = (await flow.refresh(tokens["refresh_token"])).json()["access_token"]
    assert (await flow.client.get("/userinfo", headers=bearer(again))).json()["email"] == flow.user.email


# ── three ways to ask ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def token(flow: Flow) -> str:
    return str((await flow.tokens())["access_token"])


async def test_header_with_get_or_post_and_a_form_all_get_the_same(client: httpx.AsyncClient, token: str) -> None:
    answers = [
        await client.get("/userinfo", headers=bearer(token)),
        await client.post("/userinfo", headers=bearer(token)),
        await client.post("/userinfo", headers=bearer(token), json={"whatever": 1}),
        await client.post("/userinfo", headers=bearer(token), data={"other": "field"}),
        await client.post("/userinfo", data={"access_token": token}),
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


async def test_a_request_has_its_token_in_one_place_only(client: httpx.AsyncClient, token: str) -> None:
    repeated = {"access_token": [token, token]}
    bad = [
        await client.post("/userinfo", headers=bearer(token), data={"access_token": token}),
        await client.post("/userinfo", data=repeated),
        await client.post("/userinfo", headers=bearer(token), data=repeated),
        await client.post("/userinfo", data={"access_token": token, "a": "x" * 20_000}),
        await client.post("/userinfo", headers={"Authorization": "Basic eDp5"}, data={"access_token": token}),
    ]
    for answer in bad:
        assert answer.status_code == 400
        assert answer.headers["www-authenticate"] == 'Bearer realm="authserver", error="invalid_request"'


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "GET", "params": {"access_token": "TOKEN"}},
        {"method": "GET", "data": {"access_token": "TOKEN"}},
        {"method": "POST", "json": {"access_token": "TOKEN"}},
        {"method": "POST", "files": {"access_token": (None, "TOKEN")}},
        {"method": "POST", "data": {"token": "TOKEN"}},
        {"method": "POST", "params": {"access_token": "TOKEN"}},
    ],
    ids=["query", "GET with a form", "JSON", "multipart", "another field", "query of a POST"],
)
async def test_elsewhere_nobody_looks_for_it(client: httpx.AsyncClient, token: str, request_: dict[str, Any]) -> None:
    sent = json.loads(json.dumps(request_).replace("TOKEN", token))
    answer = await client.request(url="/userinfo", **sent)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="authserver"'


async def test_only_userinfo_takes_a_token_from_a_form(client: httpx.AsyncClient, token: str) -> None:
    answer = await client.request("GET", "/users/me", data={"access_token": token})
    assert answer.status_code == 401


async def test_a_dead_token_in_a_form_is_refused(client: httpx.AsyncClient, flow: Flow, token: str) -> None:
    form = {"token": token}
    assert (await flow.client.post("/revoke", data=form, auth=flow.proof)).status_code == 200
    for dead in (token, "x", token[:-4]):
        answer = await client.post("/userinfo", data={"access_token": dead})
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_a_token_without_openid_is_not_enough(client: httpx.AsyncClient, flow: Flow) -> None:
    token = (await flow.tokens(scope="profile"))["access_token"]
    answer = await client.post("/userinfo", data={"access_token": token})
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


# ── signed ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_client_that_registered_for_it_gets_it_signed(
    client: httpx.AsyncClient, services: Services, new_flow: NewFlow, algorithm: str
) -> None:
    if algorithm == "EdDSA":
        await services.keyring.rotate("EdDSA", at_once=True)
    flow = await new_flow(userinfo_alg=algorithm)
    token = (await flow.tokens(scope="openid email"))["access_token"]
    answer = await client.get("/userinfo", headers=bearer(token))
    assert answer.headers["content-type"] == "application/jwt"
    assert answer.headers["cache-control"] == "no-store"
    keys = KeySet.import_key_set((await client.get("/.well-known/jwks.json")).json())
    signed = verified(answer.text, keys, algorithm)
    assert signed.claims == {
        "iss": ISSUER, "aud": flow.app.client_id, "sub": str(flow.user.id),
        "email": flow.user.email, "email_verified": False,
    }  # fmt: skip
    assert await services.id_tokens.read(answer.text) is None  # it is no ID token
