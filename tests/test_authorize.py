"""GET and POST /authorize: who is sent where, with what (RFC 6749 §4.1, RFC 9700, OpenID Connect Core §3.1.2)."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
import pytest
from freezegun import freeze_time
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import clock
from authserver.clients.models import Client
from authserver.db import Base, Database
from authserver.sessions.models import AuthorizationCode
from authserver.statement import Statement
from authserver.users.models import User
from tests.application import ISSUER
from tests.code_flow import CALLBACK, SCOPE, Flow, NewFlow, challenge_of, sent_back, sent_to
from tests.factories import NewUser, agreed, claims_of, signed_in_browser

APP = "https://app.example"


@pytest.fixture
async def flow(new_flow: NewFlow) -> Flow:
    """Somebody who is signed in and has agreed."""
    return await new_flow()


async def back(flow: Flow, address: str) -> httpx.Response:
    """Have the browser come back from one of our pages, to where the page sends it."""
    assert address.startswith("/authorize?")
    return await flow.browser.get(address)


# The answer


async def test_a_code_comes_back_with_state_and_issuer(flow: Flow) -> None:
    answer = await flow.authorize()
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    sent = sent_back(answer)
    assert sent.keys() == {"code", "state", "iss"}
    assert (sent["state"], sent["iss"]) == ("the state", ISSUER)


async def test_without_state_there_is_none_in_the_answer(flow: Flow) -> None:
    assert sent_back(await flow.authorize(state=None)).keys() == {"code", "iss"}
    assert sent_back(await flow.authorize(state="")).keys() == {"code", "iss"}


async def test_each_request_has_a_code_of_its_own(flow: Flow) -> None:
    assert await flow.code() != await flow.code()


async def test_state_comes_back_as_it_was(flow: Flow) -> None:
    state = "ä €/?&=#%20+ \"'<>"
    assert sent_back(await flow.authorize(state=state))["state"] == state


async def test_the_query_of_a_redirect_uri_is_kept(new_flow: NewFlow) -> None:
    uri = f"{CALLBACK}?tenant=a%20b&x="
    flow = await new_flow(redirect_uris=[uri])
    answer = await flow.authorize(redirect_uri=uri)
    assert answer.headers["location"].startswith(f"{uri}&code=")


async def test_the_answer_may_come_in_the_fragment(flow: Flow) -> None:
    assert sent_back(await flow.authorize(response_mode="fragment"), "fragment").keys() == {"code", "state", "iss"}
    refused = sent_back(await flow.authorize(response_mode="fragment", prompt="create"), "fragment")
    assert refused["error"] == "invalid_request"


def posted(answer: httpx.Response) -> tuple[str, dict[str, str]]:
    """Return where the page of form_post posts what."""
    assert answer.status_code == 200
    (action,) = re.findall(r'<form method="post" action="([^"]*)">', answer.text)
    fields = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', answer.text)
    return unescape(action), {unescape(name): unescape(value) for name, value in fields}


async def test_the_answer_may_come_as_a_form(flow: Flow) -> None:
    state = "\"><script>alert(1)</script>&amp;'"
    answer = await flow.authorize(response_mode="form_post", state=state)
    action, fields = posted(answer)
    assert action == CALLBACK
    assert fields.keys() == {"code", "state", "iss"}
    assert fields["state"] == state
    _, refused = posted(await flow.authorize(response_mode="form_post", prompt="create"))
    assert refused["error"] == "invalid_request"


async def test_the_form_posts_itself_under_a_strict_policy_and_without_javascript(flow: Flow) -> None:
    answer = await flow.authorize(response_mode="form_post")
    (script,) = re.findall(r"<script>(.*?)</script>", answer.text)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert re.search(r"<noscript><button>\w+</button></noscript>\s*</form>", answer.text)
    assert answer.headers["cache-control"] == "no-store"


async def test_a_post_is_sent_to_the_same_request_by_get(flow: Flow) -> None:
    """From another site a form comes without the cookie of the sign-in (SameSite=Lax)."""
    answer = await flow.client.post("/authorize", data=flow.request(state="a b&c", ui_locales="de"))
    assert answer.status_code == 303
    assert dict(parse_qsl(urlsplit(answer.headers["location"]).query)) == flow.request(state="a b&c", ui_locales="de")
    assert sent_back(await flow.browser.get(answer.headers["location"]))["state"] == "a b&c"


# What is wrong with a request, as the client hears it

S256 = challenge_of("v" * 43)
BAD_INPUT: Mapping[str, tuple[dict[str, str | None], str]] = {
    "no response_type": ({"response_type": None}, "invalid_request"),
    "an empty response_type": ({"response_type": ""}, "invalid_request"),
    "response_type token": ({"response_type": "token"}, "unsupported_response_type"),
    "response_type id_token": ({"response_type": "id_token"}, "unsupported_response_type"),
    "response_type code id_token": ({"response_type": "code id_token"}, "unsupported_response_type"),
    "response_type none": ({"response_type": "none"}, "unsupported_response_type"),
    "response_type CODE": ({"response_type": "CODE"}, "unsupported_response_type"),
    "response_mode unknown": ({"response_mode": "web_message"}, "invalid_request"),
    "response_mode of JARM": ({"response_mode": "query.jwt"}, "invalid_request"),
    "scope beyond the client's": ({"scope": "openid admin"}, "invalid_scope"),
    "scope malformed": ({"scope": 'openid "x"'}, "invalid_scope"),
    "scope with two spaces": ({"scope": "openid  email"}, "invalid_scope"),
    "no code_challenge": ({"code_challenge": None}, "invalid_request"),
    "neither challenge nor method": ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
    "method plain": ({"code_challenge_method": "plain"}, "invalid_request"),
    "method plain by default": ({"code_challenge_method": None}, "invalid_request"),
    "method unknown": ({"code_challenge_method": "s256"}, "invalid_request"),
    "challenge too short": ({"code_challenge": S256[:-1]}, "invalid_request"),
    "challenge too long": ({"code_challenge": S256 + "A"}, "invalid_request"),
    "challenge padded": ({"code_challenge": S256[:-1] + "="}, "invalid_request"),
    "prompt unknown": ({"prompt": "create"}, "invalid_request"),
    "prompt none with another": ({"prompt": "none login"}, "invalid_request"),
    "prompt in capitals": ({"prompt": "Login"}, "invalid_request"),
    "max_age negative": ({"max_age": "-1"}, "invalid_request"),
    "max_age no number": ({"max_age": "1e3"}, "invalid_request"),
    "max_age in other digits": ({"max_age": "٣"}, "invalid_request"),
    "max_age with ten digits": ({"max_age": "1" * 10}, "invalid_request"),
    "display unknown": ({"display": "hologram"}, "invalid_request"),
    "nonce too long": ({"nonce": "n" * 1001}, "invalid_request"),
    "claims no JSON": ({"claims": "{"}, "invalid_request"),
    "claims no object": ({"claims": "[]"}, "invalid_request"),
    "claims with a member that is none": ({"claims": '{"id_token": ["email"]}'}, "invalid_request"),
    "a claim that is text": ({"claims": '{"userinfo": {"email": "yes"}}'}, "invalid_request"),
    "a claim essential by text": ({"claims": '{"userinfo": {"email": {"essential": "true"}}}'}, "invalid_request"),
    "a claim with values that are none": ({"claims": '{"id_token": {"acr": {"values": "1"}}}'}, "invalid_request"),
    "an acr that there is not": (
        {"claims": '{"id_token": {"acr": {"essential": true, "values": ["9"]}}}'},
        "unmet_authentication_requirements",
    ),
    "registration": ({"registration": "{}"}, "registration_not_supported"),
    "request_uri elsewhere": ({"request_uri": "https://app.example/request.jwt"}, "request_uri_not_supported"),
    "request no JWT": ({"request": "x"}, "invalid_request_object"),
    "id_token_hint no JWT": ({"id_token_hint": "x"}, "invalid_request"),
    "resource unknown": ({"resource": "https://other.example"}, "invalid_target"),
    "resource relative": ({"resource": "api"}, "invalid_target"),
    "resource with a fragment": ({"resource": "https://api.example#x"}, "invalid_target"),
    "a control character": ({"ui_locales": "de\n"}, "invalid_request"),
    "a lone surrogate": ({"login_hint": "\\ud800"}, ""),  # only text that looks like one: no fault
}


@pytest.mark.parametrize("case", BAD_INPUT)
@pytest.mark.parametrize("is_signed_in", [True, False], ids=["signed in", "a stranger"])
async def test_bad_input_goes_back_with_the_error_it_has_earned(
    new_flow: NewFlow, case: str, is_signed_in: bool
) -> None:
    changes, error = BAD_INPUT[case]
    flow = await new_flow(is_signed_in=is_signed_in, audience=["api", "https://api.example"])
    answer = await flow.authorize(**changes)
    if not error:
        assert "error=" not in answer.headers["location"]
        return
    sent = sent_back(answer)
    assert sent.keys() == {"error", "error_description", "state", "iss"}
    assert (sent["error"], sent["state"]) == (error, "the state")


@pytest.mark.parametrize("name", ["scope", "state", "nonce", "prompt", "unknown", "code_challenge", "claims"])
async def test_a_repeated_parameter_is_an_invalid_request(flow: Flow, name: str) -> None:
    query = urlencode([*flow.request(prompt="login").items(), (name, "x"), (name, "x")])
    sent = sent_back(await flow.browser.get(f"/authorize?{query}"))
    assert sent["error"] == "invalid_request"
    assert ("state" in sent) is (name != "state")


async def test_unknown_parameters_are_ignored(flow: Flow) -> None:
    assert "code" in sent_back(await flow.authorize(foo="bar", claims_locales="de", acr_values="9 1", display="touch"))


async def test_who_may_not_use_codes_is_refused(new_flow: NewFlow) -> None:
    flow = await new_flow(grants=["password"])
    assert sent_back(await flow.authorize())["error"] == "unauthorized_client"


async def test_proof_keys_are_asked_of_all_but_who_is_registered_otherwise(new_flow: NewFlow) -> None:
    without = {"code_challenge": None, "code_challenge_method": None}
    exempt = await new_flow(require_pkce=False)
    assert (await exempt.redeem(await exempt.code(**without), code_verifier=None)).status_code == 200
    assert sent_back(await exempt.authorize(code_challenge=None))["error"] == "invalid_request"
    assert sent_back(await exempt.authorize(code_challenge_method=None))["error"] == "invalid_request"
    public = await new_flow(is_public=True)
    async with public.services.db.write() as tx:  # past the rule of registration
        await tx.execute(update(Client).where(Client.id == public.app.client_id).values(require_pkce=False))
    assert sent_back(await public.authorize(**without))["error"] == "invalid_request"


# What must not go to anybody


def assert_shown(answer: httpx.Response) -> None:
    assert answer.status_code == 400, answer.text
    assert "location" not in answer.headers
    assert answer.headers["content-type"].startswith("text/html")


ELSEWHERE: Mapping[str, str | None] = {
    "none": None,
    "another path": f"{APP}/other",
    "a longer path": f"{CALLBACK}/x",
    "a shorter path": f"{APP}/",
    "another host": "https://evil.example/callback",
    "a host that begins alike": "https://app.example.evil.example/callback",
    "a user": "https://app.example@evil.example/callback",
    "http": "http://app.example/callback",
    "a port": "https://app.example:443/callback",
    "capitals": "https://APP.example/callback",
    "a query": f"{CALLBACK}?x",
    "a fragment": f"{CALLBACK}#x",
    "a dot segment": f"{APP}/x/../callback",
    "percent": f"{APP}/%63allback",
    "a space after": f"{CALLBACK} ",
    "a tab": f"{CALLBACK}\t",
    "a backslash": "https://app.example\\@evil.example/callback",
    "JavaScript": "javascript:alert(1)",
    "relative": "/callback",
}


@pytest.mark.parametrize("case", ELSEWHERE)
@pytest.mark.parametrize("prompt", [None, "none"])
async def test_nobody_is_sent_to_an_address_that_is_not_registered(flow: Flow, case: str, prompt: str | None) -> None:
    assert_shown(await flow.authorize(redirect_uri=ELSEWHERE[case], prompt=prompt))
    assert_shown(await flow.authorize(redirect_uri=ELSEWHERE[case], response_type="token"))


async def test_an_unknown_client_is_shown_to_the_person(flow: Flow, new_flow: NewFlow) -> None:
    for client_id in (None, "", "nobody", "x" * 5000, "ä", "a\x00b"):
        assert_shown(await flow.authorize(client_id=client_id))
    assert_shown(await flow.authorize(client_id=(await new_flow(is_active=False)).app.client_id))


@pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
async def test_a_repeated_address_is_shown_to_the_person(flow: Flow, name: str) -> None:
    request = flow.request()
    for other in (request[name], "https://evil.example"):
        assert_shown(await flow.browser.get(f"/authorize?{urlencode([*request.items(), (name, other)])}"))
        assert_shown(await flow.browser.get(f"/authorize?{urlencode([(name, other), *request.items()])}"))


@pytest.mark.parametrize("query", ["%ff", "&".join(["a"] * 101), "a=" + "a" * 9000, ""])
async def test_what_is_no_request_is_shown_to_the_person(flow: Flow, query: str) -> None:
    assert_shown(await flow.browser.get(f"/authorize?{urlencode(flow.request())}&{query}" if query else "/authorize"))
    headers = {"content-type": "application/x-www-form-urlencoded"}
    posted = await flow.browser.post("/authorize", content=query, headers=headers)
    if query:
        assert_shown(posted)


async def test_a_post_that_is_no_form_is_shown_to_the_person(flow: Flow) -> None:
    assert_shown(await flow.browser.post("/authorize", json=flow.request()))
    assert_shown(await flow.browser.post("/authorize", data={"a": "a" * 20_000}))


async def test_a_redirect_uri_may_be_left_out_where_there_is_one_and_no_openid(new_flow: NewFlow) -> None:
    one = await new_flow(scopes=["read"], consent="read")
    code = sent_back(await one.authorize(redirect_uri=None, scope="read"))["code"]
    assert (await one.redeem(code)).status_code == 400
    assert (await one.redeem(code, redirect_uri=None)).status_code == 200
    assert_shown(await (await new_flow()).authorize(redirect_uri=None))
    two = await new_flow(scopes=["read"], redirect_uris=[CALLBACK, f"{APP}/b"])
    assert_shown(await two.authorize(redirect_uri=None, scope="read"))


async def test_a_request_without_scope_is_no_openid_connect(new_flow: NewFlow) -> None:
    flow = await new_flow(scopes=["openid", "read", "write", "offline_access"], consent="read write")
    tokens = await flow.tokens(scope=None)
    assert tokens["scope"] == "read write"
    assert "id_token" not in tokens
    nothing = await new_flow(scopes=["openid"])
    assert sent_back(await nothing.authorize(scope=None))["error"] == "invalid_scope"


LOOPBACK: Mapping[str, tuple[str, str, bool]] = {
    "IPv4, another port": ("http://127.0.0.1/cb", "http://127.0.0.1:51004/cb", True),
    "IPv4, other ports": ("http://127.0.0.1:8000/cb?a=b", "http://127.0.0.1:9/cb?a=b", True),
    "IPv4, no port": ("http://127.0.0.1:8000/cb", "http://127.0.0.1/cb", True),
    "IPv6": ("http://[::1]/cb", "http://[::1]:51004/cb", True),
    "no path": ("http://127.0.0.1", "http://127.0.0.1:51004", True),
    "another path": ("http://127.0.0.1/cb", "http://127.0.0.1:51004/other", False),
    "another query": ("http://127.0.0.1/cb", "http://127.0.0.1:51004/cb?x", False),
    "a fragment": ("http://127.0.0.1/cb", "http://127.0.0.1:51004/cb#x", False),
    "the other one": ("http://127.0.0.1/cb", "http://[::1]:51004/cb", False),
    "https": ("https://127.0.0.1/cb", "https://127.0.0.1:51004/cb", False),
    "by name": ("http://localhost/cb", "http://localhost:51004/cb", False),
    "a name for it": ("http://127.0.0.1/cb", "http://localhost:51004/cb", False),
    "a name that begins alike": ("http://127.0.0.1/cb", "http://127.0.0.1.evil.example/cb", False),
    "a user": ("http://127.0.0.1/cb", "http://127.0.0.1:80@evil.example/cb", False),
    "a user without port": ("http://127.0.0.1/cb", "http://127.0.0.1@evil.example/cb", False),
    "another user": ("http://127.0.0.1/cb", "http://user@127.0.0.1:80/cb", False),
    "a decimal address": ("http://127.0.0.1/cb", "http://2130706433:80/cb", False),
    "a short address": ("http://127.0.0.1/cb", "http://127.1:80/cb", False),
    "another address": ("http://127.0.0.1/cb", "http://127.0.0.2:80/cb", False),
    "an octal address": ("http://127.0.0.1/cb", "http://0177.0.0.1:80/cb", False),
    "IPv6 written out": ("http://[::1]/cb", "http://[0:0:0:0:0:0:0:1]:80/cb", False),
    "IPv4 inside IPv6": ("http://127.0.0.1/cb", "http://[::ffff:127.0.0.1]:80/cb", False),
    "no number": ("http://127.0.0.1/cb", "http://127.0.0.1:port/cb", False),
    "other digits": ("http://127.0.0.1/cb", "http://127.0.0.1:٨٠/cb", False),
    "an empty port": ("http://127.0.0.1/cb", "http://127.0.0.1:/cb", False),
    "a long port": ("http://127.0.0.1/cb", "http://127.0.0.1:000080/cb", False),
    "a backslash": ("http://127.0.0.1/cb", "http://127.0.0.1\\.evil.example/cb", False),
    "a line": ("http://127.0.0.1", "http://127.0.0.1:80\n", False),
    "an app's own": ("com.example.app:/cb", "com.example.app:/cb", True),
}


@pytest.mark.parametrize("case", LOOPBACK)
async def test_on_loopback_and_nowhere_else_the_port_may_differ(new_flow: NewFlow, case: str) -> None:
    """RFC 8252 §7.3."""
    registered, requested, is_fine = LOOPBACK[case]
    flow = await new_flow(is_public=True, redirect_uris=[registered])
    answer = await flow.authorize(redirect_uri=requested)
    if not is_fine:
        assert_shown(answer)
        return
    assert answer.headers["location"].startswith(requested)
    code = dict(parse_qsl(urlsplit(answer.headers["location"]).query))["code"]
    assert (await flow.redeem(code, redirect_uri=registered)).status_code == (200 if registered == requested else 400)
    assert (await flow.redeem(code, redirect_uri=requested)).status_code == (400 if registered == requested else 200)


# Who is signed in


@pytest.fixture
async def stranger(new_flow: NewFlow) -> Flow:
    """Somebody who has agreed once, and is not signed in."""
    return await new_flow(is_signed_in=False)


async def sign_in(flow: Flow) -> None:
    await signed_in_browser(flow.services, flow.browser, flow.user)


async def test_who_is_not_signed_in_does_that_first_and_comes_back(stranger: Flow) -> None:
    asked = sent_to(await stranger.authorize(login_hint="ada", ui_locales="de en"), "/login")
    assert asked.keys() == {"continue", "client_id", "login_hint", "ui_locales"}
    assert (asked["client_id"], asked["login_hint"], asked["ui_locales"]) == (stranger.app.client_id, "ada", "de en")
    await sign_in(stranger)
    assert "code" in sent_back(await back(stranger, asked["continue"]))


async def test_nobody_is_asked_where_nobody_may_be(stranger: Flow) -> None:
    assert sent_back(await stranger.authorize(prompt="none"))["error"] == "login_required"
    await sign_in(stranger)
    assert "code" in sent_back(await stranger.authorize(prompt="none"))


async def test_a_stranger_leaves_no_row(stranger: Flow) -> None:
    async def rows() -> list[int]:
        async with stranger.services.db.read() as tx:
            tables = Base.metadata.sorted_tables
            return [await tx.scalar(select(func.count()).select_from(table)) or 0 for table in tables]

    before = await rows()
    for changes in ({}, {"prompt": "none"}, {"scope": "x"}, {"redirect_uri": "https://evil.example"}):
        await stranger.authorize(**changes)
    assert await rows() == before


@pytest.mark.parametrize("prompt", ["login", "select_account", "login consent"])
async def test_signing_in_anew_is_asked_once(flow: Flow, prompt: str) -> None:
    with freeze_time(clock.now() + timedelta(minutes=5), tick=True, real_asyncio=True):
        asked = sent_to(await flow.authorize(prompt=prompt), "/login")
        assert asked["prompt"] == prompt.removesuffix(" consent")
        sent_to(await back(flow, asked["continue"]), "/login")  # without having signed in
        await sign_in(flow)
        await agreed(flow.services, flow.user, flow.app)
        assert "code" in sent_back(await back(flow, asked["continue"]))
        sent_to(await flow.authorize(prompt=prompt), "/login")  # another request


@pytest.mark.parametrize("prompt", ["select_account", "select_account consent"])
async def test_whoever_chooses_the_account_of_the_browser_need_not_prove_it(flow: Flow, prompt: str) -> None:
    with freeze_time(clock.now() + timedelta(minutes=5), tick=True, real_asyncio=True):
        asked = sent_to(await flow.authorize(prompt=prompt), "/login")
        answer = await back(flow, asked["continue"] + "&chosen=1")
        if "consent" in prompt:
            await agreed(flow.services, flow.user, flow.app)
            answer = await back(flow, sent_to(answer, "/consent")["continue"])
        assert "code" in sent_back(answer)


async def test_to_choose_is_not_to_sign_in_and_needs_a_ticket(flow: Flow) -> None:
    with freeze_time(clock.now() + timedelta(minutes=5), tick=True, real_asyncio=True):
        asked = sent_to(await flow.authorize(prompt="login select_account"), "/login")
        assert asked["prompt"] == "select_account"
        assert sent_to(await back(flow, asked["continue"] + "&chosen=1"), "/login")["prompt"] == "login"
    sent_to(await flow.authorize(prompt="select_account", chosen="1"), "/login")


async def test_who_has_signed_in_too_long_ago_does_it_anew(flow: Flow) -> None:
    start = clock.now()
    with freeze_time(start + timedelta(seconds=100), tick=True, real_asyncio=True):
        assert "code" in sent_back(await flow.authorize(max_age="200"))
        assert sent_back(await flow.authorize(max_age="50", prompt="none"))["error"] == "login_required"
        asked = sent_to(await flow.authorize(max_age="50"), "/login")
        assert asked["prompt"] == "login"
        await sign_in(flow)
    with freeze_time(start + timedelta(seconds=300), tick=True, real_asyncio=True):  # reading what they agree to
        assert "code" in sent_back(await back(flow, asked["continue"]))


async def test_max_age_of_zero_is_signing_in_anew(flow: Flow) -> None:
    asked = sent_to(await flow.authorize(max_age="0"), "/login")
    await sign_in(flow)
    assert "code" in sent_back(await back(flow, asked["continue"]))


async def test_a_client_may_have_a_max_age_of_its_own(new_flow: NewFlow) -> None:
    flow = await new_flow(default_max_age=50)
    with freeze_time(clock.now() + timedelta(seconds=100), tick=True, real_asyncio=True):
        sent_to(await flow.authorize(), "/login")
        assert "code" in sent_back(await flow.authorize(max_age="200"))


@pytest.mark.parametrize("changes", [{"prompt": "login consent"}, {"max_age": "0"}], ids=["prompt", "max_age"])
async def test_who_has_signed_in_and_then_taken_time_to_read_is_not_asked_again(
    new_flow: NewFlow, changes: dict[str, str]
) -> None:
    flow, start = await new_flow(consent=None), clock.now()
    with freeze_time(start + timedelta(minutes=1), tick=True, real_asyncio=True):
        login = sent_to(await flow.authorize(**changes), "/login")
    with freeze_time(start + timedelta(minutes=2), tick=True, real_asyncio=True):
        await sign_in(flow)
    with freeze_time(start + timedelta(minutes=3), tick=True, real_asyncio=True):
        consent = sent_to(await back(flow, login["continue"]), "/consent")
    with freeze_time(start + timedelta(minutes=4), tick=True, real_asyncio=True):
        await agreed(flow.services, flow.user, flow.app)
        assert "code" in sent_back(await back(flow, consent["continue"]))


async def test_a_ticket_is_for_one_request_and_one_hour_and_nobody_can_make_one(flow: Flow) -> None:
    with freeze_time(clock.now() + timedelta(minutes=5), tick=True, real_asyncio=True):
        there = sent_to(await flow.authorize(prompt="login"), "/login")["continue"]
        await sign_in(flow)
        ticket = dict(parse_qsl(urlsplit(there).query))["ticket"]
        issued_at, _, mac = ticket.partition(".")
        for wrong in (f"{int(issued_at) - 1}.{mac}", f"{issued_at}.{mac[:-1]}", issued_at, "", f"x.{mac}", "٣.x"):
            sent_to(await back(flow, there.replace(quote(ticket), quote(wrong))), "/login")
        sent_to(await back(flow, there.replace("the+state", "another")), "/login")
        sent_to(await flow.authorize(prompt="login", state="another", ticket=ticket), "/login")
        assert "code" in sent_back(await back(flow, there))
    with freeze_time(clock.now() + timedelta(minutes=66), tick=True, real_asyncio=True):
        sent_to(await back(flow, there), "/login")


async def test_refusing_is_heard_only_with_a_ticket(stranger: Flow) -> None:
    there = sent_to(await stranger.authorize(), "/login")["continue"]
    refused = sent_back(await back(stranger, f"{there}&refused=login"))
    assert (refused["error"], refused["state"]) == ("access_denied", "the state")
    sent_to(await stranger.authorize(refused="login"), "/login")
    sent_to(await stranger.authorize(refused="login", ticket="1.x"), "/login")


async def test_the_ticket_is_not_the_client_s_to_see(stranger: Flow) -> None:
    there = sent_to(await stranger.authorize(), "/login")["continue"]
    await sign_in(stranger)
    assert sent_back(await back(stranger, there)).keys() == {"code", "state", "iss"}


async def test_a_browser_is_as_signed_in_as_its_user_still_is(flow: Flow) -> None:
    async with flow.services.db.write() as tx:
        await tx.execute(update(User).where(User.id == flow.user.id).values(generation=User.generation + 1))
    sent_to(await flow.authorize(), "/login")


# Who it must be


async def hint_of(flow: Flow) -> str:
    return str((await flow.tokens())["id_token"])


async def test_a_hint_at_who_is_signed_in_changes_nothing(flow: Flow) -> None:
    hint = await hint_of(flow)
    for prompt in (None, "none"):
        assert "code" in sent_back(await flow.authorize(id_token_hint=hint, prompt=prompt))
    with freeze_time(clock.now() + timedelta(hours=2), tick=True, real_asyncio=True):
        assert "code" in sent_back(await flow.authorize(id_token_hint=hint, prompt="none")), "it may have expired"


async def test_a_hint_at_somebody_else_asks_them_to_sign_in(flow: Flow, new_user: NewUser) -> None:
    hint, other = await hint_of(flow), await new_user()
    with freeze_time(clock.now() + timedelta(minutes=5), tick=True, real_asyncio=True):
        await signed_in_browser(flow.services, flow.browser, other)
        await agreed(flow.services, other, flow.app)
        assert sent_back(await flow.authorize(id_token_hint=hint, prompt="none"))["error"] == "login_required"
        with freeze_time(clock.now() + timedelta(minutes=5), tick=True, real_asyncio=True):
            there = sent_to(await flow.authorize(id_token_hint=hint), "/login")["continue"]
            await signed_in_browser(flow.services, flow.browser, other)
            assert sent_back(await back(flow, there))["error"] == "login_required", "it is still somebody else"
            await sign_in(flow)
            assert "code" in sent_back(await back(flow, there))


async def test_only_our_own_id_tokens_are_hints(flow: Flow) -> None:
    tokens = await flow.tokens()
    changed = tokens["id_token"][:-2] + ("AA" if not tokens["id_token"].endswith("AA") else "BB")
    for hint in (tokens["access_token"], changed):
        assert sent_back(await flow.authorize(id_token_hint=hint))["error"] == "invalid_request"


@pytest.mark.parametrize("form", ["value", "values"])
@pytest.mark.parametrize("member", ["id_token", "userinfo"])
async def test_a_client_may_ask_for_one_user(flow: Flow, new_user: NewUser, form: str, member: str) -> None:
    def wish(subject: object) -> str:
        return json.dumps({member: {"sub": {form: subject if form == "value" else [subject]}}})

    assert "code" in sent_back(await flow.authorize(claims=wish(str(flow.user.id)), prompt="none"))
    other = str((await new_user()).id)
    for somebody in (other, "x", 1):
        assert sent_back(await flow.authorize(claims=wish(somebody), prompt="none"))["error"] == "login_required"
    with freeze_time(clock.now() + timedelta(minutes=5), tick=True, real_asyncio=True):
        sent_to(await flow.authorize(claims=wish(other)), "/login")


# What they agree to


@pytest.fixture
async def newcomer(new_flow: NewFlow) -> Flow:
    """Somebody who is signed in, and has not agreed to anything."""
    return await new_flow(consent=None, scopes=["openid", "profile", "email", "offline_access"])


async def test_a_new_client_is_agreed_to_once(newcomer: Flow) -> None:
    assert sent_back(await newcomer.authorize(prompt="none"))["error"] == "consent_required"
    asked = sent_to(await newcomer.authorize(ui_locales="de"), "/consent")
    assert asked.keys() == {"continue", "client_id", "scope", "ui_locales"}
    assert (asked["client_id"], asked["scope"]) == (newcomer.app.client_id, SCOPE)
    await agreed(newcomer.services, newcomer.user, newcomer.app, asked["scope"])
    assert "code" in sent_back(await back(newcomer, asked["continue"]))
    assert "code" in sent_back(await newcomer.authorize(prompt="none"))
    assert "code" in sent_back(await newcomer.authorize(scope="openid", prompt="none"))
    assert sent_back(await newcomer.authorize(scope="openid offline_access", prompt="none"))["error"]


async def test_openid_alone_is_agreed_to_as_well(newcomer: Flow) -> None:
    assert sent_to(await newcomer.authorize(scope="openid"), "/consent")["scope"] == "openid"


async def test_who_does_not_agree_sends_the_client_away(newcomer: Flow) -> None:
    there = sent_to(await newcomer.authorize(), "/consent")["continue"]
    assert sent_back(await back(newcomer, f"{there}&refused=consent"))["error"] == "access_denied"


async def test_consent_may_be_asked_for_again(flow: Flow) -> None:
    with freeze_time(clock.now() + timedelta(minutes=5), tick=True, real_asyncio=True):
        there = sent_to(await flow.authorize(prompt="consent"), "/consent")["continue"]
        sent_to(await back(flow, there), "/consent")
        await agreed(flow.services, flow.user, flow.app)
        assert "code" in sent_back(await back(flow, there))
        sent_to(await flow.authorize(prompt="consent"), "/consent")


async def test_nobody_is_asked_about_the_operator_s_own_applications(new_flow: NewFlow) -> None:
    flow = await new_flow(consent=None, is_trusted=True)
    assert (await flow.tokens(prompt="none"))["scope"] == SCOPE
    sent_to(await flow.authorize(prompt="consent"), "/consent")


async def test_a_claim_asked_for_by_name_is_agreed_to_as_its_scope(newcomer: Flow) -> None:
    claims = json.dumps({"userinfo": {"email": None, "unknown": None}, "id_token": {"preferred_username": None}})
    asked = sent_to(await newcomer.authorize(scope="openid", claims=claims), "/consent")
    assert set(asked["scope"].split(" ")) == {"openid", "email", "profile"}
    await agreed(newcomer.services, newcomer.user, newcomer.app, asked["scope"])
    tokens = await newcomer.tokens(scope="openid", claims=claims)
    assert tokens["scope"] == "openid"
    assert claims_of(tokens["id_token"])["preferred_username"] == newcomer.user.username


async def test_claims_beyond_the_client_s_scopes_are_left_out(new_flow: NewFlow) -> None:
    flow = await new_flow(scopes=["openid"], consent="openid")
    claims = json.dumps({"id_token": {"preferred_username": {"essential": True}}})
    assert "preferred_username" not in claims_of((await flow.tokens(scope="openid", claims=claims))["id_token"])


async def test_an_acr_that_there_is_can_be_essential(flow: Flow) -> None:
    claims = json.dumps({"id_token": {"acr": {"essential": True, "values": ["9", "1"]}}})
    assert claims_of((await flow.tokens(claims=claims))["id_token"])["acr"] == "1"


async def test_who_may_not_have_offline_access_is_not_refused_for_it(flow: Flow) -> None:
    """OpenID Connect Core §11: then it is ignored."""
    assert (await flow.tokens(scope="openid offline_access"))["scope"] == "openid"


# Around it


async def test_no_other_site_may_read_it(client_with: Any, flow: Flow) -> None:
    browser = await client_with(cors_origins=[APP])
    for method in ("GET", "OPTIONS"):
        answer = await browser.request(method, "/authorize", headers={"Origin": APP})
        assert not any(name.startswith("access-control") for name in answer.headers)


async def test_a_code_costs_two_statements(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who it is and what they allow, and the code; the client is asked for once in a second."""
    asked: list[Statement] = []
    ask = Database.ask

    async def counted(db: Database, statement: Statement, values: Any, tx: AsyncSession | None = None) -> Any:
        if tx is None:
            asked.append(statement)
        return await ask(db, statement, values, tx)

    monkeypatch.setattr(Database, "ask", counted)
    await flow.code()
    assert len(asked) <= 3
    asked.clear()
    await flow.code()
    assert len(asked) == 2


async def test_the_database_holds_no_code(flow: Flow) -> None:
    code = await flow.code()
    async with flow.services.db.read() as tx:
        query = select(AuthorizationCode.__table__).where(AuthorizationCode.client_id == flow.app.client_id)
        row = (await tx.execute(query)).one()
    assert all(str(value) not in code for value in row if len(str(value)) > 4)
