"""ID tokens: what relying parties get to know of a sign-in, and what libraries say of them."""

import hashlib
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from authlib.oidc.core import CodeIDToken
from freezegun import freeze_time
from joserfc.jwk import KeySet

from authserver import clock, opaque
from authserver.keys import rotation
from authserver.keys.signing import sign
from authserver.services import Services
from tests.application import ISSUER
from tests.code_flow import Flow, NewFlow
from tests.factories import NewClient, claims_of, sign_in, verified

ALGORITHMS = ["RS256", "ES256", "EdDSA"]
HASHES: dict[str, Callable[[bytes], Any]] = {
    "RS256": hashlib.sha256, "ES256": hashlib.sha256, "EdDSA": hashlib.sha512,
}  # fmt: skip
ALWAYS = {"iss", "sub", "aud", "azp", "exp", "iat", "auth_time", "acr", "amr", "at_hash", "sid"}


@pytest.fixture
async def eddsa(services: Services) -> None:
    """There is a key for EdDSA, and it is past its announcement."""
    await services.keyring.introduce("EdDSA")
    for _ in range(2):  # the first of a database signs at once only if it was rotated in
        if services.keyring._signer("EdDSA") is None:
            await services.keyring.rotate("EdDSA", at_once=True)


async def keys_of(client: httpx.AsyncClient) -> KeySet:
    return KeySet.import_key_set((await client.get("/.well-known/jwks.json")).json())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.usefixtures("eddsa")
async def test_a_relying_party_can_verify_it_with_the_algorithm_that_it_registered_for(
    client: httpx.AsyncClient, new_flow: NewFlow, algorithm: str
) -> None:
    flow, before = await new_flow(id_token_alg=algorithm), int(time.time())
    answer = await flow.tokens(nonce="some nonce")
    token = verified(answer["id_token"], await keys_of(client), algorithm)
    assert token.header == {"alg": algorithm, "typ": "JWT", "kid": token.header["kid"]}
    claims = token.claims
    assert set(claims) == ALWAYS | {"nonce"}
    assert (claims["iss"], claims["sub"], claims["aud"], claims["azp"]) == (
        ISSUER, str(flow.user.id), flow.app.client_id, flow.app.client_id,
    )  # fmt: skip
    assert (claims["nonce"], claims["acr"], claims["amr"]) == ("some nonce", "1", ["pwd"])
    assert before - 5 <= claims["auth_time"] <= claims["iat"] <= time.time()
    assert claims["iat"] < claims["exp"] <= claims["iat"] + 601
    digest = HASHES[algorithm](answer["access_token"].encode()).digest()
    assert claims["at_hash"] == opaque.b64encode(digest[: len(digest) // 2])
    assert claims["sid"] == claims_of(answer["access_token"])["sid"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.usefixtures("eddsa")
async def test_authlib_finds_nothing_wrong_with_it(
    client: httpx.AsyncClient, new_flow: NewFlow, algorithm: str
) -> None:
    flow = await new_flow(id_token_alg=algorithm)
    answer = await flow.tokens(nonce="some nonce")
    token = verified(answer["id_token"], await keys_of(client), algorithm)
    options = {"iss": {"essential": True, "value": ISSUER}, "aud": {"essential": True, "value": flow.app.client_id}}
    params = {
        "nonce": "some nonce",
        "client_id": flow.app.client_id,
        "access_token": answer["access_token"],
        "max_age": 60,
    }
    CodeIDToken(token.claims, token.header, options, params).validate(leeway=5)


async def test_a_refresh_gives_one_of_the_same_sign_in(new_flow: NewFlow) -> None:
    flow = await new_flow()
    first = await flow.tokens()
    with freeze_time(clock.now() + timedelta(seconds=100), tick=True, real_asyncio=True):
        second = (await flow.refresh(first["refresh_token"])).json()
    old, new = claims_of(first["id_token"]), claims_of(second["id_token"])
    same = {"iss", "sub", "aud", "azp", "auth_time", "acr", "amr", "sid"}
    assert {name: old[name] for name in same} == {name: new[name] for name in same}  # OIDC Core §12.2
    assert new["iat"] > old["iat"]
    assert new["at_hash"] != old["at_hash"]
    assert "nonce" not in new


async def test_a_refresh_without_openid_gives_none(new_flow: NewFlow) -> None:
    flow = await new_flow()
    first = await flow.tokens()
    assert "id_token" not in (await flow.refresh(first["refresh_token"], scope="profile")).json()


async def test_there_is_none_without_openid_nor_for_a_password(
    client: httpx.AsyncClient, new_client: NewClient, new_flow: NewFlow
) -> None:
    flow = await new_flow()
    assert "id_token" not in await flow.tokens(scope="profile")
    assert "id_token" not in (await sign_in(client, await new_client(), flow.user, scope="openid")).json()


async def test_claims_of_scopes_are_not_in_it_unless_they_are_asked_for_by_name(new_flow: NewFlow) -> None:
    flow = await new_flow()
    assert set(claims_of((await flow.tokens())["id_token"])) == ALWAYS | {"nonce"}
    asked = {"id_token": {"email": None, "preferred_username": {"essential": True}, "auth_time": {"essential": True}}}
    claims = claims_of((await flow.tokens(scope="openid", nonce=None, claims=json.dumps(asked)))["id_token"])
    assert set(claims) == ALWAYS | {"email", "preferred_username"}
    assert (claims["email"], claims["preferred_username"]) == (flow.user.email, flow.user.username)


# ── as a hint ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def flow(new_flow: NewFlow) -> Flow:
    return await new_flow()


@pytest.fixture
async def answer(flow: Flow) -> dict[str, Any]:
    return await flow.tokens()


async def test_one_that_expired_long_ago_is_still_a_good_hint(
    services: Services, flow: Flow, answer: dict[str, Any]
) -> None:
    with freeze_time(clock.now() + timedelta(days=30), tick=True, real_asyncio=True):
        hint = await services.id_tokens.read(answer["id_token"])
    assert hint is not None
    assert (hint.subject, hint.client_id) == (str(flow.user.id), flow.app.client_id)
    assert hint.session_id == claims_of(answer["id_token"])["sid"]


BAD_HINTS: dict[str, Callable[[dict[str, Any], Services], str]] = {
    "an access token": lambda answer, _: answer["access_token"],
    "a refresh token": lambda answer, _: answer["refresh_token"],
    "nothing like a token": lambda *_: "x",
    "three dots of nothing": lambda *_: "..",
    "too long": lambda answer, _: answer["id_token"] + "A" * 8192,
    "another signature": lambda answer, _: answer["id_token"][:-8] + "AAAAAAAA",
    "no signature": lambda answer, _: answer["id_token"].rpartition(".")[0] + ".",
    "other claims": lambda answer, _: ".".join(
        [answer["id_token"].split(".")[0], opaque.b64encode(b'{"iss":"x"}'), answer["id_token"].split(".")[2]]
    ),
    "alg none": lambda answer, _: ".".join(
        [opaque.b64encode(b'{"alg":"none","typ":"JWT"}'), answer["id_token"].split(".")[1], ""]
    ),
    "of another issuer": lambda answer, house: _signed(answer, house, iss="https://other.example"),
    "without sid": lambda answer, house: _signed(answer, house, sid=None),
    "for several": lambda answer, house: _signed(answer, house, aud=["a", "b"]),
    "a logout token": lambda answer, house: _signed(answer, house, typ="logout+jwt"),
    "not ASCII": lambda answer, _: answer["id_token"] + "é",
}


def _signed(answer: dict[str, Any], house: Services, typ: str = "JWT", **changes: Any) -> str:
    claims = claims_of(answer["id_token"]) | changes
    return sign(house.keyring.signing_key("RS256"), typ, claims)


@pytest.mark.parametrize("name", BAD_HINTS)
async def test_what_is_no_id_token_of_ours_is_no_hint(services: Services, answer: dict[str, Any], name: str) -> None:
    assert await services.id_tokens.read(_signed(answer, services)) is not None
    assert await services.id_tokens.read(BAD_HINTS[name](answer, services)) is None


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_first_key_of_an_algorithm_is_made_when_a_client_comes_that_needs_it(
    app_with: Any, databases: Any, backend: Any
) -> None:
    url = await databases.new_database(backend)
    house: Services = (await app_with(database_url=url)).state.services
    with pytest.raises(Exception, match="no signing key for EdDSA"):
        await house.id_tokens.prepare("EdDSA")
    (key,) = house.keyring._of("EdDSA")
    announced = rotation.announcement(house.settings.jwks_max_age_seconds)
    assert key.signs_from - key.created_at == announced  # nobody's copy of the JWKS has it yet


async def test_a_code_is_not_used_up_while_there_is_no_key_to_sign_with(
    services: Services, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, signer = await flow.code(), services.keyring._signer
    with monkeypatch.context() as patch:
        patch.setattr(services.keyring, "_signer", lambda name: None if name == "RS256" else signer(name))
        assert (await flow.redeem(code)).status_code == 503
    assert (await flow.redeem(code)).status_code == 200
