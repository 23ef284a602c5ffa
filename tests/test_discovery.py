"""The metadata and the keys: every line of them is so."""

import httpx
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from joserfc.jwk import KeySet

from tests.application import ISSUER
from tests.factories import NewClient, basic

PUBLIC = {"ES256": {"crv", "x", "y"}, "RS256": {"n", "e"}, "EdDSA": {"crv", "x"}}
DOCUMENTS = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]


@pytest.mark.parametrize("path", DOCUMENTS)
async def test_the_metadata_is_valid_and_its_addresses_answer(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert document["issuer"] == ISSUER
    metadata = AuthorizationServerMetadata(document)
    for check in ("issuer", "token_endpoint", "jwks_uri", "revocation_endpoint", "introspection_endpoint"):
        getattr(metadata, f"validate_{check}")()
    for name, value in document.items():
        if name.endswith(("_endpoint", "_uri")):
            method = "GET" if name in ("jwks_uri", "userinfo_endpoint") else "POST"
            assert (await client.request(method, value)).status_code not in (404, 405), name


async def test_every_listed_grant_is_known_and_no_other(client: httpx.AsyncClient, new_client: NewClient) -> None:
    document = (await client.get(DOCUMENTS[0])).json()
    app = await new_client(grants=["password"])
    for grant in [*document["grant_types_supported"], "authorization_code", "client_credentials"]:
        error = (await client.post("/token", data={"grant_type": grant}, auth=basic(app))).json()["error"]
        assert (error == "unsupported_grant_type") is (grant not in document["grant_types_supported"])


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
@pytest.mark.parametrize("endpoint", ["token", "introspection", "revocation"])
async def test_every_listed_way_of_client_authentication_works_and_no_other(
    client: httpx.AsyncClient, new_client: NewClient, method: str, endpoint: str
) -> None:
    document = (await client.get(DOCUMENTS[0])).json()
    app = await new_client(is_public=method == "none")
    data = {"token": "x", "grant_type": "refresh_token", "refresh_token": "x"}
    if method != "client_secret_basic":
        data["client_id"] = app.client_id
    if method == "client_secret_post":
        data["client_secret"] = app.secret or ""
    auth = basic(app) if method == "client_secret_basic" else httpx.USE_CLIENT_DEFAULT
    response = await client.post(document[f"{endpoint}_endpoint"], data=data, auth=auth)
    listed = method in document[f"{endpoint}_endpoint_auth_methods_supported"]
    assert (response.status_code != 401) is listed


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
