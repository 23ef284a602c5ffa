"""GET and POST /authorize: what is asked and answered (RFC 6749 §4.1, RFC 9700, OpenID Connect Core §3.1.2)."""

import asyncio
import base64
import hashlib
import re
from collections.abc import Mapping
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from authserver.clients.models import Client
from authserver.db import Database
from authserver.sessions.models import AuthorizationCode
from authserver.statement import Statement
from tests.application import ISSUER
from tests.code_flow import CALLBACK, Flow, NewFlow, challenge_of, sent_back

APP = "https://app.example"


@pytest.fixture
async def flow(new_flow: NewFlow) -> Flow:
    """Somebody who is signed in and has agreed."""
    return await new_flow()


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
    others = asyncio.all_tasks() - {asyncio.current_task()}  # what services.py runs in the background asks too

    async def counted(db: Database, statement: Statement, values: Any, tx: AsyncSession | None = None) -> Any:
        if tx is None and asyncio.current_task() not in others:
            asked.append(statement)
        return await ask(db, statement, values, tx)

    monkeypatch.setattr(Database, "ask", counted)
    monkeypatch.setattr(flow.services.clients, "_cache_seconds", 60)  # a second may be over on a busy machine
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
