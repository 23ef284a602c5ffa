"""The documents under /.well-known: the keys in them, and how long a copy may be kept."""

import httpx
import pytest
from joserfc.jwk import KeySet

from tests.test_discovery import DOCUMENTS, PUBLIC


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
