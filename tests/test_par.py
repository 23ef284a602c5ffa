"""POST /par (RFC 9126): a client leaves its request with us, and it gives one code."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest
from freezegun import freeze_time
from sqlalchemy import select

from authserver import clock
from authserver.clients.models import PushedRequest
from authserver.oauth.authorization.pushed import URI_PREFIX
from tests.assertions import new_signer
from tests.code_flow import CALLBACK, Flow, NewFlow, sent_back, sent_to
from tests.factories import NewClient, agreed, basic, signed_in_browser
from tests.test_authorize import BAD_INPUT, assert_shown
from tests.test_token_form import assert_oauth_error


@pytest.fixture
async def flow(new_flow: NewFlow) -> Flow:
    """Somebody who is signed in and has agreed."""
    return await new_flow()


async def push(flow: Flow, **changes: str | None) -> httpx.Response:
    return await flow.client.post("/par", data=flow.request(**changes), auth=flow.proof)


async def pushed(flow: Flow, **changes: str | None) -> str:
    answer = await push(flow, **changes)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["request_uri"])


async def come_with(flow: Flow, uri: str, **more: str) -> httpx.Response:
    return await flow.browser.get("/authorize", params={"client_id": flow.app.client_id, "request_uri": uri} | more)


async def test_a_pushed_request_gives_a_code(flow: Flow) -> None:
    answer = await push(flow)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json().keys() == {"request_uri", "expires_in"}
    assert answer.json()["expires_in"] == 60
    assert answer.json()["request_uri"].startswith("urn:ietf:params:oauth:request_uri:")
    sent = sent_back(await come_with(flow, answer.json()["request_uri"]))
    assert sent["state"] == "the state"
    assert (await flow.redeem(sent["code"])).status_code == 200


async def test_what_else_stands_in_the_address_does_not_count(flow: Flow) -> None:
    more = {"scope": "admin", "state": "other", "redirect_uri": "https://evil.example", "prompt": "login"}
    sent = sent_back(await come_with(flow, await pushed(flow, scope="openid"), **more))
    assert sent["state"] == "the state"
    assert (await flow.redeem(sent["code"])).json()["scope"] == "openid"


async def test_a_pushed_request_gives_one_code(flow: Flow) -> None:
    uri = await pushed(flow)
    sent_back(await come_with(flow, uri))
    assert_shown(await come_with(flow, uri))


async def test_of_fifty_at_once_one_gets_a_code(flow: Flow) -> None:
    uri = await pushed(flow)
    answers = await asyncio.gather(*(come_with(flow, uri) for _ in range(50)))
    counted = Counter(answer.status_code for answer in answers)
    assert counted[303] == 1
    assert counted.keys() <= {303, 400, 503}  # 503: a slow machine cannot do so many in time


async def test_it_lasts_while_the_person_signs_in_and_reads(new_flow: NewFlow) -> None:
    flow, start = await new_flow(is_signed_in=False, consent=None), clock.now()
    asked = sent_to(await come_with(flow, await pushed(flow, login_hint="ada", ui_locales="de")), "/login")
    assert (asked["login_hint"], asked["ui_locales"]) == ("ada", "de")
    with freeze_time(start + timedelta(minutes=20), tick=True, real_asyncio=True):
        await signed_in_browser(flow.services, flow.browser, flow.user)
        consent = sent_to(await flow.browser.get(asked["continue"]), "/consent")
    with freeze_time(start + timedelta(minutes=40), tick=True, real_asyncio=True):
        await agreed(flow.services, flow.user, flow.app, consent["scope"])
        sent = sent_back(await flow.browser.get(consent["continue"]))
        assert (await flow.redeem(sent["code"])).status_code == 200
        assert_shown(await flow.browser.get(consent["continue"]))


async def test_it_must_be_used_within_a_minute(flow: Flow) -> None:
    start, uri = clock.now(), await pushed(flow)
    with freeze_time(start + timedelta(seconds=65), tick=True, real_asyncio=True):
        assert_shown(await come_with(flow, uri))
        assert_shown(await come_with(flow, uri, ticket=f"{int(start.timestamp())}.x"))
    assert "code" in sent_back(await come_with(flow, uri))


async def test_the_person_may_refuse(new_flow: NewFlow) -> None:
    flow = await new_flow(is_signed_in=False)
    there = sent_to(await come_with(flow, await pushed(flow)), "/login")["continue"]
    assert sent_back(await flow.browser.get(f"{there}&refused=login"))["error"] == "access_denied"


async def test_it_is_its_own_client_s(flow: Flow, new_flow: NewFlow) -> None:
    other, uri = await new_flow(), await pushed(flow)
    assert_shown(await come_with(other, uri))
    assert_shown(await flow.browser.get("/authorize", params={"request_uri": uri}))
    assert_shown(await come_with(flow, uri[:-1]))
    assert_shown(await come_with(flow, URI_PREFIX))
    assert_shown(await come_with(flow, f"{URI_PREFIX}ü"))
    assert "code" in sent_back(await come_with(flow, uri))


UNLIKE_THERE = {"a control character": "invalid_request", "request_uri elsewhere": "invalid_request"}
LATER = {"id_token_hint no JWT", "a lone surrogate"}
"""What /authorize finds out when the browser comes."""


@pytest.mark.parametrize("case", [case for case in BAD_INPUT if case not in LATER])
async def test_bad_input_is_refused_as_it_would_be_there(new_flow: NewFlow, case: str) -> None:
    changes, error = BAD_INPUT[case]
    flow = await new_flow(audience=["api", "https://api.example"])
    assert_oauth_error(await push(flow, **changes), 400, UNLIKE_THERE.get(case, error))


BAD_ADDRESS: Mapping[str, dict[str, str | None]] = {
    "another redirect_uri": {"redirect_uri": "https://evil.example"},
    "no redirect_uri": {"redirect_uri": None},
    "a pushed one": {"request_uri": f"{URI_PREFIX}x"},
}


@pytest.mark.parametrize("case", BAD_ADDRESS)
async def test_a_bad_address_is_an_invalid_request(flow: Flow, case: str) -> None:
    assert_oauth_error(await push(flow, **BAD_ADDRESS[case]), 400, "invalid_request")


async def test_what_belongs_to_no_request_is_refused(flow: Flow, client: httpx.AsyncClient) -> None:
    assert_oauth_error(await client.get("/par"), 405, "invalid_request")
    assert_oauth_error(await client.post("/par", json=flow.request(), auth=basic(flow.app)), 400, "invalid_request")
    assert_oauth_error(await client.post("/par", data=flow.request()), 401, "invalid_client")
    assert_oauth_error(await push(flow, client_id="another"), 400, "invalid_request")


async def test_a_client_proves_itself_as_elsewhere(new_flow: NewFlow, new_client: NewClient) -> None:
    flow = await new_flow()
    signer = await new_signer(new_client, grants=["authorization_code"], redirect_uris=[CALLBACK])
    form = flow.request(client_id=None) | signer.form()
    answer = await flow.client.post("/par", data=form)
    assert answer.status_code == 201, answer.text
    async with flow.services.db.read() as tx:
        query = select(PushedRequest).where(PushedRequest.client_id == signer.client_id)
        row = (await tx.scalars(query)).one()
    assert not any(name.startswith("client_") and name != "client_id" for name in row.parameters)
    assert row.handle_hash not in answer.text


async def test_a_public_client_pushes_without_proof_but_not_without_end(
    client_with: Callable[..., Any], new_flow: NewFlow
) -> None:
    public, other = await new_flow(is_public=True), await new_flow()
    client = await client_with(throttle_enabled=True, throttle_pushed_requests_per_minute=3, address="198.51.100.7")
    for _ in range(3):
        assert (await client.post("/par", data=public.request())).status_code == 201
    answer = await client.post("/par", data=public.request())
    assert (answer.status_code, answer.json()["error"]) == (429, "temporarily_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert (await client.post("/par", data=other.request(), auth=basic(other.app))).status_code == 201
    wrong = await client.post("/par", data=public.request(scope="admin"))
    assert wrong.json()["error"] == "invalid_scope", "what leaves no row is not counted"


async def test_a_client_may_have_to_push(new_flow: NewFlow) -> None:
    flow = await new_flow(require_pushed_requests=True)
    assert sent_back(await flow.authorize())["error"] == "invalid_request"
    assert "code" in sent_back(await come_with(flow, await pushed(flow)))


async def test_resources_may_be_repeated(new_flow: NewFlow) -> None:
    both = ["https://a.example", "https://b.example"]
    flow = await new_flow(audience=both)
    form = {name: [value] for name, value in flow.request().items()} | {"resource": both}
    answer = await flow.client.post("/par", data=form, auth=flow.proof)
    assert answer.status_code == 201, answer.text
    assert "code" in sent_back(await come_with(flow, answer.json()["request_uri"]))
