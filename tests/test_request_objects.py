"""The parameter `request`: a request that the client has signed (RFC 9101)."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey

from authserver import opaque
from tests.assertions import KEYS, Signer, key_set, new_secret_signer
from tests.code_flow import CALLBACK, Flow, NewFlow, sent_back, sent_to
from tests.factories import NewClient, NewUser, agreed
from tests.test_authorize import assert_shown
from tests.test_par import come_with, push, pushed

ALGORITHMS = ["ES256", "ES384", "RS256", "PS256", "EdDSA", "Ed25519"]
KEY_OF = {"PS256": "RS256", "Ed25519": "EdDSA"}
TYPE = "oauth-authz-req+jwt"


def signer_of(flow: Flow, alg: str = "ES256") -> Signer:
    return Signer(flow.app.client_id, KEYS[KEY_OF.get(alg, alg)], alg)


@pytest.fixture
async def flow(new_flow: NewFlow) -> Flow:
    """Somebody who has agreed to a client that has registered keys, and proves itself by a secret."""
    addresses, audience = [CALLBACK, "https://app.example/other"], ["https://a.example", "https://b.example"]
    return await new_flow(jwks=key_set(*KEYS.values()), redirect_uris=addresses, audience=audience)


def asked(flow: Flow, **changes: str) -> dict[str, Any]:
    return dict(flow.request(**changes))


def signed(flow: Flow, alg: str = "ES256", header: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """Return a sound request object; a change to None leaves a claim out."""
    without = {"sub": None, "jti": None}
    return signer_of(flow, alg).sign({"typ": TYPE, **(header or {})}, **(without | asked(flow) | changes))


def around(flow: Flow, request: str, **changes: str | None) -> dict[str, str]:
    """Return what stands in the address beside it."""
    usual: dict[str, str | None] = {"client_id": flow.app.client_id, "request": request}
    return {name: value for name, value in (usual | changes).items() if value is not None}


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_a_signed_request_gives_a_code(flow: Flow, alg: str) -> None:
    answer = await flow.browser.get("/authorize", params=around(flow, signed(flow, alg)))
    sent = sent_back(answer)
    assert sent["state"] == "the state"
    assert (await flow.redeem(sent["code"])).status_code == 200


async def test_a_secret_may_sign_where_it_is_kept_for_that(
    flow: Flow, new_client: NewClient, new_user: NewUser
) -> None:
    app, signer = await new_secret_signer(new_client, grants=["authorization_code"], redirect_uris=[CALLBACK])
    await agreed(flow.services, flow.user, app)
    request = signer.sign(sub=None, **asked(flow, client_id=app.client_id))
    answer = await flow.browser.get("/authorize", params={"client_id": app.client_id, "request": request})
    assert "code" in sent_back(answer)


async def test_only_what_is_signed_counts(flow: Flow) -> None:
    unsigned = {"state": "other", "scope": "admin", "redirect_uri": "https://evil.example", "prompt": "login"}
    answer = await flow.browser.get("/authorize", params=around(flow, signed(flow, scope="openid"), **unsigned))
    sent = sent_back(answer)
    assert sent["state"] == "the state"
    assert (await flow.redeem(sent["code"])).json()["scope"] == "openid"
    without = await flow.browser.get("/authorize", params=around(flow, signed(flow, scope=None), scope="admin"))
    assert (await flow.redeem(sent_back(without)["code"])).json()["scope"] == "profile email"


async def test_parameters_may_be_what_they_are_in_json(flow: Flow) -> None:
    claims = {"id_token": {"email": {"essential": True}}}
    resources = ["https://a.example", "https://b.example"]
    request = signed(flow, max_age=100_000, claims=claims, resource=resources)
    assert "code" in sent_back(await flow.browser.get("/authorize", params=around(flow, request)))
    login = signed(flow, max_age=0)
    sent_to(await flow.browser.get("/authorize", params=around(flow, login)), "/login")


async def test_an_object_comes_back_from_the_sign_in_page(new_flow: NewFlow) -> None:
    flow = await new_flow(is_signed_in=False, jwks=key_set(*KEYS.values()))
    login = sent_to(await flow.browser.get("/authorize", params=around(flow, signed(flow, ui_locales="de"))), "/login")
    assert login["ui_locales"] == "de"
    refused = await flow.browser.get(login["continue"] + "&refused=login")
    assert sent_back(refused)["error"] == "access_denied"


def _none(flow: Flow) -> str:
    def segment(document: object) -> str:
        return opaque.b64encode(json.dumps(document).encode())

    claims = {"iss": flow.app.client_id, "aud": signer_of(flow).issuer} | flow.request()
    return f"{segment({'alg': 'none'})}.{segment(claims)}."


def _changed(flow: Flow) -> str:
    header, _, signature = signed(flow).split(".")
    return f"{header}.{signed(flow, scope='openid').split('.')[1]}.{signature}"


NOW = int(time.time())
BAD_OBJECTS: Mapping[str, Callable[[Flow], str]] = {
    "unsigned": _none,
    "changed": _changed,
    "signed by somebody else": lambda flow: signer_of(flow).sign(key=ECKey.generate_key("P-256"), **asked(flow)),
    "an algorithm that is not allowed": lambda flow: signed(flow, "RS256", {"alg": "RS512"}),
    "another one": lambda flow: signed(flow, "RS256", {"alg": "PS384"}),
    "a secret that is kept as a hash": lambda flow: Signer(
        flow.app.client_id, OctKey.import_key(flow.app.secret or ""), "HS256"
    ).sign(**asked(flow)),
    "the kid of another key": lambda flow: signed(flow, header={"kid": "rsa"}),
    "another kind of JWT": lambda flow: signed(flow, header={"typ": "client-authentication+jwt"}),
    "an access token's type": lambda flow: signed(flow, header={"typ": "at+jwt"}),
    "an issuer that is no text": lambda flow: signed(flow, iss=1),
    "another issuer": lambda flow: signed(flow, iss="another"),
    "no issuer": lambda flow: signed(flow, iss=None),
    "another client": lambda flow: signed(flow, client_id="another"),
    "another audience": lambda flow: signed(flow, aud="https://other.example"),
    "no audience": lambda flow: signed(flow, aud=None),
    "expired": lambda flow: signed(flow, exp=NOW - 10),
    "not good yet": lambda flow: signed(flow, nbf=NOW + 1000),
    "exp is text": lambda flow: signed(flow, exp="tomorrow"),
    "an object inside": lambda flow: signed(flow, request="x"),
    "an address inside": lambda flow: signed(flow, request_uri="https://app.example/r"),
    "a parameter that is true": lambda flow: signed(flow, max_age=True),
    "a list of numbers": lambda flow: signed(flow, resource=[1]),
    "a control character": lambda flow: signed(flow, state="a\nb"),
}


@pytest.mark.parametrize("case", BAD_OBJECTS)
async def test_a_bad_object_goes_back_only_to_an_address_in_sight(flow: Flow, case: str) -> None:
    bad = BAD_OBJECTS[case](flow)
    beside = around(flow, bad, redirect_uri=CALLBACK, state="beside", response_mode="fragment")
    sent = sent_back(await flow.browser.get("/authorize", params=beside), "fragment")
    assert (sent["error"], sent["state"]) == ("invalid_request_object", "beside")
    assert_shown(await flow.browser.get("/authorize", params=around(flow, bad)))
    assert_shown(await flow.browser.get("/authorize", params=beside | {"redirect_uri": "https://evil.example"}))


async def test_what_is_signed_is_checked_like_any_request(flow: Flow) -> None:
    sent = sent_back(await flow.browser.get("/authorize", params=around(flow, signed(flow, scope="admin"))))
    assert sent["error"] == "invalid_scope"
    elsewhere = signed(flow, redirect_uri="https://evil.example")
    assert_shown(await flow.browser.get("/authorize", params=around(flow, elsewhere, redirect_uri=CALLBACK)))


@pytest.mark.parametrize(
    "changes", [{"aud": ["https://other.example", "https://auth.example.com"]}, {"exp": None}, {"jti": "x", "sub": "y"}]
)
async def test_what_rfc_9101_leaves_open_is_open(flow: Flow, changes: dict[str, Any]) -> None:
    assert "code" in sent_back(await flow.browser.get("/authorize", params=around(flow, signed(flow, **changes))))


@pytest.mark.parametrize("kind", [None, "JWT", "oauth-authz-req+jwt", "application/oauth-authz-req+jwt"])
async def test_its_type_may_say_what_it_is(flow: Flow, kind: str | None) -> None:
    header = {} if kind is None else {"typ": kind}
    request = signer_of(flow).sign(header, sub=None, jti=None, **asked(flow))
    assert "code" in sent_back(await flow.browser.get("/authorize", params=around(flow, request)))


async def test_an_object_and_an_address_at_once_are_refused(flow: Flow) -> None:
    both = around(flow, signed(flow), request_uri="https://app.example/r", redirect_uri=CALLBACK)
    assert sent_back(await flow.browser.get("/authorize", params=both))["error"] == "invalid_request"


async def test_a_client_may_have_to_sign(new_flow: NewFlow) -> None:
    flow = await new_flow(require_signed_requests=True, jwks=key_set(*KEYS.values()))
    assert sent_back(await flow.authorize())["error"] == "invalid_request"
    assert (await push(flow)).json()["error"] == "invalid_request"
    assert "code" in sent_back(await flow.browser.get("/authorize", params=around(flow, signed(flow))))


async def test_a_signed_request_may_be_pushed(new_flow: NewFlow) -> None:
    flow = await new_flow(require_signed_requests=True, require_pushed_requests=True, jwks=key_set(*KEYS.values()))
    nothing_else = dict.fromkeys(flow.request()) | {"client_id": flow.app.client_id}
    uri = await pushed(flow, **nothing_else, request=signed(flow))
    assert "code" in sent_back(await come_with(flow, uri))
    bad = await push(flow, **nothing_else, request=signed(flow, aud="https://other.example"))
    assert (bad.status_code, bad.json()["error"]) == (400, "invalid_request_object")
    unpushed = around(flow, signed(flow), redirect_uri=CALLBACK)
    assert sent_back(await flow.browser.get("/authorize", params=unpushed))["error"] == "invalid_request"
