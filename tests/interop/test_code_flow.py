"""The code flow with the OAuth libraries that Python programs use; a person signs in on our pages."""

import json
import secrets
import warnings
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from oauthlib.oauth2 import MismatchingStateError
from requests_oauthlib import OAuth2Session

from tests.application import Program
from tests.assertions import KEYS, key_set
from tests.factories import App, NewClient
from tests.interop.conftest import Actors
from tests.interop.person import Browser

with warnings.catch_warnings(record=True):  # Authlib would like httpx2, which is another package
    from authlib.integrations.httpx_client import AsyncOAuth2Client
    from authlib.oauth2.rfc7523 import PrivateKeyJWT
    from authlib.oidc.core import CodeIDToken

CALLBACK = "https://app.example/callback"
WAYS: dict[str, dict[str, Any]] = {
    "client_secret_basic": {},
    "client_secret_post": {},
    "none": {"is_public": True},
    "private_key_jwt": {"auth_method": "private_key_jwt", "jwks": key_set(KEYS["ES256"])},
}
every_way = pytest.mark.parametrize("way", WAYS)

pytestmark = pytest.mark.slow


async def registered(new_client: NewClient, way: str) -> App:
    return await new_client(grants=["authorization_code", "refresh_token"], redirect_uris=[CALLBACK], **WAYS[way])


async def verified(http: httpx.AsyncClient, server: Program, token: str, **expected: Any) -> dict[str, Any]:
    """Read an ID token as a relying party does."""
    keys = KeySet.import_key_set((await http.get("/.well-known/jwks.json")).json())
    read = jwt.decode(token, keys, algorithms=["RS256"])
    claims = CodeIDToken(read.claims, read.header, {"iss": {"value": server.url}}, expected)
    claims.validate()
    return dict(claims)


@every_way
async def test_authlib(
    server: Program, http: httpx.AsyncClient, actors: Actors, new_client: NewClient, way: str
) -> None:
    app, nonce, verifier = await registered(new_client, way), secrets.token_urlsafe(), secrets.token_urlsafe(48)
    proof = KEYS["ES256"] if way == "private_key_jwt" else app.secret
    async with AsyncOAuth2Client(
        app.client_id, proof, token_endpoint_auth_method=way, scope="openid email", redirect_uri=CALLBACK,
        code_challenge_method="S256", token_endpoint=f"{server.url}/token",
    ) as client:  # fmt: skip
        client.register_client_auth_method(PrivateKeyJWT(server.url, alg="ES256"))
        address, state = client.create_authorization_url(f"{server.url}/authorize", nonce=nonce, code_verifier=verifier)
        with Browser(actors.user.username) as browser:
            answer = browser.goes(address, CALLBACK)
        tokens = await client.fetch_token(authorization_response=answer, state=state, code_verifier=verifier)
        claims = await verified(
            http, server, tokens["id_token"],
            client_id=app.client_id, nonce=nonce, access_token=tokens["access_token"],
        )  # fmt: skip
        assert claims["sub"] == str(actors.user.id)
        assert (await client.get(f"{server.url}/userinfo")).json()["email"] == actors.user.email
        renewed = await client.refresh_token()
        assert renewed["access_token"] != tokens["access_token"]


@pytest.mark.parametrize("way", ["client_secret_basic", "none"])
async def test_requests_oauthlib(
    server: Program, actors: Actors, new_client: NewClient, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    app = await registered(new_client, way)
    proof: dict[str, Any] = {"include_client_id": True} if app.secret is None else {"client_secret": app.secret}
    with OAuth2Session(app.client_id, redirect_uri=CALLBACK, scope=["openid", "profile"], pkce="S256") as session:
        address, state = session.authorization_url(f"{server.url}/authorize")
        with Browser(actors.user.username) as browser:
            answer = browser.goes(address, CALLBACK)
        with pytest.raises(MismatchingStateError):
            session.fetch_token(f"{server.url}/token", authorization_response=answer.replace(state, "x"), **proof)
        tokens = session.fetch_token(f"{server.url}/token", authorization_response=answer, **proof)
        assert tokens["id_token"]
        assert session.get(f"{server.url}/userinfo").json()["preferred_username"] == actors.user.username


async def test_authlib_pushes_its_request(
    server: Program, http: httpx.AsyncClient, actors: Actors, new_client: NewClient
) -> None:
    """Authlib has no method for RFC 9126; its session posts the form, with the client's proof."""
    app = await new_client(grants=["authorization_code"], redirect_uris=[CALLBACK], require_pushed_requests=True)
    async with AsyncOAuth2Client(
        app.client_id, app.secret, redirect_uri=CALLBACK, scope="openid", code_challenge_method="S256",
    ) as client:  # fmt: skip
        verifier = secrets.token_urlsafe(48)
        address, state = client.create_authorization_url(f"{server.url}/authorize", code_verifier=verifier)
        form = dict(httpx.URL(address).params)
        pushed = await http.post("/par", data=form, auth=httpx.BasicAuth(app.client_id, app.secret or ""))
        assert pushed.status_code == 201, pushed.text
        request_uri = json.loads(pushed.text)["request_uri"]
        query = httpx.QueryParams({"client_id": app.client_id, "request_uri": request_uri})
        with Browser(actors.user.username) as browser:
            answer = browser.goes(f"{server.url}/authorize?{query}", CALLBACK)
        tokens = await client.fetch_token(
            f"{server.url}/token", authorization_response=answer, state=state, code_verifier=verifier
        )
        assert tokens["id_token"]
