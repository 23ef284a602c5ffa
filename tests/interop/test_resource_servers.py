"""APIs that let people in with our access tokens: by asking us, or by our public keys alone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from authlib.oauth2.rfc6750 import InvalidTokenError
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from joserfc import jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import KeySet

from authserver.clients import registration
from authserver.services import Services
from tests.application import Program
from tests.factories import App, NewClient, basic, bearer
from tests.interop.conftest import Actors, introspect, tokens

pytestmark = pytest.mark.slow


def asking_api(authserver: httpx.AsyncClient, ourselves: App) -> FastAPI:
    """An API that asks about each token (RFC 7662), as docs/clients.md shows it."""
    api = FastAPI()
    password = OAuth2PasswordBearer(f"{authserver.base_url}token")

    async def caller(token: Annotated[str, Depends(password)]) -> dict[str, Any]:
        answer = await authserver.post("/introspect", data={"token": token}, auth=basic(ourselves))
        answer.raise_for_status()
        about: dict[str, Any] = answer.json()
        if not about["active"] or about["token_type"] != "Bearer":
            raise HTTPException(401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return about

    @api.get("/hello")
    async def hello(about: Annotated[dict[str, Any], Depends(caller)]) -> str:
        return str(about["username"])

    return api


@pytest.fixture
async def api(http: httpx.AsyncClient, actors: Actors) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(asking_api(http, actors.resource_server))
    async with httpx.AsyncClient(transport=transport, base_url="https://api.example.com") as client:
        yield client


async def test_fastapi_that_introspects(api: httpx.AsyncClient, http: httpx.AsyncClient, actors: Actors) -> None:
    issued = await tokens(http, actors)
    assert (await api.get("/hello")).status_code == 401
    assert (await api.get("/hello", headers=bearer("not.a.token"))).status_code == 401
    assert (await api.get("/hello", headers=bearer(issued["refresh_token"]))).status_code == 401
    answer = await api.get("/hello", headers=bearer(issued["access_token"]))
    assert (answer.status_code, answer.json()) == (200, actors.user.username)
    await http.post("/revoke", data={"token": issued["refresh_token"]}, auth=basic(actors.confidential))
    assert (await api.get("/hello", headers=bearer(issued["access_token"]))).status_code == 401


async def test_who_may_ask(http: httpx.AsyncClient, actors: Actors, new_client: NewClient) -> None:
    """A resource server sees the tokens made for it, and no refresh token; others see nothing."""
    api, stranger = await new_client(grants=()), await new_client(grants=())
    app = await new_client(audience=[api.client_id])
    issued = await tokens(http, Actors(actors.user, app, actors.public, api))
    seen = await introspect(http, api, issued["access_token"])
    assert api.client_id in seen["aud"]
    assert await introspect(http, api, issued["refresh_token"]) == {"active": False}
    assert await introspect(http, stranger, issued["access_token"]) == {"active": False}


async def keys(http: httpx.AsyncClient) -> KeySet:
    """What a resource server keeps: the keys at the address that the metadata names."""
    metadata = (await http.get("/.well-known/oauth-authorization-server")).json()
    return KeySet.import_key_set((await http.get(metadata["jwks_uri"])).json())


async def test_joserfc_offline(server: Program, http: httpx.AsyncClient, actors: Actors) -> None:
    token = (await tokens(http, actors))["access_token"]
    verified = jwt.decode(token, await keys(http), algorithms=["ES256"])
    assert verified.header["typ"] == "at+jwt"
    rules = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": server.url}, aud={"essential": True, "value": server.url},
        exp={"essential": True}, sub={"essential": True, "value": str(actors.user.id)},
    )  # fmt: skip
    rules.validate(verified.claims)
    head, payload, signature = token.split(".")
    for forged in (f"{head}.{payload}.{'A' * len(signature)}", f"{head}.{payload}.", f"eyJhbGciOiJub25lIn0.{payload}."):
        with pytest.raises((JoseError, BadSignatureError, ValueError)):
            jwt.decode(forged, await keys(http), algorithms=["ES256"])


class _Offline(JWTBearerTokenValidator):  # type: ignore[misc]
    """Authlib's validator of RFC 9068 access tokens."""

    def __init__(self, issuer: str, audience: str, keys: KeySet) -> None:
        super().__init__(issuer, audience)
        self._keys = keys

    def get_jwks(self) -> KeySet:
        return self._keys


async def test_authlib_offline(server: Program, http: httpx.AsyncClient, actors: Actors) -> None:
    token = (await tokens(http, actors, scope="openid email"))["access_token"]
    published = await keys(http)
    validator = _Offline(server.url, server.url, published)
    claims = validator.authenticate_token(token)
    validator.validate_token(claims, ["openid"], None)
    assert claims["client_id"] == actors.confidential.client_id
    elsewhere = _Offline(server.url, "https://another.example", published)
    with pytest.raises(InvalidTokenError):
        elsewhere.validate_token(elsewhere.authenticate_token(token), [], None)


async def test_keys_may_be_kept(http: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(http.get("/.well-known/jwks.json") for _ in range(5)))
    assert len({answer.text for answer in answers}) == 1
    assert "max-age" in answers[0].headers["cache-control"]
    assert all("d" not in key for key in answers[0].json()["keys"])


async def test_a_new_secret_counts_at_once(http: httpx.AsyncClient, new_client: NewClient, services: Services) -> None:
    """Also where a client may be known as it was a moment ago."""
    app = await new_client()
    assert (await http.post("/introspect", data={"token": "x"}, auth=basic(app))).status_code == 200
    async with services.db.write() as tx:
        client = await registration.find(tx, app.client_id)
        assert client
        new = App(app.client_id, await registration.rotate_secret(tx, services.clients, client))
    assert (await http.post("/introspect", data={"token": "x"}, auth=basic(new))).status_code == 200
