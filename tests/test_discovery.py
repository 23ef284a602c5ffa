"""The metadata and the keys: every field of both documents is held against what the server does."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from joserfc.jwk import KeySet

from authserver.errors import InvalidInput
from authserver.services import Services
from tests.application import ISSUER
from tests.assertions import KEYS, Signer, key_set, new_secret_signer, new_signer
from tests.code_flow import CALLBACK, Flow, NewFlow, sent_back
from tests.factories import NewClient, agreed, basic, bearer, claims_of
from tests.receiver import receiving
from tests.test_backchannel_logout import end, heard

PUBLIC = {"ES256": {"crv", "x", "y"}, "RS256": {"n", "e"}, "EdDSA": {"crv", "x"}}
DOCUMENTS = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]
SIGNED_BY_KEY = {"ES256": "ES256", "ES384": "ES384", "RS256": "RS256", "PS256": "RS256", "EdDSA": "EdDSA",
                 "Ed25519": "EdDSA"}  # fmt: skip


@dataclass
class Site:
    """What the checks ask."""

    client: httpx.AsyncClient
    services: Services
    new_client: NewClient
    new_flow: NewFlow
    document: dict[str, Any]

    async def endpoint(self, name: str) -> str:
        return str(self.document[f"{name}_endpoint"])


@pytest.fixture
async def site(client: httpx.AsyncClient, services: Services, new_client: NewClient, new_flow: NewFlow) -> Site:
    return Site(client, services, new_client, new_flow, (await client.get(DOCUMENTS[0])).json())


Check = Callable[[Site, Any], Awaitable[None]]


# ── one check for each field ────────────────────────────────────────────────────────────────────────────────────────


async def _issuer(site: Site, value: Any) -> None:
    tokens = await (await site.new_flow()).tokens()  # where `iss` of the answer (RFC 9207) is looked at too
    assert value == ISSUER == claims_of(tokens["id_token"])["iss"] == claims_of(tokens["access_token"])["iss"]


def _address(method: str) -> Check:
    async def check(site: Site, value: Any) -> None:
        assert value.startswith(f"{ISSUER}/")
        assert (await site.client.request(method, value)).status_code not in (404, 405)

    return check


async def _scopes(site: Site, value: Any) -> None:
    flow = await site.new_flow(scopes=value, consent=" ".join(value))
    assert (await flow.tokens(scope=" ".join(value)))["scope"].split(" ") == value
    assert sent_back(await flow.authorize(scope="openid unheard-of"))["error"] == "invalid_scope"


async def _offers(site: Site, parameter: str, value: Any, others: list[str], error: str) -> None:
    """Each listed value of a parameter is understood, and no other."""
    flow = await site.new_flow()
    for one in value:
        answer = await flow.authorize(**{parameter: one})
        assert "error=" not in answer.headers.get("location", ""), one
        assert answer.status_code < 400
    for other in others:
        assert sent_back(await flow.authorize(**{parameter: other}))["error"] == error, other


async def _response_types(site: Site, value: Any) -> None:
    others = ["token", "id_token", "code id_token", "code token", "id_token token", "none"]
    await _offers(site, "response_type", value, others, "unsupported_response_type")


async def _response_modes(site: Site, value: Any) -> None:
    flow = await site.new_flow()
    assert value == ["query", "fragment", "form_post"]
    for mode in ("query", "fragment"):
        assert "code" in sent_back(await flow.authorize(response_mode=mode), mode)
    page = await flow.authorize(response_mode="form_post")
    assert f'<form method="post" action="{CALLBACK}">' in page.text
    assert sent_back(await flow.authorize(response_mode="web_message"))["error"] == "invalid_request"


async def _challenges(site: Site, value: Any) -> None:
    flow = await site.new_flow()
    await flow.tokens()
    assert value == ["S256"]
    plain = {"code_challenge": flow.verifier, "code_challenge_method": "plain"}
    assert sent_back(await flow.authorize(**plain))["error"] == "invalid_request"


async def _iss(site: Site, value: Any) -> None:
    flow = await site.new_flow()
    assert value is True
    assert sent_back(await flow.authorize())["iss"] == ISSUER
    assert sent_back(await flow.authorize(response_type="token"))["iss"] == ISSUER


async def _prompts(site: Site, value: Any) -> None:
    await _offers(site, "prompt", value, ["create", "x"], "invalid_request")


async def _displays(site: Site, value: Any) -> None:
    await _offers(site, "display", value, ["hologram"], "invalid_request")


async def _acr(site: Site, value: Any) -> None:
    flow = await site.new_flow()

    def wish(one: str) -> str:
        return json.dumps({"id_token": {"acr": {"essential": True, "value": one}}})

    for one in value:
        assert claims_of((await flow.tokens(claims=wish(one)))["id_token"])["acr"] == one
    assert sent_back(await flow.authorize(claims=wish("2")))["error"] == "unmet_authentication_requirements"


async def _claims_parameter(site: Site, value: Any) -> None:
    flow = await site.new_flow()
    assert value is True
    tokens = await flow.tokens(scope="openid", claims='{"id_token":{"email":null}}')
    assert claims_of(tokens["id_token"])["email"] == flow.user.email


def _signed_request(signer: Signer, parameters: dict[str, Any]) -> str:
    return signer.sign(sub=None, **parameters)


async def _request_object(site: Site, algorithm: str) -> Flow:
    """Have a request understood that is signed with an algorithm."""
    flow = await site.new_flow(jwks=key_set(*KEYS.values()))
    signer = Signer(flow.app.client_id, KEYS[SIGNED_BY_KEY[algorithm]], algorithm)
    request = _signed_request(signer, flow.request())
    answer = await flow.browser.get("/authorize", params={"client_id": flow.app.client_id, "request": request})
    assert "code" in sent_back(answer)
    return flow


async def _request_parameter(site: Site, value: Any) -> None:
    assert value is True
    await _request_object(site, "ES256")


async def _request_algorithms(site: Site, value: Any) -> None:
    assert {*value} == {*SIGNED_BY_KEY, "HS256"}
    for algorithm in SIGNED_BY_KEY:
        flow = await _request_object(site, algorithm)
    app, signer = await new_secret_signer(site.new_client, grants=["authorization_code"], redirect_uris=[CALLBACK])
    await agreed(site.services, flow.user, app)
    request = _signed_request(signer, flow.request(client_id=app.client_id))
    answer = await flow.browser.get("/authorize", params={"client_id": app.client_id, "request": request})
    assert "code" in sent_back(answer)


async def _request_uri(site: Site, value: Any) -> None:
    flow = await site.new_flow()
    assert value is False
    answer = await flow.authorize(request_uri="https://app.example/request.jwt")
    assert sent_back(answer)["error"] == "request_uri_not_supported"


async def _not_required(site: Site, value: Any) -> None:
    assert value is False
    await (await site.new_flow()).tokens()  # neither pushed nor signed


async def _grants(site: Site, value: Any) -> None:
    app = await site.new_client(grants=["password"])
    others = ["implicit", "urn:ietf:params:oauth:grant-type:jwt-bearer", "urn:openid:params:grant-type:ciba"]
    for grant in [*value, *others]:
        error = (await site.client.post("/token", data={"grant_type": grant}, auth=basic(app))).json()["error"]
        assert (error == "unsupported_grant_type") is (grant not in value)


async def _is_let_in(site: Site, endpoint: str, method: str) -> bool:
    data = {"token": "x", "grant_type": "refresh_token", "refresh_token": "x"}
    auth: Any = httpx.USE_CLIENT_DEFAULT
    match method:
        case "private_key_jwt":
            data |= (await new_signer(site.new_client)).form()
        case "client_secret_jwt":
            data |= (await new_secret_signer(site.new_client))[1].form()
        case _:
            app = await site.new_client(is_public=method == "none")
            if method == "client_secret_basic":
                auth = basic(app)
            else:
                data["client_id"] = app.client_id
            if method == "client_secret_post":
                data["client_secret"] = app.secret or ""
    return (await site.client.post(await site.endpoint(endpoint), data=data, auth=auth)).status_code != 401


def _proofs(endpoint: str) -> Check:
    async def check(site: Site, value: Any) -> None:
        methods = ["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"]
        assert [method for method in methods if await _is_let_in(site, endpoint, method)] == value

    return check


def _assertion_algorithms(endpoint: str) -> Check:
    async def check(site: Site, value: Any) -> None:
        signers = [await new_signer(site.new_client, algorithm) for algorithm in SIGNED_BY_KEY]
        signers.append((await new_secret_signer(site.new_client))[1])
        assert {signer.alg for signer in signers} == {*value}
        for signer in signers:
            data = {"token": "x", "grant_type": "refresh_token", "refresh_token": "x"} | signer.form()
            assert (await site.client.post(await site.endpoint(endpoint), data=data)).status_code != 401, signer.alg

    return check


async def _subjects(site: Site, value: Any) -> None:
    flow, other = await site.new_flow(), await site.new_flow()
    await agreed(site.services, flow.user, other.app)
    tokens = await flow.tokens()
    flow.app = other.app
    again = await flow.tokens()
    assert value == ["public"]
    assert claims_of(tokens["id_token"])["sub"] == claims_of(again["id_token"])["sub"] == str(flow.user.id)


def _header(token: str) -> dict[str, Any]:
    return claims_of(f".{token.split('.', maxsplit=1)[0]}.")


async def _signed_with(site: Site, column: str, value: list[str], signed: Callable[[Flow], Awaitable[str]]) -> None:
    assert {*value} == {*PUBLIC}
    await site.services.keyring.rotate("EdDSA", at_once=True)
    for algorithm in value:
        flow = await site.new_flow(**{column: algorithm})
        assert _header(await signed(flow))["alg"] == algorithm
    for other in ("none", "HS256", "PS256", "ES384"):
        with pytest.raises(InvalidInput):
            await site.new_client(**{column: other})


async def _id_token_algorithms(site: Site, value: Any) -> None:
    async def signed(flow: Flow) -> str:
        return str((await flow.tokens())["id_token"])

    await _signed_with(site, "id_token_alg", value, signed)


async def _userinfo_algorithms(site: Site, value: Any) -> None:
    async def signed(flow: Flow) -> str:
        return (await site.client.get("/userinfo", headers=bearer((await flow.tokens())["access_token"]))).text

    await _signed_with(site, "userinfo_alg", value, signed)


async def _claims(site: Site, value: Any) -> None:
    tokens = await (await site.new_flow()).tokens()
    about = (await site.client.get("/userinfo", headers=bearer(tokens["access_token"]))).json()
    assert len(value) == len({*value})
    assert {*value} == {*claims_of(tokens["id_token"]), *about}


async def _backchannel(site: Site, value: Any) -> None:
    assert value is True
    async with receiving() as receiver:
        flow = await site.new_flow(backchannel_logout_uri=receiver.uri)
        tokens = await flow.tokens()
        await end(site.services, flow)
        (notice,) = await heard(receiver)
        assert notice["sid"] == claims_of(tokens["id_token"])["sid"]


async def _documentation(site: Site, value: Any) -> None:
    assert (await site.client.get(value)).status_code == 200


CHECKS: dict[str, Check] = {
    "issuer": _issuer,
    "authorization_endpoint": _address("GET"),
    "pushed_authorization_request_endpoint": _address("POST"),
    "token_endpoint": _address("POST"),
    "introspection_endpoint": _address("POST"),
    "revocation_endpoint": _address("POST"),
    "userinfo_endpoint": _address("GET"),
    "end_session_endpoint": _address("GET"),
    "jwks_uri": _address("GET"),
    "scopes_supported": _scopes,
    "response_types_supported": _response_types,
    "response_modes_supported": _response_modes,
    "code_challenge_methods_supported": _challenges,
    "authorization_response_iss_parameter_supported": _iss,
    "prompt_values_supported": _prompts,
    "display_values_supported": _displays,
    "acr_values_supported": _acr,
    "claims_parameter_supported": _claims_parameter,
    "request_parameter_supported": _request_parameter,
    "request_object_signing_alg_values_supported": _request_algorithms,
    "request_uri_parameter_supported": _request_uri,
    "require_pushed_authorization_requests": _not_required,
    "require_signed_request_object": _not_required,
    "grant_types_supported": _grants,
    "token_endpoint_auth_methods_supported": _proofs("token"),
    "token_endpoint_auth_signing_alg_values_supported": _assertion_algorithms("token"),
    "introspection_endpoint_auth_methods_supported": _proofs("introspection"),
    "introspection_endpoint_auth_signing_alg_values_supported": _assertion_algorithms("introspection"),
    "revocation_endpoint_auth_methods_supported": _proofs("revocation"),
    "revocation_endpoint_auth_signing_alg_values_supported": _assertion_algorithms("revocation"),
    "subject_types_supported": _subjects,
    "id_token_signing_alg_values_supported": _id_token_algorithms,
    "userinfo_signing_alg_values_supported": _userinfo_algorithms,
    "claims_supported": _claims,
    "backchannel_logout_supported": _backchannel,
    "backchannel_logout_session_supported": _backchannel,
    "service_documentation": _documentation,
}


@pytest.mark.parametrize("field", CHECKS)
async def test_what_is_said_is_so(site: Site, field: str) -> None:
    await CHECKS[field](site, site.document[field])


async def test_nothing_is_said_that_no_test_looks_at_and_both_documents_say_the_same(client: httpx.AsyncClient) -> None:
    documents = [(await client.get(path)).json() for path in DOCUMENTS]
    assert documents[0] == documents[1]
    assert set(documents[0]) == set(CHECKS)


@pytest.mark.parametrize("path", DOCUMENTS)
async def test_a_library_finds_nothing_wrong_with_the_metadata(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.headers["content-type"] == "application/json"
    AuthorizationServerMetadata(response.json()).validate()


async def test_the_keys_are_public_and_good_for_verifying(client: httpx.AsyncClient) -> None:
    response = await client.get("/.well-known/jwks.json")
    assert response.headers["cache-control"] == "public, max-age=300"
    keys = response.json()["keys"]
    assert keys
    for key in keys:
        assert PUBLIC[key["alg"]] | {"kty", "kid", "use", "alg"} == set(key)
        assert key["use"] == "sig"
    assert {"ES256", "RS256"} <= {key["alg"] for key in keys}  # others when somebody asks for them
    KeySet.import_key_set(response.json())


@pytest.mark.parametrize("path", [*DOCUMENTS, "/.well-known/jwks.json"])
async def test_a_copy_that_is_still_good_is_not_sent_again(client: httpx.AsyncClient, path: str) -> None:
    tag = (await client.get(path)).headers["etag"]
    again = await client.get(path, headers={"If-None-Match": tag})
    assert again.status_code == 304
    assert again.content == b""
    assert (await client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize("path", [*DOCUMENTS, "/.well-known/jwks.json"])
async def test_the_host_header_changes_nothing(client: httpx.AsyncClient, path: str) -> None:
    usual = await client.get(path)
    assert (await client.get(path, headers={"Host": "evil.example"})).content == usual.content
