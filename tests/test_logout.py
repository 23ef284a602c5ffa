"""/logout: applications can have people signed out, nobody is signed out against their will or sent to strangers."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from authserver.clients.models import Client
from authserver.keys.signing import sign
from authserver.services import Services
from tests import application
from tests.code_flow import CALLBACK, Flow, NewFlow, sent_to
from tests.factories import NewClient, agreed, claims_of, signed_in_browser
from tests.receiver import receiving
from tests.test_backchannel_logout import heard

BACK = "https://app.example/signed-out?from=us"
FORM_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


@pytest.fixture
async def flow(new_flow: NewFlow) -> Flow:
    return await new_flow(post_logout_redirect_uris=[BACK])


@pytest.fixture
async def tokens(flow: Flow) -> dict[str, Any]:
    return await flow.tokens()


async def ask(flow: Flow, **query: str) -> httpx.Response:
    """Send the browser to /logout."""
    return await flow.browser.get("/logout", params=query)


async def say_yes(flow: Flow, page: httpx.Response) -> httpx.Response:
    """Press the button of a page that asks."""
    found = FORM_TOKEN.search(page.text)
    assert found, page.text
    return await flow.browser.post(str(page.url), data={"form_token": found[1]})


async def is_signed_in(flow: Flow) -> bool:
    return '<button class="main"' in (await flow.browser.get("/logout")).text


def assert_asks(page: httpx.Response) -> None:
    assert page.status_code == 200
    assert FORM_TOKEN.search(page.text)


def assert_back(answer: httpx.Response, **state: str) -> None:
    """The browser goes to the registered address, with `state` and nothing else."""
    assert answer.status_code == 303, answer.text
    address, asked = urlsplit(answer.headers["location"]), urlsplit(BACK)
    assert address[:3] == asked[:3]
    assert dict(parse_qsl(address.query)) == dict(parse_qsl(asked.query)) | state


async def test_an_application_with_an_id_token_signs_out_whoever_it_is_about(
    flow: Flow, tokens: dict[str, Any]
) -> None:
    answer = await ask(
        flow, id_token_hint=tokens["id_token"], post_logout_redirect_uri=BACK, state="a state & more", ui_locales="de"
    )
    assert_back(answer, state="a state & more")
    assert "authserver_session=" in answer.headers["set-cookie"]
    assert not await is_signed_in(flow)
    assert not await flow.is_active(tokens["access_token"])
    assert (await flow.refresh(tokens["refresh_token"])).status_code == 400


async def test_without_an_address_to_go_to_people_are_told_that_they_are_signed_out(
    flow: Flow, tokens: dict[str, Any]
) -> None:
    page = await ask(flow, id_token_hint=tokens["id_token"])
    assert page.status_code == 200
    assert "You are signed out" in page.text
    assert not await is_signed_in(flow)


async def test_all_applications_of_the_browser_are_signed_out_and_told_and_no_other_browser_is(
    app: FastAPI, services: Services, flow: Flow, tokens: dict[str, Any], new_client: NewClient
) -> None:
    async with receiving() as receiver, application.client_of(app) as other_browser:
        made = await new_client(
            grants=["authorization_code"], redirect_uris=[CALLBACK], backchannel_logout_uri=receiver.uri
        )
        await agreed(services, flow.user, made)
        second = await replace(flow, app=made).tokens()
        await signed_in_browser(services, other_browser, flow.user)
        elsewhere = replace(flow, browser=other_browser)
        third = await elsewhere.tokens()
        await ask(flow, id_token_hint=tokens["id_token"])
        (notice,) = await heard(receiver)
        assert notice["sid"] == claims_of(second["id_token"])["sid"]
        assert not await replace(flow, app=made).is_active(second["access_token"])
        assert await flow.is_active(third["access_token"])
        assert await is_signed_in(elsewhere)


async def test_an_application_that_posts_its_request_is_sent_on_with_it(flow: Flow, tokens: dict[str, Any]) -> None:
    # From another site a browser posts without the cookie of the sign-in.
    form = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": BACK, "state": "1"}
    answer = await flow.client.post("/logout", data=form)
    assert sent_to(answer, "/logout") == form
    assert await is_signed_in(flow)
    assert_back(await flow.browser.get(answer.headers["location"]), state="1")
    assert not await is_signed_in(flow)


# ── asked first ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_mere_link_signs_nobody_out_but_asks(flow: Flow, tokens: dict[str, Any]) -> None:
    page = await ask(flow)
    assert_asks(page)
    assert await flow.is_active(tokens["access_token"])
    answer = await say_yes(flow, page)
    assert sent_to(answer, "/logout") == {}
    assert not await is_signed_in(flow)
    assert not await flow.is_active(tokens["access_token"])


async def test_a_client_id_is_enough_to_go_back_but_not_to_sign_anybody_out(flow: Flow, tokens: dict[str, Any]) -> None:
    page = await ask(flow, client_id=flow.app.client_id, post_logout_redirect_uri=BACK, state="1")
    assert_asks(page)
    assert "form-action" not in page.headers["content-security-policy"]  # it would keep the browser from going back
    assert await flow.is_active(tokens["access_token"])
    assert_back(await say_yes(flow, page), state="1")
    assert not await is_signed_in(flow)


async def test_an_id_token_about_somebody_else_signs_nobody_out(flow: Flow, new_flow: NewFlow) -> None:
    other = await new_flow(post_logout_redirect_uris=[BACK])
    hint = (await other.tokens())["id_token"]
    page = await ask(flow, id_token_hint=hint, post_logout_redirect_uri=BACK)
    assert_asks(page)
    assert await is_signed_in(flow)
    assert_back(await say_yes(flow, page))


async def test_a_logout_hint_that_means_somebody_else_is_asked_about(flow: Flow, tokens: dict[str, Any]) -> None:
    assert_asks(await ask(flow, id_token_hint=tokens["id_token"], logout_hint="somebody-else"))
    page = await ask(flow, id_token_hint=tokens["id_token"], logout_hint=flow.user.username)
    assert "You are signed out" in page.text


async def test_a_form_from_elsewhere_signs_nobody_out(flow: Flow) -> None:
    page = await ask(flow)
    for data, headers in (
        ({"form_token": "1.x"}, {}),
        ({"form_token": FORM_TOKEN.search(page.text)[1]}, {"Sec-Fetch-Site": "cross-site"}),  # type: ignore[index]
        ({"form_token": FORM_TOKEN.search(page.text)[1]}, {"Origin": "https://evil.example"}),  # type: ignore[index]
    ):
        answer = await flow.browser.post("/logout", data=data, headers=headers)
        assert answer.status_code == 400
        assert await is_signed_in(flow)


# ── bad requests: people can sign out, and are sent nowhere ─────────────────────────────────────────────────────────

Query = dict[str, str]
BAD: dict[str, Callable[[Flow, dict[str, Any]], Query | list[tuple[str, str]]]] = {
    "an address that is not registered": lambda _, tokens: {"id_token_hint": tokens["id_token"],
                                                            "post_logout_redirect_uri": "https://evil.example/"},
    "an address with more behind it": lambda _, tokens: {"id_token_hint": tokens["id_token"],
                                                         "post_logout_redirect_uri": BACK + "&more=1"},
    "an address without its query": lambda _, tokens: {"id_token_hint": tokens["id_token"],
                                                       "post_logout_redirect_uri": BACK.split("?", maxsplit=1)[0]},
    "the redirect URI of the code flow": lambda flow, _: {"client_id": flow.app.client_id,
                                                          "post_logout_redirect_uri": CALLBACK},
    "an address of nobody": lambda *_: {"post_logout_redirect_uri": BACK},
    "an address with state of nobody": lambda *_: {"post_logout_redirect_uri": BACK, "state": "1"},
    "a hint that is none": lambda flow, _: {"id_token_hint": "x", "client_id": flow.app.client_id,
                                            "post_logout_redirect_uri": BACK},
    "a hint with another signature": lambda _, tokens: {"id_token_hint": tokens["id_token"][:-8] + "AAAAAAAA",
                                                        "post_logout_redirect_uri": BACK},
    "an access token as hint": lambda flow, tokens: {"id_token_hint": tokens["access_token"],
                                                     "client_id": flow.app.client_id, "post_logout_redirect_uri": BACK},
    "a client that is not the hint's": lambda _, tokens: {"id_token_hint": tokens["id_token"], "client_id": "demo",
                                                          "post_logout_redirect_uri": BACK},
    "an unknown client": lambda *_: {"client_id": "nobody", "post_logout_redirect_uri": BACK},
    "a client with control characters": lambda *_: {"client_id": "a\x00b", "post_logout_redirect_uri": BACK},
    "a repeated address": lambda flow, _: [("client_id", flow.app.client_id), ("post_logout_redirect_uri", BACK),
                                           ("post_logout_redirect_uri", BACK)],
    "a state with a line break": lambda _, tokens: {"id_token_hint": tokens["id_token"], "state": "a\r\nb: c",
                                                       "post_logout_redirect_uri": BACK},
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_a_request_with_a_fault_asks_and_leads_nowhere(flow: Flow, tokens: dict[str, Any], name: str) -> None:
    query = httpx.QueryParams(BAD[name](flow, tokens))  # type: ignore[arg-type]
    page = await flow.browser.get("/logout", params=query)
    assert_asks(page)
    assert "The application that sent you here has asked in a way" in page.text
    assert await flow.is_active(tokens["access_token"])
    assert sent_to(await say_yes(flow, page), "/logout") == {}
    again = await flow.browser.get("/logout", params=query)  # now that nobody is signed in
    assert again.status_code == 200
    assert "You are signed out" in again.text


async def test_a_client_that_was_switched_off_gets_nobody_back(
    services: Services, flow: Flow, tokens: dict[str, Any]
) -> None:
    async with services.db.write() as tx:
        (await tx.get_one(Client, flow.app.client_id)).is_active = False
    assert_asks(await ask(flow, id_token_hint=tokens["id_token"], post_logout_redirect_uri=BACK))


async def test_with_nobody_signed_in_the_browser_goes_back_at_once(flow: Flow, tokens: dict[str, Any]) -> None:
    flow.browser.cookies.clear()
    assert_back(await ask(flow, id_token_hint=tokens["id_token"], post_logout_redirect_uri=BACK))
    assert await flow.is_active(tokens["access_token"])  # of a browser that is signed in still


async def test_a_hint_signed_by_us_for_something_else_is_none(services: Services, flow: Flow) -> None:
    claims = claims_of((await flow.tokens())["id_token"])
    forged = sign(services.keyring.signing_key("RS256"), "logout+jwt", claims)
    assert_asks(await ask(flow, id_token_hint=forged, post_logout_redirect_uri=BACK))
