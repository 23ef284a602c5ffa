"""The password flow, refresh, introspection and revocation with the OAuth libraries that Python programs use."""

import json
import warnings
from typing import Any, Literal
from urllib.parse import urlencode
from urllib.request import HTTPBasicAuthHandler, HTTPPasswordMgrWithDefaultRealm, build_opener

import httpx
import pytest
from oauthlib.oauth2 import InvalidGrantError, LegacyApplicationClient
from requests_oauthlib import OAuth2Session

from tests.application import Program
from tests.assertions import KEYS, key_set
from tests.factories import PASSWORD, App, NewClient, bearer
from tests.interop.conftest import Actors, introspect

with warnings.catch_warnings(record=True):  # Authlib would like httpx2, which is another package
    from authlib.integrations.base_client.errors import OAuthError
    from authlib.integrations.httpx_client import AsyncOAuth2Client
    from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
    from authlib.oauth2.rfc7523 import ClientSecretJWT, PrivateKeyJWT

Method = Literal["client_secret_basic", "client_secret_post", "none"]

pytestmark = pytest.mark.slow


@pytest.fixture(params=["client_secret_basic", "client_secret_post", "none"])
def method(request: pytest.FixtureRequest) -> Method:
    """How the client proves itself."""
    chosen: Method = request.param
    return chosen


@pytest.fixture
def ours(actors: Actors, method: Method) -> App:
    """A client that proves itself in that way."""
    return actors.public if method == "none" else actors.confidential


def authlib_settings(server: Program, ours: App, method: Method) -> dict[str, Any]:
    return {
        "client_id": ours.client_id,
        "client_secret": ours.secret,
        "token_endpoint_auth_method": method,
        "revocation_endpoint_auth_method": method,
        "token_endpoint": f"{server.url}/token",
    }


async def test_authlib_with_httpx(
    server: Program, http: httpx.AsyncClient, actors: Actors, ours: App, method: Method
) -> None:
    renewed: list[Any] = []

    async def renew(token: Any, **_: Any) -> None:
        renewed.append(token)

    settings = authlib_settings(server, ours, method)
    async with AsyncOAuth2Client(**settings, scope="openid profile", update_token=renew) as client:
        first = await client.fetch_token(grant_type="password", username=actors.user.email, password=PASSWORD)
        assert first["scope"] == "openid profile"
        assert (await client.get(f"{server.url}/userinfo")).json()["preferred_username"] == actors.user.username

        client.token["expires_at"] = 1  # and so it renews the token by itself
        assert (await client.get(f"{server.url}/userinfo")).status_code == 200
        [second] = renewed
        assert second["refresh_token"] != first["refresh_token"]

        third = dict(await client.refresh_token())
        if method != "none":
            for token, hint in ((third["access_token"], None), (third["refresh_token"], "refresh_token")):
                answer = await client.introspect_token(f"{server.url}/introspect", token=token, token_type_hint=hint)
                assert answer.json()["active"] is True
        answer = await client.revoke_token(
            f"{server.url}/revoke", token=third["refresh_token"], token_type_hint="refresh_token"
        )
        assert (answer.status_code, answer.json()) == (200, {})
        assert await introspect(http, actors.resource_server, third["access_token"]) == {"active": False}
        with pytest.raises(OAuthError, match="invalid_grant"):
            await client.fetch_token(grant_type="password", username=actors.user.username, password="not at all this")


def test_authlib_with_requests(server: Program, actors: Actors, ours: App, method: Method) -> None:
    with AuthlibSession(**authlib_settings(server, ours, method)) as client:
        client.fetch_token(grant_type="password", username=actors.user.username, password=PASSWORD)
        assert client.get(f"{server.url}/users/me").json()["username"] == actors.user.username
        renewed = client.refresh_token()
        if method != "none":
            answer = client.introspect_token(f"{server.url}/introspect", token=renewed["access_token"])
            assert answer.json()["username"] == actors.user.username
        client.revoke_token(f"{server.url}/revoke", token=renewed["access_token"], token_type_hint="access_token")
        assert client.get(f"{server.url}/users/me").status_code == 401
        with pytest.raises(OAuthError, match="invalid_grant"):
            client.fetch_token(grant_type="password", username=actors.user.username, password="not at all this")


@pytest.mark.parametrize("alg", ["RS256", "ES256", "HS256"])
async def test_authlib_signs_assertions(server: Program, new_client: NewClient, alg: str) -> None:
    how: dict[str, Any] = {"grants": ["client_credentials"], "scopes": ["read"]}
    secret: Any
    if alg == "HS256":
        app = await new_client(auth_method="client_secret_jwt", **how)
        proof, secret = ClientSecretJWT(server.url), app.secret
    else:
        app = await new_client(auth_method="private_key_jwt", jwks=key_set(KEYS[alg]), **how)
        proof, secret = PrivateKeyJWT(server.url, alg=alg), KEYS[alg]
    endpoint = f"{server.url}/token"
    with AuthlibSession(app.client_id, secret, token_endpoint_auth_method=proof.name,
                        revocation_endpoint_auth_method=proof.name) as session:  # fmt: skip
        session.register_client_auth_method(proof)
        token = session.fetch_token(endpoint, grant_type="client_credentials")["access_token"]
        known = session.introspect_token(f"{server.url}/introspect", token=token).json()
        assert (known["active"], known["client_id"]) == (True, app.client_id)
        assert session.revoke_token(f"{server.url}/revoke", token=token).status_code == 200
    async with AsyncOAuth2Client(app.client_id, secret, token_endpoint_auth_method=proof.name) as client:
        client.register_client_auth_method(proof)
        assert (await client.fetch_token(endpoint, grant_type="client_credentials"))["scope"] == "read"


def test_urllib_waits_to_be_asked_for_its_credentials(server: Program, actors: Actors) -> None:
    passwords = HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, server.url, actors.confidential.client_id, actors.confidential.secret or "")
    form = {"grant_type": "password", "username": actors.user.username, "password": PASSWORD}
    opener = build_opener(HTTPBasicAuthHandler(passwords))
    with opener.open(f"{server.url}/token", urlencode(form).encode()) as answer:
        assert json.load(answer)["token_type"] == "Bearer"


def test_requests_oauthlib(
    server: Program, actors: Actors, ours: App, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    scope: list[object] = ["openid", "email"]
    proof: dict[str, Any] = {"auth": (ours.client_id, ours.secret)}
    if method != "client_secret_basic":
        proof = {"include_client_id": True} | ({"client_secret": ours.secret} if ours.secret else {})
    ask = {"username": actors.user.username, **proof}
    with OAuth2Session(client=LegacyApplicationClient(ours.client_id, scope=scope)) as session:
        first = session.fetch_token(f"{server.url}/token", password=PASSWORD, **ask)
        assert first["scope"] == scope
        with pytest.raises(InvalidGrantError):
            session.fetch_token(f"{server.url}/token", password="not at all this", **ask)

    saved: list[Any] = []
    stale = {**first, "expires_in": -30, "expires_at": 1}
    again = {"client_id": ours.client_id} | ({"client_secret": ours.secret} if ours.secret else {})
    renewing = OAuth2Session(
        ours.client_id, token=stale, scope=scope, token_updater=saved.append,
        auto_refresh_url=f"{server.url}/token", auto_refresh_kwargs=again,
    )  # fmt: skip
    with renewing as session:
        assert session.get(f"{server.url}/userinfo").json()["email"] == actors.user.email
    [second] = saved
    assert second["refresh_token"] != first["refresh_token"]
    assert httpx.get(f"{server.url}/users/me", headers=bearer(second["access_token"])).status_code == 200
