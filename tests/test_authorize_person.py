"""Who must sign in, choose or agree at /authorize before there is a code (OpenID Connect Core §3.1.2.1 to §3.1.2.4)."""

import json
from datetime import timedelta
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import pytest
from freezegun import freeze_time
from sqlalchemy import func, select, update

from authserver import clock
from authserver.db import Base
from authserver.users.models import User
from tests.code_flow import SCOPE, Flow, NewFlow, sent_back, sent_to
from tests.factories import NewUser, agreed, claims_of, signed_in_browser


@pytest.fixture
async def flow(new_flow: NewFlow) -> Flow:
    """Somebody who is signed in and has agreed."""
    return await new_flow()


async def back(flow: Flow, address: str) -> httpx.Response:
    """Have the browser come back from one of our pages, to where the page sends it."""
    assert address.startswith("/authorize?")
    return await flow.browser.get(address)


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
    for _ in range(2):  # a refresh and its retry: OpenID Connect Core §12.2
        renewed = (await newcomer.refresh(tokens["refresh_token"])).json()
        assert claims_of(renewed["id_token"])["preferred_username"] == newcomer.user.username


async def test_claims_beyond_the_client_s_scopes_are_left_out(new_flow: NewFlow) -> None:
    flow = await new_flow(scopes=["openid"], consent="openid")
    claims = json.dumps({"id_token": {"preferred_username": {"essential": True}}})
    assert "preferred_username" not in claims_of((await flow.tokens(scope="openid", claims=claims))["id_token"])


async def test_an_acr_that_there_is_can_be_essential(flow: Flow) -> None:
    claims = json.dumps({"id_token": {"acr": {"essential": True, "values": ["9", "1"]}}})
    assert claims_of((await flow.tokens(claims=claims))["id_token"])["acr"] == "1"


async def test_who_may_not_have_offline_access_is_not_refused_for_it(flow: Flow) -> None:
    """OpenID Connect Core §11: then it is ignored, at a refresh that repeats the scope too."""
    asked = "openid offline_access"
    tokens = await flow.tokens(scope=asked)
    assert tokens["scope"] == "openid"
    assert (await flow.refresh(tokens["refresh_token"], scope=asked)).json()["scope"] == "openid"
    assert sent_back(await flow.authorize(scope="offline_access"))["error"] == "invalid_scope"
