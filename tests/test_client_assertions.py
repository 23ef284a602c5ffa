"""Clients that prove themselves by a signed assertion: private_key_jwt and client_secret_jwt (RFC 7523, OIDC Core §9).

Whatever is wrong with an assertion, the answer is the same; what is good works once.
"""

import asyncio
import base64
import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc.jwk import ECKey, OctKey
from sqlalchemy import func, select

from authserver import opaque
from authserver.clients import registration
from authserver.clients.models import UsedAssertion
from authserver.db import Database
from authserver.errors import StoreUnavailable
from authserver.services import Services
from authserver.statement import Statement
from tests.application import ISSUER
from tests.assertions import KEYS, TYPE, Signer, key_set, new_secret_signer, new_signer
from tests.factories import NewClient, NewUser, basic, sign_in
from tests.test_token_form import ENDPOINTS, assert_oauth_error

ALGORITHMS = ["ES256", "ES384", "RS256", "PS256", "EdDSA", "Ed25519"]


async def prove(client: httpx.AsyncClient, signer: Signer, assertion: str | None = None, **more: str) -> httpx.Response:
    """Ask /revoke for nothing: it is 200 for everybody who is who they say."""
    return await client.post("/revoke", data={"token": "x"} | signer.form(assertion) | more)


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_client_proves_itself_by_its_key_at_every_endpoint(
    client: httpx.AsyncClient, new_client: NewClient, endpoint: str, alg: str
) -> None:
    signer = await new_signer(new_client, alg, grants=["client_credentials"], scopes=["read"])
    form = {"token": "x", "grant_type": "client_credentials"} | signer.form()
    answer = await client.post(endpoint, data=form)
    assert answer.status_code == 200, answer.text


async def test_a_client_proves_itself_by_signing_with_its_secret(
    client: httpx.AsyncClient, new_client: NewClient
) -> None:
    _, signer = await new_secret_signer(new_client)
    assert (await prove(client, signer)).status_code == 200


async def test_the_metadata_name_what_works_and_nothing_else(client: httpx.AsyncClient, new_client: NewClient) -> None:
    document = (await client.get("/.well-known/oauth-authorization-server")).json()
    for endpoint in ("token", "introspection", "revocation"):
        listed = document[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
        assert set(listed) == {*ALGORITHMS, "HS256"}
        for method in ("private_key_jwt", "client_secret_jwt"):
            assert method in document[f"{endpoint}_endpoint_auth_methods_supported"]
    for alg in ("RS512", "PS384"):
        rsa = await new_signer(new_client, "RS256")
        assert_oauth_error(await prove(client, rsa, rsa.sign({"alg": alg})), 401, "invalid_client")
    _, hmac = await new_secret_signer(new_client)
    assert_oauth_error(await prove(client, hmac, hmac.sign({"alg": "HS384"})), 401, "invalid_client")


# What else a request may say


async def test_the_client_id_may_stand_beside_the_assertion(client: httpx.AsyncClient, new_client: NewClient) -> None:
    signer = await new_signer(new_client)
    assert (await prove(client, signer, client_id=signer.client_id)).status_code == 200
    assert_oauth_error(await prove(client, signer, client_id="another"), 401, "invalid_client")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_two_methods_at_once_are_an_invalid_request(
    client: httpx.AsyncClient, new_client: NewClient, endpoint: str
) -> None:
    app, signer = await new_client(), await new_signer(new_client)
    form = {"token": "x", "grant_type": "refresh_token"} | signer.form()
    assert_oauth_error(await client.post(endpoint, data=form, auth=basic(app)), 400, "invalid_request")
    with_secret = form | {"client_secret": "x"}
    assert_oauth_error(await client.post(endpoint, data=with_secret), 400, "invalid_request")
    half = {"token": "x", "client_assertion_type": TYPE}
    assert_oauth_error(await client.post(endpoint, data=half, auth=basic(app)), 400, "invalid_request")
    assert (await client.post("/revoke", data=form)).status_code == 200, "a refusal does not spend the assertion"


@pytest.mark.parametrize("audience", [ISSUER, [ISSUER]])
async def test_the_audience_is_the_issuer_alone(
    client: httpx.AsyncClient, new_client: NewClient, audience: object
) -> None:
    signer = await new_signer(new_client)
    assert (await prove(client, signer, signer.sign(aud=audience))).status_code == 200


async def test_what_else_a_header_says_is_ignored(client: httpx.AsyncClient, new_client: NewClient) -> None:
    signer = await new_signer(new_client)
    header = {"x5c": ["A" * 2000], "x-own": {"a": 1}}
    assert (await prove(client, signer, signer.sign(header))).status_code == 200


@pytest.mark.parametrize("kind", ["JWT", "jwt", "client-authentication+jwt"])
async def test_the_type_may_say_what_it_is(client: httpx.AsyncClient, new_client: NewClient, kind: str) -> None:
    signer = await new_signer(new_client)
    assert (await prove(client, signer, signer.sign({"typ": kind}))).status_code == 200


async def test_an_hour_and_a_clock_that_is_a_little_ahead_are_fine(
    client: httpx.AsyncClient, new_client: NewClient
) -> None:
    signer, now = await new_signer(new_client), int(time.time())
    for changes in ({"exp": now + 3600}, {"iat": now + 30, "nbf": now + 30}, {"exp": now + 59.5}, {"iat": None}):
        assert (await prove(client, signer, signer.sign(**changes))).status_code == 200, changes


def _segment(document: object) -> str:
    return opaque.b64encode(json.dumps(document).encode())


def _with_own_key(signer: Signer) -> str:
    own = ECKey.generate_key("P-256")
    return signer.sign({"jwk": own.as_dict(private=False)}, key=own)


def _signed_with_public_key(signer: Signer) -> str:
    """The trick of RFC 8725 §2.1, by hand: joserfc would not."""
    text = f"{_segment({'alg': 'HS256'})}.{_segment(signer.claims())}"
    public = cast("ECKey", signer.key).as_pem(private=False)
    return f"{text}.{opaque.b64encode(opaque.mac(public, text.encode()))}"


def _with_crit(signer: Signer) -> str:
    text = f"{_segment({'alg': 'ES256', 'crit': ['x'], 'x': 1})}.{_segment(signer.claims())}"
    private = cast("ec.EllipticCurvePrivateKey", signer.key.get_op_key("sign"))
    numbers = decode_dss_signature(private.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    signature = b"".join(number.to_bytes(32, "big") for number in numbers)
    return f"{text}.{opaque.b64encode(signature)}"


def _changed(assertion: str) -> str:
    header, payload, signature = assertion.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return f"{header}.{_segment(claims | {'exp': claims['exp'] + 1})}.{signature}"


BAD: dict[str, Callable[[Signer], str]] = {
    # Not a JWT
    "nothing but a word": lambda _: "x",
    "no segments": lambda _: "..",
    "five segments": lambda signer: signer.sign() + ".x.y",
    "not ASCII": lambda signer: signer.sign() + "ü",
    "padded": lambda signer: signer.sign() + "=",
    "more than 8 KiB": lambda signer: signer.sign(padding="x" * 8200),
    "claims that are a list": lambda _: f"{_segment({'alg': 'ES256'})}.{_segment([])}.x",
    "a header that is a list": lambda signer: f"{_segment(['alg'])}.{_segment(signer.claims())}.x",
    "a deep header": lambda signer: (
        opaque.b64encode(b'{"alg":"ES256","x":' + b"[" * 1000 + b"]" * 1000 + b"}") + f".{_segment(signer.claims())}.x"
    ),
    # Whose
    "no iss": lambda signer: signer.sign(iss=None),
    "no sub": lambda signer: signer.sign(sub=None),
    "another iss": lambda signer: signer.sign(iss="another"),
    "another sub": lambda signer: signer.sign(sub="another"),
    "sub and iss are a number": lambda signer: signer.sign(sub=1, iss=1),
    "an unknown client": lambda signer: signer.sign(sub="nobody", iss="nobody"),
    "a client_id of 300 characters": lambda signer: signer.sign(sub="a" * 300, iss="a" * 300),
    "a client_id with NUL": lambda signer: signer.sign(sub="a\0", iss="a\0"),
    # For whom
    "no aud": lambda signer: signer.sign(aud=None),
    "the token endpoint as aud": lambda signer: signer.sign(aud=f"{ISSUER}/token"),
    "the issuer with a slash as aud": lambda signer: signer.sign(aud=f"{ISSUER}/"),
    "another server as aud": lambda signer: signer.sign(aud="https://evil.example"),
    "two audiences": lambda signer: signer.sign(aud=[ISSUER, "https://evil.example"]),
    "the issuer twice": lambda signer: signer.sign(aud=[ISSUER, ISSUER]),
    "no audience in a list": lambda signer: signer.sign(aud=[]),
    # When
    "no exp": lambda signer: signer.sign(exp=None),
    "expired": lambda signer: signer.sign(exp=int(time.time()) - 5),
    "exp in two hours": lambda signer: signer.sign(exp=int(time.time()) + 7200),
    "exp in a million years": lambda signer: signer.sign(exp=10**17),
    "exp is text": lambda signer: signer.sign(exp=str(int(time.time()) + 60)),
    "exp is true": lambda signer: signer.sign(exp=True),
    "nbf in five minutes": lambda signer: signer.sign(nbf=int(time.time()) + 300),
    "iat in five minutes": lambda signer: signer.sign(iat=int(time.time()) + 300),
    "iat is text": lambda signer: signer.sign(iat="now"),
    # Which one
    "no jti": lambda signer: signer.sign(jti=None),
    "an empty jti": lambda signer: signer.sign(jti=""),
    "a jti that is a number": lambda signer: signer.sign(jti=5),
    "a jti of 300 characters": lambda signer: signer.sign(jti="x" * 300),
    # How
    "no signature": lambda signer: signer.sign().rpartition(".")[0] + ".",
    "alg none": lambda signer: f"{_segment({'alg': 'none'})}.{_segment(signer.claims())}.",
    "no alg": lambda signer: f"{_segment({})}.{_segment(signer.claims())}.x",
    "alg is a list": lambda signer: f"{_segment({'alg': ['ES256']})}.{_segment(signer.claims())}.x",
    "somebody else's key": lambda signer: signer.sign(key=ECKey.generate_key("P-256")),
    "another kind of key": lambda signer: signer.sign({"alg": "ES384"}, key=KEYS["ES384"]),
    "the public key as HS256's": _signed_with_public_key,
    "a key of its own in the header": _with_own_key,
    "a kid that it has not": lambda signer: signer.sign({"kid": "other"}),
    "an unknown crit": _with_crit,
    "the type of an access token": lambda signer: signer.sign({"typ": "at+jwt"}),
    "a type that is a number": lambda signer: f"{_segment({'alg': 'ES256', 'typ': 1})}.{_segment(signer.claims())}.x",
    "changed after it was signed": lambda signer: _changed(signer.sign(exp=int(time.time()) + 100)),
}


async def used(services: Services) -> int:
    async with services.db.read() as tx:
        return await tx.scalar(select(func.count()).select_from(UsedAssertion)) or 0


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_assertion_is_the_one_refusal_and_leaves_nothing_behind(
    client: httpx.AsyncClient, services: Services, new_client: NewClient, case: str
) -> None:
    signer = await new_signer(new_client)
    before = await used(services)
    answer = await prove(client, signer, BAD[case](signer))
    assert_oauth_error(answer, 401, "invalid_client")
    assert answer.json()["error_description"] == "Client authentication failed."
    assert await used(services) == before


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_another_type_of_assertion_or_none_is_refused(
    client: httpx.AsyncClient, new_client: NewClient, endpoint: str
) -> None:
    signer = await new_signer(new_client)
    for changes in (
        {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
        {"client_assertion_type": ""},
        {"client_assertion": ""},
    ):
        answer = await client.post(endpoint, data={"token": "x"} | signer.form() | changes)
        assert_oauth_error(answer, 401, "invalid_client")


# Each client in the way that it is registered for


async def test_a_client_with_keys_cannot_use_a_secret_or_nothing(
    client: httpx.AsyncClient, new_client: NewClient
) -> None:
    signer = await new_signer(new_client)
    form = {"client_id": signer.client_id, "token": "x"}
    for more in ({}, {"client_secret": "x"}, {"client_secret": "none"}):
        assert_oauth_error(await client.post("/revoke", data=form | more), 401, "invalid_client")


async def test_a_client_that_signs_with_its_secret_cannot_send_it(
    client: httpx.AsyncClient, new_client: NewClient
) -> None:
    app, signer = await new_secret_signer(new_client)
    assert_oauth_error(await client.post("/revoke", data={"token": "x"}, auth=basic(app)), 401, "invalid_client")
    form = {"client_id": app.client_id, "client_secret": app.secret or "", "token": "x"}
    assert_oauth_error(await client.post("/revoke", data=form), 401, "invalid_client")
    by_key = signer.sign({"alg": "ES256"}, key=KEYS["ES256"])
    assert_oauth_error(await prove(client, signer, by_key), 401, "invalid_client")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", None])
async def test_a_client_that_sends_its_secret_cannot_sign_with_it(
    client: httpx.AsyncClient, new_client: NewClient, method: str | None
) -> None:
    app = await new_client(auth_method=method)
    signer = Signer(app.client_id, OctKey.import_key(app.secret or ""), "HS256")
    assert_oauth_error(await prove(client, signer), 401, "invalid_client")


async def test_a_client_that_is_switched_off_is_refused(client: httpx.AsyncClient, new_client: NewClient) -> None:
    signer = await new_signer(new_client, is_active=False)
    assert_oauth_error(await prove(client, signer), 401, "invalid_client")


async def test_a_password_sign_in_works_with_keys_and_a_refresh_too(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    signer, user = await new_signer(new_client), await new_user()
    form = {"grant_type": "password", "username": user.username, "password": "correct horse battery staple"}
    tokens = (await client.post("/token", data=form | signer.form())).json()
    again = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert (await client.post("/token", data=again | signer.form())).status_code == 200
    other = await new_client()
    assert (await sign_in(client, other, user)).status_code == 200


# Several keys, and new ones


async def test_a_client_may_have_several_keys_and_change_them_without_an_outage(
    client: httpx.AsyncClient, services: Services, new_client: NewClient
) -> None:
    old, new = (ECKey.generate_key("P-256", parameters={"kid": kid}) for kid in ("old", "new"))
    app = await new_client(auth_method="private_key_jwt", jwks=key_set(old))
    by_old, by_new = (Signer(app.client_id, key, "ES256") for key in (old, new))
    for keys, answers in (([old], (200, 401)), ([old, new], (200, 200)), ([new], (401, 200))):
        async with services.db.write() as tx:
            found = await registration.locked(tx, app.client_id)
            assert found
            registration.set_keys(tx, found, key_set(*keys))
        for signer, status in zip((by_old, by_new), answers, strict=True):
            with_kid = signer.sign({"kid": str(signer.key.kid)})
            assert (await prove(client, signer, with_kid)).status_code == status
            assert (await prove(client, signer)).status_code == status


async def test_a_key_without_a_name_is_found_whatever_kid_says(
    client: httpx.AsyncClient, new_client: NewClient
) -> None:
    key = ECKey.generate_key("P-256")
    public = {name: value for name, value in key.as_dict(private=False).items() if name != "kid"}
    app = await new_client(auth_method="private_key_jwt", jwks={"keys": [public]})
    signer = Signer(app.client_id, key, "ES256")
    assert (await prove(client, signer, signer.sign({"kid": "thumbprint"}))).status_code == 200


async def test_a_secret_that_signs_stays_good_for_a_grace_and_is_stored_encrypted(
    client: httpx.AsyncClient, services: Services, new_client: NewClient
) -> None:
    app, signer = await new_secret_signer(new_client)
    secret = app.secret
    for keep_old, status in ((timedelta(hours=1), 200), (timedelta(0), 401)):
        async with services.db.write() as tx:
            found = await registration.locked(tx, app.client_id)
            assert found
            assert secret is not None
            assert secret.encode() not in (found.encrypted_secret or b"")
            secret = await registration.rotate_secret(tx, services.clients, found, keep_old=keep_old)
        assert (await prove(client, signer)).status_code == status
        newest = Signer(app.client_id, OctKey.import_key(secret), "HS256")
        assert (await prove(client, newest)).status_code == 200


# Once


async def test_an_assertion_works_once(client: httpx.AsyncClient, new_client: NewClient) -> None:
    signer = await new_signer(new_client)
    assertion = signer.sign()
    assert (await prove(client, signer, assertion)).status_code == 200
    assert_oauth_error(await prove(client, signer, assertion), 401, "invalid_client")
    again = signer.sign(jti=json.loads(base64.urlsafe_b64decode(assertion.split(".")[1] + "=="))["jti"])
    assert_oauth_error(await prove(client, signer, again), 401, "invalid_client")


async def test_two_clients_may_choose_the_same_jti(client: httpx.AsyncClient, new_client: NewClient) -> None:
    for _ in range(2):
        signer = await new_signer(new_client)
        assert (await prove(client, signer, signer.sign(jti="1"))).status_code == 200


async def test_of_50_uses_at_once_on_two_nodes_one_succeeds(
    client: httpx.AsyncClient, client_with: Callable[..., Any], new_client: NewClient
) -> None:
    nodes = client, await client_with()
    signer = await new_signer(new_client)
    for _ in range(3):
        assertion = signer.sign()
        answers = await asyncio.gather(*(prove(nodes[number % 2], signer, assertion) for number in range(50)))
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses[200] == 1, statuses
        assert set(statuses) <= {200, 401, 503}  # 503: a crowd that the database could not serve in time


async def test_a_use_that_cannot_be_written_down_is_a_503(
    client: httpx.AsyncClient, new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = await new_signer(new_client)
    ask = Database.ask

    async def only_reads(db: Database, statement: Statement, values: Any, tx: Any = None) -> Any:
        if statement.writes:
            raise StoreUnavailable("database", "down")
        return await ask(db, statement, values, tx)

    monkeypatch.setattr(Database, "ask", only_reads)
    assert_oauth_error(await prove(client, signer), 503, "temporarily_unavailable")


async def test_a_used_assertion_is_forgotten_when_it_has_expired(
    client: httpx.AsyncClient, services: Services, new_client: NewClient
) -> None:
    signer = await new_signer(new_client)
    assert (await prove(client, signer)).status_code == 200
    assert await used(services) >= 1
    async with services.db.write() as tx:
        for row in await tx.scalars(select(UsedAssertion)):
            row.expires_at -= timedelta(days=1)
    gone: Counter[str] = Counter()
    await services.pruner.run(lambda kind, count: gone.update({kind: count}))
    assert gone["used_assertions"] >= 1
    assert await used(services) == 0


# Guessing


async def test_bad_assertions_are_throttled_like_wrong_secrets_and_good_ones_are_not(
    client_with: Callable[..., Any], new_client: NewClient
) -> None:
    signer = await new_signer(new_client)
    guesses = await client_with(
        throttle_enabled=True, throttle_client_secret_failures_per_minute=3, address="192.0.2.78"
    )
    forged = [signer.sign(key=ECKey.generate_key("P-256")) for _ in range(5)]
    assert [(await prove(guesses, signer, text)).status_code for text in forged] == [401, 401, 401, 429, 429]
    assert (await prove(guesses, signer)).status_code == 200
