"""What a process remembers so as not to find it out again: bounded, never wrong, not to be flushed by strangers."""

import asyncio
import base64
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from freezegun import freeze_time

from authserver import clock, opaque
from authserver.clients import registration
from authserver.keys.pairs import Key
from authserver.keys.signing import is_signed
from authserver.recent import Recent
from authserver.services import Services
from authserver.tokens import access_token
from tests.factories import App, NewClient, NewUser, basic, sign_in

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens whose signature was verified."""
    verified: list[str] = []

    def counting(key: Key, token: str) -> bool:
        verified.append(token)
        return is_signed(key, token)

    monkeypatch.setattr(access_token, "is_signed", counting)
    return verified


def forged(token: str, number: int) -> str:
    head, payload, _ = token.split(".")
    return f"{head}.{payload}.{opaque.b64encode(number.to_bytes(64))}"


def twin(token: str) -> str:
    """Return the other signature that ES256 has for the same token (r, n - s)."""
    head, payload, signature = token.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    r, s = int.from_bytes(raw[:32]), P256_ORDER - int.from_bytes(raw[32:])
    assert decode_dss_signature(encode_dss_signature(r, s)) == (r, s)
    return f"{head}.{payload}.{opaque.b64encode(r.to_bytes(32) + s.to_bytes(32))}"


async def is_active(client: httpx.AsyncClient, app: App, token: str) -> bool:
    answer = await client.post("/introspect", data={"token": token}, auth=basic(app))
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["active"])


def test_what_is_asked_for_least_goes_first() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert (recent.get("a"), recent.get("b"), recent.get("c"), len(recent)) == (1, None, 3, 2)
    recent.forget("a")
    assert "a" not in recent


async def test_a_signature_is_verified_once(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser, verifications: list[str]
) -> None:
    app = await new_client()
    token = (await sign_in(client, app, await new_user())).json()["access_token"]
    for _ in range(3):
        assert await is_active(client, app, token)
    assert verifications == [token]
    for _ in range(3):
        assert not await is_active(client, app, forged(token, 1))
    assert verifications == [token, forged(token, 1)]


async def test_a_remembered_token_expires_and_is_revoked_all_the_same(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(), await new_user()
    tokens = (await sign_in(client, app, user)).json()
    assert await is_active(client, app, tokens["access_token"])
    with freeze_time(clock.now() + timedelta(seconds=tokens["expires_in"] + 1), tick=True, real_asyncio=True):
        assert not await is_active(client, app, tokens["access_token"])
    assert await is_active(client, app, tokens["access_token"])
    assert (await client.post("/revoke", data={"token": tokens["access_token"]}, auth=basic(app))).status_code == 200
    assert not await is_active(client, app, tokens["access_token"])


async def test_a_revoked_token_is_dead_under_its_other_signature_too(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app = await new_client()
    token = (await sign_in(client, app, await new_user())).json()["access_token"]
    assert await is_active(client, app, twin(token))
    assert (await client.post("/revoke", data={"token": token}, auth=basic(app))).status_code == 200
    assert not await is_active(client, app, twin(token))


async def test_a_remembered_token_dies_with_its_key(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser, services: Services
) -> None:
    app = await new_client()
    token = (await sign_in(client, app, await new_user())).json()["access_token"]
    assert await is_active(client, app, token)
    await services.keyring.rotate(at_once=True)
    assert not await is_active(client, app, token)


async def test_rubbish_pushes_no_good_token_out_and_takes_no_room(
    client: httpx.AsyncClient,
    new_client: NewClient,
    new_user: NewUser,
    services: Services,
    verifications: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = services.access_tokens
    monkeypatch.setattr(tokens, "_known", Recent(4))
    monkeypatch.setattr(tokens, "_forged", Recent(4))
    app = await new_client()
    token = (await sign_in(client, app, await new_user())).json()["access_token"]
    assert await is_active(client, app, token)
    for number in range(1, 20):
        assert not await is_active(client, app, forged(token, number))
        assert not await is_active(client, app, f"rubbish {number}")
    assert await is_active(client, app, token)
    assert verifications.count(token) == 1
    assert len(tokens._known) == 1
    assert len(tokens._forged) == 4


async def test_revocations_push_no_good_token_out(
    client: httpx.AsyncClient,
    new_client: NewClient,
    new_user: NewUser,
    services: Services,
    verifications: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(services.access_tokens, "_known", Recent(2))
    app, person = await new_client(), await new_user()
    token, *others = [(await sign_in(client, app, person)).json()["access_token"] for _ in range(4)]
    assert await is_active(client, app, token)
    for other in others:
        assert (await client.post("/revoke", data={"token": other}, auth=basic(app))).status_code == 200
    assert await is_active(client, app, token)
    assert verifications.count(token) == 1
    assert not await is_active(client, app, others[0])


async def test_a_client_is_looked_at_again_after_its_second(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser, services: Services
) -> None:
    app = await new_client(may_introspect=True)
    token = (await sign_in(client, await new_client(), await new_user())).json()["access_token"]
    assert await is_active(client, app, token)
    async with services.db.write() as tx:
        row = await registration.locked(tx, app.client_id)
        assert row is not None
        registration.set_active(tx, row, is_active=False)
    await asyncio.sleep(services.settings.client_cache_seconds)
    answer = await client.post("/introspect", data={"token": token}, auth=basic(app))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_a_remembered_proof_is_of_that_secret_only(client: httpx.AsyncClient, new_client: NewClient) -> None:
    app = await new_client()
    for secret, status in ((app.secret, 200), ("wrong", 401), ("", 401), (app.secret, 200)):
        answer = await client.post("/introspect", data={"token": "x"}, auth=(app.client_id, secret or ""))
        assert answer.status_code == status, secret


async def test_many_requests_of_a_client_look_at_it_once_a_second(
    client: httpx.AsyncClient, new_client: NewClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, looks = await new_client(), 0
    rows = services.clients._rows

    async def counting(client_ids: list[str]) -> Any:
        nonlocal looks
        looks += 1
        return await rows(client_ids)

    monkeypatch.setattr(services.clients, "_rows", counting)
    assert not await is_active(client, app, "x")
    await asyncio.sleep(services.settings.client_cache_seconds)
    assert not any(await asyncio.gather(*(is_active(client, app, "x") for _ in range(20))))
    assert looks == 2


async def test_clients_that_do_not_exist_are_not_remembered(client: httpx.AsyncClient, services: Services) -> None:
    before = len(services.clients._kept)
    for number in range(10):
        answer = await client.post("/introspect", data={"token": "x"}, auth=(f"nobody-{number}", "secret"))
        assert answer.status_code == 401
    assert len(services.clients._kept) == before
