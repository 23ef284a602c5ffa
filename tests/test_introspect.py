"""POST /introspect (RFC 7662)."""

import base64
import hmac
import json
from datetime import timedelta

import httpx
import pytest
from freezegun import freeze_time
from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import update

from authserver import clock
from authserver.keys.models import SigningKey
from authserver.services import Services
from tests.application import ISSUER
from tests.factories import App, NewClient, NewUser, basic, claims_of, sign_in
from tests.test_token_form import assert_oauth_error

INACTIVE = b'{"active":false}'


@pytest.fixture
async def caller(new_client: NewClient) -> App:
    return await new_client()


@pytest.fixture
async def tokens(client: httpx.AsyncClient, caller: App, new_user: NewUser) -> dict[str, str]:
    return dict((await sign_in(client, caller, await new_user())).json())


async def introspect(client: httpx.AsyncClient, caller: App, token: str, **form: str) -> httpx.Response:
    return await client.post("/introspect", data={"token": token} | form, auth=basic(caller))


async def test_an_active_token_tells_all_that_a_resource_server_needs(
    client: httpx.AsyncClient, caller: App, new_user: NewUser
) -> None:
    user = await new_user()
    token = (await sign_in(client, caller, user, scope="openid email")).json()["access_token"]
    response = await introspect(client, caller, token)
    claims = claims_of(token)
    assert response.json() == {
        "active": True,
        "iss": ISSUER,
        "sub": str(user.id),
        "aud": [ISSUER],
        "exp": claims["exp"],
        "iat": claims["iat"],
        "nbf": claims["nbf"],
        "jti": claims["jti"],
        "client_id": caller.client_id,
        "scope": "openid email",
        "username": user.username,
        "token_type": "Bearer",
        "sid": claims["sid"],
    }
    assert response.headers["cache-control"] == "no-store"


async def test_who_may_see_a_token(client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser) -> None:
    audience, privileged, stranger = await new_client(), await new_client(may_introspect=True), await new_client()
    caller = await new_client(audience=[audience.client_id])
    token = (await sign_in(client, caller, await new_user())).json()["access_token"]
    for seer in (caller, audience, privileged):
        assert (await introspect(client, seer, token)).json()["active"] is True
    assert (await introspect(client, stranger, token)).content == INACTIVE


async def test_a_refresh_token_is_seen_by_its_own_client_only(
    client: httpx.AsyncClient, caller: App, new_client: NewClient, tokens: dict[str, str]
) -> None:
    """A resource server that sees one as active lets it in as a bearer token."""
    own = (await introspect(client, caller, tokens["refresh_token"])).json()
    assert own["active"] is True
    assert own["client_id"] == caller.client_id
    assert own["token_type"] != "Bearer"
    privileged = await new_client(may_introspect=True)
    assert (await introspect(client, privileged, tokens["refresh_token"])).content == INACTIVE


async def test_a_spent_refresh_token_is_inactive(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    data = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    successor = (await client.post("/token", data=data, auth=basic(caller))).json()["refresh_token"]
    assert (await introspect(client, caller, tokens["refresh_token"])).content == INACTIVE
    assert (await introspect(client, caller, successor)).json()["active"] is True


async def test_an_expired_token_is_inactive(client: httpx.AsyncClient, caller: App, tokens: dict[str, str]) -> None:
    with freeze_time(clock.now() + timedelta(seconds=601), tick=True, real_asyncio=True):
        assert (await introspect(client, caller, tokens["access_token"])).content == INACTIVE


async def test_a_public_client_cannot_introspect(client: httpx.AsyncClient, new_client: NewClient) -> None:
    caller = await new_client(is_public=True)
    response = await client.post("/introspect", data={"token": "x", "client_id": caller.client_id})
    assert_oauth_error(response, 401, "invalid_client")


async def test_a_missing_token_is_an_invalid_request(client: httpx.AsyncClient, caller: App) -> None:
    assert_oauth_error(await introspect(client, caller, ""), 400, "invalid_request")


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "saml2", "ü"])
async def test_a_hint_changes_nothing(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str], hint: str
) -> None:
    for kind in ("access_token", "refresh_token"):
        assert (await introspect(client, caller, tokens[kind], token_type_hint=hint)).json()["active"] is True


RUBBISH = {
    "a word": "rubbish",
    "dots": "..",
    "three dots": "a.b.c.d",
    "no JSON": "AAAA.BBBB.CCCC",
    "a header that is a list": base64.urlsafe_b64encode(b"[]").decode() + ".e30.x",
    "a deep header": base64.urlsafe_b64encode(b"[" * 3000).decode().rstrip("=") + ".e30.x",
    "not ASCII": "ü.ü.ü",
    "15,000 characters": "a" * 15_000,
    "a refresh token's prefix": "authserver_rt_",
    "a client secret's prefix": "authserver_cs_x",
}


@pytest.mark.parametrize("case", RUBBISH)
async def test_rubbish_is_inactive(client: httpx.AsyncClient, caller: App, case: str) -> None:
    assert (await introspect(client, caller, RUBBISH[case])).content == INACTIVE


def _segment(document: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def forgeries(token: str, services: Services) -> dict[str, str]:
    """Make what an attacker could out of a good token, and what only a mistake of ours could sign."""
    header, payload, signature = token.split(".")
    claims = claims_of(token)
    own, stranger = services.keyring.signing_key(), ECKey.generate_key("P-256")
    private = own.private
    assert isinstance(private, ECKey)
    base = {"alg": "ES256", "typ": "at+jwt", "kid": own.kid}

    def signed(key: ECKey, head: dict[str, object] | None = None, **changes: object) -> str:
        return jwt.encode(base | (head or {}), claims | changes, key, algorithms=["ES256"])

    hs256 = f"{_segment({**base, 'alg': 'HS256'})}.{payload}"
    with_public_key = hmac.digest(own.public.as_pem(private=False), hs256.encode(), "sha256")
    return {
        "alg none": f"{_segment({**base, 'alg': 'none'})}.{payload}.",
        "HS256 with the public key": f"{hs256}.{base64.urlsafe_b64encode(with_public_key).decode().rstrip('=')}",
        "another's key under our kid": signed(stranger),
        "a key in the header": signed(stranger, {"jwk": stranger.as_dict(private=False), "kid": "mine"}),
        "an unknown kid": signed(stranger, {"kid": stranger.thumbprint()}),
        "another typ": signed(private, {"typ": "JWT"}),
        "another issuer": signed(private, iss="https://evil.example"),
        "no jti": signed(private, jti=None),
        "exp as text": signed(private, exp="tomorrow"),
        "sid as a number": signed(private, sid=7),
        "a changed payload": f"{header}.{_segment(claims | {'sub': '0'})}.{signature}",
        "half a signature": f"{header}.{payload}.{signature[:40]}",
        "an empty signature": f"{header}.{payload}.",
    }


async def test_a_forged_token_is_inactive(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str], services: Services
) -> None:
    for case, forged in forgeries(tokens["access_token"], services).items():
        assert (await introspect(client, caller, forged)).content == INACTIVE, case
    assert (await introspect(client, caller, tokens["access_token"])).json()["active"] is True


async def test_the_twin_of_a_signature_is_revoked_with_the_token(
    client: httpx.AsyncClient, caller: App, tokens: dict[str, str]
) -> None:
    """ES256 has a second valid signature (r, n − s) for each: a list of token strings would miss it."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    header, payload, signature = tokens["access_token"].split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    s = order - int.from_bytes(raw[32:])
    twin = base64.urlsafe_b64encode(raw[:32] + s.to_bytes(32)).decode().rstrip("=")
    twin_token = f"{header}.{payload}.{twin}"
    await client.post("/revoke", data={"token": tokens["access_token"]}, auth=basic(caller))
    assert (await introspect(client, caller, twin_token)).content == INACTIVE


async def test_a_token_stays_good_while_keys_rotate(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser, services: Services
) -> None:
    caller, user = await new_client(), await new_user()
    token = (await sign_in(client, caller, user)).json()["access_token"]
    successor = await services.keyring.rotate()
    published = {key["kid"] for key in (await client.get("/.well-known/jwks.json")).json()["keys"]}
    assert successor in published
    assert services.keyring.signing_key().kid != successor  # announced, not yet used
    assert (await introspect(client, caller, token)).json()["active"] is True
    async with services.db.write() as tx:  # the announcement is over by the database's clock, which nobody can move
        await tx.execute(update(SigningKey).where(SigningKey.kid == successor).values(signs_from=clock.now()))
    await services.keyring.load()
    assert services.keyring.signing_key().kid == successor
    assert (await introspect(client, caller, token)).json()["active"] is True
