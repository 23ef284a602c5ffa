"""Back-channel logout: whatever ends a sign-in, the client hears of it, at least once, whatever is in the way."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from joserfc.jwk import KeySet
from sqlalchemy import QueuePool, func, select, update

from authserver import clock
from authserver.audit import AuditEvent
from authserver.clients import registration
from authserver.clients.models import Client
from authserver.services import Services
from authserver.sessions import logout_delivery, logout_notices
from authserver.sessions.models import BrowserSession, LogoutNotice, UserSession
from authserver.settings import Settings
from tests.application import ISSUER
from tests.code_flow import Flow, NewFlow
from tests.factories import PASSWORD, NewClient, basic, bearer, claims_of, sign_in, verified
from tests.faults.house import eventually
from tests.receiver import HANG, Receiver, receiving

SCOPE = "openid offline_access"
EVENT = "http://schemas.openid.net/event/backchannel-logout"
Claims = dict[str, Any]


@pytest.fixture(autouse=True, scope="module")
def _no_long_pauses() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logout_notices, "_FIRST_PAUSE", timedelta(milliseconds=50))
        patch.setattr(logout_delivery, "POLL_SECONDS", 0.05)
        yield


async def heard(receiver: Receiver, how_many: int = 1) -> list[Claims]:
    """Return what the client has been told, once there are so many notices."""
    await eventually(lambda: _has(receiver, how_many))
    return [claims_of(token) for token in receiver.tokens]


async def _has(receiver: Receiver, how_many: int) -> bool:
    return len(receiver.tokens) >= how_many


async def waiting(services: Services, flow: Flow) -> int:
    """Return how many notices wait for the client."""
    async with services.db.read() as tx:
        query = select(func.count()).select_from(LogoutNotice).where(LogoutNotice.client_id == flow.app.client_id)
        return await tx.scalar(query) or 0


async def all_settled(services: Services, flow: Flow) -> None:
    async def is_none_left() -> bool:
        return await waiting(services, flow) == 0

    await eventually(is_none_left)


async def end(services: Services, flow: Flow) -> None:
    """End all sign-ins of a client, as its operator does."""
    async with services.denylist.revoking() as tx:
        await services.sessions.end(tx, UserSession.client_id == flow.app.client_id, because="test")


# ── what leads to a notice ──────────────────────────────────────────────────────────────────────────────────────────


async def _revokes(flow: Flow, tokens: Claims) -> None:
    form = {"token": tokens["refresh_token"]}
    assert (await flow.client.post("/revoke", data=form, auth=basic(flow.app))).status_code == 200


async def _reuses(flow: Flow, tokens: Claims) -> None:
    second = (await flow.refresh(tokens["refresh_token"])).json()
    await flow.refresh(second["refresh_token"])
    assert (await flow.refresh(tokens["refresh_token"])).status_code == 400


async def _account_token(flow: Flow) -> dict[str, str]:
    """Return the headers of the user with a token of another client."""
    async with flow.services.db.write() as tx:
        new = registration.NewClient(name="Account", grants=["password"], auth_method="none")
        made, _ = registration.create(tx, flow.services.clients, new)
    form = {"grant_type": "password", "username": flow.user.username, "password": PASSWORD, "client_id": made.id}
    return bearer((await flow.client.post("/token", data=form)).json()["access_token"])


async def _changes_password(flow: Flow, _: Claims) -> None:
    body = {"current_password": PASSWORD, "new_password": "another good long sentence"}
    answer = await flow.client.post("/users/me/password", json=body, headers=await _account_token(flow))
    assert answer.status_code < 300, answer.text


async def _deletes_account(flow: Flow, _: Claims) -> None:
    answer = await flow.client.request("DELETE", "/users/me", json={"current_password": PASSWORD},
                                       headers=await _account_token(flow))  # fmt: skip
    assert answer.status_code < 300, answer.text


async def _signs_out(flow: Flow, _: Claims) -> None:
    async with flow.services.denylist.revoking() as tx:
        await flow.services.browser_sessions.end(tx, BrowserSession.user_id == flow.user.id, because="signed out")


WAYS: dict[str, Callable[[Flow, Claims], Awaitable[None]]] = {
    "the client revokes the refresh token": _revokes,
    "a refresh token is used twice": _reuses,
    "the password is changed": _changes_password,
    "the account is deleted": _deletes_account,
    "the browser is signed out": _signs_out,
}


@pytest.mark.parametrize(("way", "algorithm"), [*((way, "RS256") for way in WAYS), (next(iter(WAYS)), "ES256")])
async def test_the_client_hears_of_it_when(
    client: httpx.AsyncClient, services: Services, new_flow: NewFlow, way: str, algorithm: str
) -> None:
    async with receiving() as receiver:
        flow = await new_flow(backchannel_logout_uri=receiver.uri, id_token_alg=algorithm)
        tokens = await flow.tokens()
        await WAYS[way](flow, tokens)
        await heard(receiver)
        await all_settled(services, flow)
    (text,), (head,) = receiver.tokens, receiver.heads
    assert head.startswith("POST /logout?kept=1 HTTP/1.1\r\n")
    assert "\r\ncontent-type: application/x-www-form-urlencoded\r\n" in head.lower()
    keys = KeySet.import_key_set((await client.get("/.well-known/jwks.json")).json())
    token = verified(text, keys, algorithm)
    assert (token.header["typ"], token.header["alg"]) == ("logout+jwt", algorithm)
    claims, signed_in = token.claims, claims_of(tokens["id_token"])
    assert set(claims) == {"iss", "sub", "aud", "iat", "exp", "jti", "events", "sid"}  # §2.4, and no nonce
    assert {name: claims[name] for name in ("iss", "sub", "aud", "sid")} == {
        "iss": ISSUER, "sub": str(flow.user.id), "aud": flow.app.client_id, "sid": signed_in["sid"],
    }  # fmt: skip
    assert claims["events"] == {EVENT: {}}
    assert claims["exp"] == claims["iat"] + 120


async def test_nobody_hears_of_what_did_not_come_from_a_browser_or_is_no_sign_in(
    client: httpx.AsyncClient, services: Services, new_flow: NewFlow, new_client: NewClient
) -> None:
    async with receiving() as receiver:
        flow = await new_flow(backchannel_logout_uri=receiver.uri)
        await flow.tokens(scope="profile")
        by_password = await new_client(backchannel_logout_uri=receiver.uri)
        assert (await sign_in(client, by_password, flow.user)).status_code == 200
        await end(services, flow)
        await end(services, dataclasses.replace(flow, app=by_password))
        async with services.db.read() as tx:
            mine = LogoutNotice.user_id == flow.user.id
            assert await tx.scalar(select(func.count()).select_from(LogoutNotice).where(mine)) == 0


async def test_a_session_that_lives_offline_goes_on_and_its_client_hears_of_the_sign_out(
    services: Services, new_flow: NewFlow, new_client: NewClient
) -> None:
    async with receiving() as receiver:
        flow = await new_flow(backchannel_logout_uri=receiver.uri, scopes=SCOPE.split(), consent=SCOPE)
        tokens = await flow.tokens(scope=SCOPE)
        await _signs_out(flow, tokens)
        (claims,) = await heard(receiver)
        assert claims["sid"] == claims_of(tokens["id_token"])["sid"]
        assert (await flow.refresh(tokens["refresh_token"])).status_code == 200
        await end(services, flow)
        assert len(await heard(receiver, 2)) == 2


async def test_one_session_ended_twice_is_told_once(services: Services, new_flow: NewFlow) -> None:
    async with receiving() as receiver:
        flow = await new_flow(backchannel_logout_uri=receiver.uri)
        tokens = await flow.tokens()
        await asyncio.gather(*[_revokes(flow, tokens) for _ in range(5)])
        await end(services, flow)
        await all_settled(services, flow)
        assert len(receiver.tokens) == 1


# ── what is in the way ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("statuses", [[500, 503, 200], [400, 204], [302, 200], [307, 200]], ids=str)
async def test_a_client_that_does_not_say_that_it_heard_is_told_again(
    services: Services, new_flow: NewFlow, statuses: list[int]
) -> None:
    async with receiving() as elsewhere, receiving(*statuses, headers=f"Location: {elsewhere.uri}\r\n") as receiver:
        flow = await new_flow(backchannel_logout_uri=receiver.uri)
        await flow.tokens()
        await end(services, flow)
        told = await heard(receiver, len(statuses))
        await all_settled(services, flow)
        assert len({claims["jti"] for claims in told}) == len(statuses)  # each with a token of its own
        assert len({claims["sid"] for claims in told}) == 1
        assert not elsewhere.heads  # a redirect is not followed


async def test_a_client_that_hangs_holds_up_neither_requests_nor_other_clients(
    services: Services, new_flow: NewFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logout_delivery, "TIMEOUT_SECONDS", 2.0)
    async with receiving(HANG) as hanging, receiving() as healthy:
        slow = await new_flow(backchannel_logout_uri=hanging.uri)
        ended = [uuid4() for _ in range(40)]  # more than a process delivers at a time
        async with services.db.write() as tx:
            about = {"client_id": slow.app.client_id, "user_id": slow.user.id}
            tx.add_all(LogoutNotice(session_id=session_id, **about) for session_id in ended)
        await heard(hanging, 4)
        flow = await new_flow(backchannel_logout_uri=healthy.uri)
        await flow.tokens()
        await end(services, flow)
        await heard(healthy)
        assert await waiting(services, slow) == 40
        assert hanging.most_hanging < 8
        pool = services.db.engine.pool
        if isinstance(pool, QueuePool):
            assert pool.checkedout() <= 1  # whoever waits for a client holds no connection; one may just be looking
        hanging.statuses[:] = [200]
        await all_settled(services, slow)
        assert len({claims_of(token)["sid"] for token in hanging.tokens}) == 40


async def test_a_client_that_is_not_there_is_tried_again(services: Services, new_flow: NewFlow) -> None:
    async with receiving() as receiver:
        uri = receiver.uri
    flow = await new_flow(backchannel_logout_uri=uri)
    await flow.tokens()
    await end(services, flow)

    async def is_tried_twice() -> bool:
        async with services.db.read() as tx:
            query = select(LogoutNotice.attempts).where(LogoutNotice.client_id == flow.app.client_id)
            return (await tx.scalar(query) or 0) >= 2

    await eventually(is_tried_twice)
    assert await waiting(services, flow) == 1


async def test_after_a_day_it_is_given_up_and_the_audit_trail_says_so(services: Services, new_flow: NewFlow) -> None:
    async with receiving(500) as receiver:
        flow = await new_flow(backchannel_logout_uri=receiver.uri)
        tokens = await flow.tokens()
        await end(services, flow)
        await heard(receiver)
        async with services.db.write() as tx:
            mine = LogoutNotice.client_id == flow.app.client_id
            await tx.execute(update(LogoutNotice).where(mine).values(created_at=clock.now() - timedelta(days=1)))
        await all_settled(services, flow)
    async with services.db.read() as tx:
        query = select(AuditEvent).where(
            AuditEvent.event == "logout_notice_given_up", AuditEvent.client_id == flow.app.client_id
        )
        (event,) = (await tx.scalars(query)).all()
    assert str(event.session_id) == claims_of(tokens["id_token"])["sid"]
    assert event.details["reason"] == "status 500"


@pytest.mark.parametrize("what", ["deleted", "without address"])
async def test_what_nobody_can_hear_any_more_is_forgotten(services: Services, new_flow: NewFlow, what: str) -> None:
    async with receiving(500) as receiver:
        flow = await new_flow(backchannel_logout_uri=receiver.uri)
        await flow.tokens()
        await end(services, flow)
        await heard(receiver)
        async with services.db.write() as tx:
            client = await tx.get_one(Client, flow.app.client_id)
            if what == "deleted":
                await tx.delete(client)
            else:
                client.backchannel_logout_uri = None
        await all_settled(services, flow)


def test_the_pauses_grow_to_an_hour() -> None:
    pauses = [logout_notices.pause(attempts).total_seconds() for attempts in (1, 2, 3, 30, 3000)]
    assert pauses[0] < pauses[1] < pauses[2]
    assert all(0.8 * 3600 <= pause <= 1.2 * 3600 for pause in pauses[3:])


@pytest.mark.parametrize(
    ("uri", "environment", "may"),
    [
        ("https://app.example/logout", "production", True),
        ("http://127.0.0.1:9000/logout", "production", True),
        ("http://app.example/logout", "production", False),
        ("http://app.example/logout", "development", True),
        ("ftp://127.0.0.1/logout", "development", False),
        ("file:///etc/passwd", "development", False),
    ],
)
async def test_tokens_go_nowhere_without_tls_but_to_this_machine(uri: str, environment: str, may: bool) -> None:
    settings = Settings(_env_file=None, issuer="https://auth.example.com", environment=environment, secret_key="x" * 40)
    delivery = logout_delivery.LogoutDelivery(settings, None, None)  # type: ignore[arg-type]
    assert delivery._may_call(uri) is may
