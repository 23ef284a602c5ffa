"""POST /clients, and /clients/{client_id}: clients that register themselves (RFC 7591, RFC 7592)."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from authserver.clients import registration
from authserver.settings import Settings
from tests import application
from tests.assertions import KEYS, key_set
from tests.factories import App, NewUser, agreed, basic, bearer, signed_in_browser

ClientWith = Callable[..., Awaitable[httpx.AsyncClient]]
TOKEN = "the operator's token for new clients, long enough"
CALLBACK = "https://app.example/callback"
ALL_OF_IT: dict[str, Any] = {
    "redirect_uris": [CALLBACK, "com.example.app:/callback"],
    "token_endpoint_auth_method": "client_secret_post",
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "client_name": "An application",
    "client_uri": "https://app.example/",
    "policy_uri": "https://app.example/privacy",
    "tos_uri": "https://app.example/terms",
    "scope": "openid offline_access",
    "post_logout_redirect_uris": ["https://app.example/bye"],
    "id_token_signed_response_alg": "ES256",
    "userinfo_signed_response_alg": "RS256",
    "default_max_age": 3600,
    "require_pushed_authorization_requests": True,
    "require_signed_request_object": True,
    "subject_type": "public",
    "jwks": key_set(KEYS["ES256"]),
}


@pytest.fixture
async def open_server(client_with: ClientWith) -> httpx.AsyncClient:
    return await client_with(client_registration="open", client_registration_max_clients=100_000)


async def registered(client: httpx.AsyncClient, **said: Any) -> dict[str, Any]:
    answer = await client.post("/clients", json={"redirect_uris": [CALLBACK]} | said)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


def path_of(made: dict[str, Any]) -> str:
    return str(urlsplit(made["registration_client_uri"]).path)


def proof_of(made: dict[str, Any]) -> dict[str, str]:
    return bearer(made["registration_access_token"])


async def test_it_is_off_by_default_and_then_not_in_the_metadata(client: httpx.AsyncClient) -> None:
    assert (await client.post("/clients", json={"redirect_uris": [CALLBACK]})).status_code == 404
    for method in ("GET", "PUT", "DELETE"):
        assert (await client.request(method, "/clients/x", headers=bearer("x"))).status_code == 404
    assert "registration_endpoint" not in (await client.get("/.well-known/openid-configuration")).json()


async def test_the_metadata_name_it_when_it_is_on(open_server: httpx.AsyncClient) -> None:
    document = (await open_server.get("/.well-known/openid-configuration")).json()
    assert document["registration_endpoint"] == f"{document['issuer']}/clients"


async def test_what_is_registered_is_what_was_said_and_nothing_more(
    open_server: httpx.AsyncClient, app: FastAPI
) -> None:
    made = await registered(open_server, **ALL_OF_IT, logo_uri="https://app.example/logo", something_new=[1])
    assert {name: made[name] for name in ALL_OF_IT} == ALL_OF_IT
    assert made["client_secret_expires_at"] == 0
    assert "logo_uri" not in made
    async with app.state.services.db.read() as tx:
        client = await registration.find(tx, made["client_id"])
    assert client
    assert (client.is_trusted, client.may_introspect, client.audience) == (False, False, [])
    assert made["registration_access_token"] not in str(vars(client))


async def test_little_needs_to_be_said(open_server: httpx.AsyncClient) -> None:
    made = await registered(open_server)
    assert made["client_name"] == "app.example"
    assert (made["grant_types"], made["token_endpoint_auth_method"]) == (["authorization_code"], "client_secret_basic")
    assert made["scope"] == "openid profile email"


async def test_a_registered_client_signs_people_in(
    open_server: httpx.AsyncClient, app: FastAPI, new_user: NewUser
) -> None:
    made, user = await registered(open_server, token_endpoint_auth_method="none"), await new_user()
    assert "client_secret" not in made
    public = App(made["client_id"], None)
    async with application.client_of(app) as browser:
        await signed_in_browser(app.state.services, browser, user)
        await agreed(app.state.services, user, public, "openid profile email")
        challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        answer = await browser.get(
            "/authorize",
            params={"response_type": "code", "client_id": public.client_id, "redirect_uri": CALLBACK,
                    "scope": "openid", "code_challenge": challenge, "code_challenge_method": "S256"},
        )  # fmt: skip
    code = httpx.URL(answer.headers["location"]).params["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK,
            "client_id": public.client_id, "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}  # fmt: skip
    assert (await open_server.post("/token", data=form)).json()["id_token"]


KEY = KEYS["ES256"].as_dict(private=False)
SURROGATE_KEY, HUGE_KEY = {"keys": [KEY | {"x5c": ["\ud800"]}]}, {"keys": [KEY | {"extra": 10**30}]}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no redirect URI": ({"redirect_uris": []}, "invalid_redirect_uri"),
    "redirect URIs that are text": ({"redirect_uris": CALLBACK}, "invalid_redirect_uri"),
    "a redirect URI that is a number": ({"redirect_uris": [1]}, "invalid_redirect_uri"),
    "another machine by http": ({"redirect_uris": ["http://app.example/"]}, "invalid_redirect_uri"),
    "a wildcard": ({"redirect_uris": ["https://*.example/"]}, "invalid_redirect_uri"),
    "a script": ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
    "the password grant": ({"grant_types": ["password"]}, "invalid_client_metadata"),
    "acting for itself": ({"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
    "the implicit flow": ({"response_types": ["id_token"]}, "invalid_client_metadata"),
    "a scope of the operator's": ({"scope": "openid admin"}, "invalid_client_metadata"),
    "a scope that is none": ({"scope": 'a"b'}, "invalid_client_metadata"),
    "no scope": ({"scope": " "}, "invalid_client_metadata"),
    "another proof": ({"token_endpoint_auth_method": "tls_client_auth"}, "invalid_client_metadata"),
    "keys that it does not have": ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
    "keys at an address": ({"jwks_uri": "https://app.example/keys"}, "invalid_client_metadata"),
    "bad keys": ({"jwks": {"keys": []}}, "invalid_client_metadata"),
    "an address that we would call": ({"backchannel_logout_uri": "https://app.example/"}, "invalid_client_metadata"),
    "a statement": ({"software_statement": "a.b.c"}, "invalid_client_metadata"),
    "an algorithm": ({"id_token_signed_response_alg": "none"}, "invalid_client_metadata"),
    "encryption": ({"id_token_encrypted_response_alg": "RSA-OAEP"}, "invalid_client_metadata"),
    "pairwise subjects": ({"subject_type": "pairwise"}, "invalid_client_metadata"),
    "a name that is a number": ({"client_name": 1}, "invalid_client_metadata"),
    "a name with control characters": ({"client_name": "a\u0000b"}, "invalid_client_metadata"),
    "a surrogate": ({"client_name": "\ud800"}, "invalid_client_metadata"),
    "half a character in a key": ({"jwks": SURROGATE_KEY}, "invalid_client_metadata"),
    "a huge number in a key": ({"jwks": HUGE_KEY}, "invalid_client_metadata"),
    "a page that is a script": ({"client_uri": "javascript:alert(1)"}, "invalid_client_metadata"),
    "a negative age": ({"default_max_age": -1}, "invalid_client_metadata"),
    "an age that is text": ({"default_max_age": "1"}, "invalid_client_metadata"),
    "a huge age": ({"default_max_age": 10**30}, "invalid_client_metadata"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_metadata_are_refused(open_server: httpx.AsyncClient, case: str) -> None:
    said, error = BAD[case]
    body = json.dumps({"redirect_uris": [CALLBACK]} | said)
    answer = await open_server.post("/clients", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert answer.json()["error_description"]


@pytest.mark.parametrize("body", [b"", b"[]", b"x", b'{"a": 1, "a": 2}', b"\xff", b'{"a": NaN}', b"[" * 10_000])
async def test_what_is_no_json_object_is_refused(open_server: httpx.AsyncClient, body: bytes) -> None:
    answer = await open_server.post("/clients", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
    form = await open_server.post("/clients", data={"redirect_uris": CALLBACK})
    assert (form.status_code, form.json()["error"]) == (400, "invalid_client_metadata")


async def test_too_large_a_body_is_not_read(open_server: httpx.AsyncClient) -> None:
    assert (await open_server.post("/clients", json={"client_name": "x" * 70_000})).status_code == 413


async def test_an_initial_access_token_may_be_asked_for(client_with: ClientWith) -> None:
    client = await client_with(client_registration="initial_access_token", client_registration_token=TOKEN)
    document = {"redirect_uris": [CALLBACK]}
    for wrong in ({}, bearer("x"), bearer(TOKEN.upper()), {"Authorization": "Basic eDp4"}):
        answer = await client.post("/clients", json=document, headers=wrong)
        assert answer.status_code in {400, 401}
        assert answer.headers["www-authenticate"].startswith("Bearer")
    spaceless = TOKEN.replace(" ", "-")
    client = await client_with(client_registration="initial_access_token", client_registration_token=spaceless)
    assert (await client.post("/clients", json=document, headers=bearer(spaceless))).status_code == 201


def test_the_initial_access_token_must_be_long() -> None:
    with pytest.raises(ValueError, match="CLIENT_REGISTRATION_TOKEN of 32"):
        Settings(_env_file=None, client_registration="initial_access_token", client_registration_token="short")


async def test_registrations_are_throttled_by_address(client_with: ClientWith) -> None:
    client = await client_with(
        client_registration="open", throttle_enabled=True, throttle_registrations_per_minute=2,
        client_registration_max_clients=100_000, address="198.51.100.77",
    )  # fmt: skip
    statuses = [(await client.post("/clients", json={})).status_code for _ in range(3)]
    assert statuses == [400, 400, 429]


async def test_there_are_only_so_many(client_with: ClientWith, open_server: httpx.AsyncClient) -> None:
    await registered(open_server)
    full = await client_with(client_registration="open", client_registration_max_clients=1)
    answer = await full.post("/clients", json={"redirect_uris": [CALLBACK]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3600")


async def test_a_client_reads_its_registration_but_not_its_secret(open_server: httpx.AsyncClient) -> None:
    made = await registered(open_server, **ALL_OF_IT)
    answer = await open_server.get(path_of(made), headers=proof_of(made))
    expected = {name: value for name, value in made.items() if not name.startswith("client_secret")}
    assert (answer.status_code, answer.json()) == (200, expected)


async def test_a_client_replaces_its_registration(open_server: httpx.AsyncClient) -> None:
    made = await registered(open_server, client_name="Before", client_uri="https://app.example/")
    new = {"client_id": made["client_id"], "client_secret": made["client_secret"], "client_name": "After",
           "redirect_uris": ["https://app.example/other"]}  # fmt: skip
    answer = await open_server.put(path_of(made), json=new, headers=proof_of(made))
    assert answer.status_code == 200, answer.text
    assert (answer.json()["client_name"], answer.json()["redirect_uris"]) == ("After", ["https://app.example/other"])
    assert "client_uri" not in answer.json()  # left out: gone
    app = App(made["client_id"], made["client_secret"])
    assert (await open_server.post("/revoke", data={"token": "x"}, auth=basic(app))).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": "another"},
        {"client_id": None},
        {"client_secret": "not it"},
        {"client_secret": 5},
        {"registration_access_token": "x"},
        {"registration_client_uri": "https://app.example"},
        {"client_secret_expires_at": 0},
        {"token_endpoint_auth_method": "none"},
        {"grant_types": ["password"]},
        {"backchannel_logout_uri": "https://10.0.0.1/"},
    ],
)
async def test_a_bad_replacement_changes_nothing(open_server: httpx.AsyncClient, change: dict[str, Any]) -> None:
    made = await registered(open_server)
    before = (await open_server.get(path_of(made), headers=proof_of(made))).json()
    document = {"client_id": made["client_id"], "redirect_uris": ["https://app.example/other"]} | change
    answer = await open_server.put(path_of(made), json=document, headers=proof_of(made))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
    assert (await open_server.get(path_of(made), headers=proof_of(made))).json() == before


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_its_own_token_opens_a_registration(
    open_server: httpx.AsyncClient, new_client: Callable[..., Awaitable[App]], method: str
) -> None:
    made, other, by_operator = await registered(open_server), await registered(open_server), await new_client()
    body: dict[str, Any] = {"json": {"client_id": made["client_id"], "redirect_uris": [CALLBACK]}}
    more = body if method == "PUT" else {}
    wrong = [proof_of(other), bearer("x"), bearer(made["client_secret"]), {}]
    for headers in wrong:
        answer = await open_server.request(method, path_of(made), headers=headers, **more)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    for path in ("/clients/nobody", "/clients/%00", f"/clients/{by_operator.client_id}"):
        assert (await open_server.request(method, path, headers=proof_of(made), **more)).status_code == 401
    assert (await open_server.get(path_of(made), headers=proof_of(made))).status_code == 200


async def test_a_client_deletes_itself(open_server: httpx.AsyncClient) -> None:
    made = await registered(open_server)
    assert (await open_server.delete(path_of(made), headers=proof_of(made))).status_code == 204
    assert (await open_server.get(path_of(made), headers=proof_of(made))).status_code == 401
    app = App(made["client_id"], made["client_secret"])
    assert (await open_server.post("/revoke", data={"token": "x"}, auth=basic(app))).status_code == 401
