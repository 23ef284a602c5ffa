"""/login: signing in in a browser."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from freezegun import freeze_time

from authserver import clock
from authserver.errors import Busy
from authserver.pages.errand import destination
from authserver.services import Services
from authserver.sessions.browser import BrowserSessions
from tests import application
from tests.factories import PASSWORD, NewClient, NewUser
from tests.pages import EXPIRED, NO_COOKIE, WRONG, form_token, shown, sign_in, submit, who

COOKIE = "__Host-authserver_session"


@pytest.mark.parametrize("name", ["username", "email"])
async def test_the_right_password_signs_in(client: httpx.AsyncClient, new_user: NewUser, name: str) -> None:
    user = await new_user()
    answer = await submit(client, "/login", username=getattr(user, name).upper(), password=PASSWORD)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    cookie = answer.headers["set-cookie"].lower()
    for attribute in ("; secure", "; httponly", "; samesite=lax", "; path=/"):
        assert attribute in cookie
    assert "domain" not in cookie
    assert await who(client) == user.username


async def test_everything_that_is_not_right_gets_one_sentence(client: httpx.AsyncClient, new_user: NewUser) -> None:
    user, disabled = await new_user(), await new_user(is_active=False)
    texts = set()
    for username, password in [
        (user.username, "wrong"), ("nobody", PASSWORD), (disabled.username, PASSWORD), ("", ""),
        (user.username, ""), (user.username, "x" * 5000), ("x" * 5000, PASSWORD), ("<b>", "☃"),
    ]:  # fmt: skip
        answer = await submit(client, "/login", username=username, password=password)
        assert answer.status_code == 400
        assert COOKIE not in answer.headers.get("set-cookie", "")
        assert "<b>" not in answer.text
        assert "☃" not in answer.text
        texts.add(shown(answer))
    assert len(texts) == 1
    assert WRONG in texts.pop()
    assert await who(client) is None


async def test_what_was_typed_stays_but_not_the_password(client: httpx.AsyncClient) -> None:
    answer = await submit(client, "/login", username='ada"><i>', password="sesame-in-the-page")
    assert 'value="ada&#34;&gt;&lt;i&gt;"' in answer.text
    assert "sesame" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://auth.example.com.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
async def test_another_sites_form_signs_nobody_in(
    client: httpx.AsyncClient, new_user: NewUser, headers: dict[str, str]
) -> None:
    user = await new_user()
    fields = {"form_token": form_token(await client.get("/login")), "username": user.username, "password": PASSWORD}
    answer = await client.post("/login", data=fields, headers=headers)
    assert answer.status_code == 400
    assert EXPIRED in shown(answer)
    assert await who(client) is None
    ours = {"Origin": application.ISSUER, "Sec-Fetch-Site": "same-origin"}
    assert (await client.post("/login", data=fields, headers=ours)).status_code == 303


@pytest.mark.parametrize(
    "token", ["", "x", "1.x", "9" * 40 + ".x", "٣.x", "-1.x", "1795000000.", "\U0001f511.\U0001f511"]
)
async def test_a_forged_form_signs_nobody_in(client: httpx.AsyncClient, new_user: NewUser, token: str) -> None:
    user = await new_user()
    await client.get("/login")
    fields = {"form_token": token, "username": user.username, "password": PASSWORD}
    answer = await client.post("/login", data=fields)
    assert answer.status_code == 400
    assert EXPIRED in shown(answer)
    assert f'value="{user.username}"' in answer.text


async def test_the_form_of_another_browser_signs_nobody_in(
    client: httpx.AsyncClient, client_with: Callable[..., Any], new_user: NewUser
) -> None:
    user, other = await new_user(), await client_with()
    await client.get("/login")
    foreign = form_token(await other.get("/login"))
    answer = await client.post("/login", data={"form_token": foreign, "username": user.username, "password": PASSWORD})
    assert answer.status_code == 400
    assert EXPIRED in shown(answer)


async def test_an_old_form_is_shown_again_and_then_works(client: httpx.AsyncClient, new_user: NewUser) -> None:
    user = await new_user()
    old = form_token(await client.get("/login"))
    fields = {"form_token": old, "username": user.username, "password": PASSWORD}
    with freeze_time(clock.now() + timedelta(hours=13), tick=True, real_asyncio=True):
        answer = await client.post("/login", data=fields)
        assert answer.status_code == 400
        assert EXPIRED in shown(answer)
        answer = await client.post("/login", data={**fields, "form_token": form_token(answer)})
        assert answer.status_code == 303


async def test_without_cookies_the_page_says_so(client: httpx.AsyncClient, new_user: NewUser) -> None:
    user = await new_user()
    token = form_token(await client.get("/login"))
    client.cookies.clear()
    answer = await client.post("/login", data={"form_token": token, "username": user.username, "password": PASSWORD})
    assert answer.status_code == 400
    assert NO_COOKIE in shown(answer)


async def test_two_tabs_both_work(client: httpx.AsyncClient, new_user: NewUser) -> None:
    user = await new_user()
    tabs = [form_token(await client.get("/login")) for _ in range(2)]
    for token in tabs:
        fields = {"form_token": token, "username": user.username, "password": PASSWORD}
        assert (await client.post("/login", data=fields)).status_code == 303
    assert await who(client) == user.username


async def test_every_proof_gets_a_new_cookie_and_the_old_one_is_worth_nothing(
    client: httpx.AsyncClient, services: Services, new_user: NewUser
) -> None:
    user = await new_user()
    sessions: BrowserSessions = services.browser_sessions
    await sign_in(client, user)
    first = client.cookies[COOKIE]
    before = await sessions.find(first)
    await sign_in(client, user)
    second = client.cookies[COOKIE]
    after = await sessions.find(second)
    assert first != second
    assert await sessions.find(first) is None
    assert before is not None
    assert after is not None
    assert after.browser_session_id == before.browser_session_id  # its applications stay signed in
    assert after.authenticated_at > before.authenticated_at


async def test_a_planted_cookie_is_never_signed_in(
    client: httpx.AsyncClient, services: Services, new_user: NewUser
) -> None:
    user = await new_user()
    planted = "authserver_bs_" + "x" * 43
    client.cookies.set(COOKIE, planted, domain="auth.example.com")
    await sign_in(client, user)
    assert await services.browser_sessions.find(planted) is None


async def test_another_user_takes_the_place_of_the_first(
    client: httpx.AsyncClient, services: Services, new_user: NewUser
) -> None:
    one, other = await new_user(), await new_user()
    await sign_in(client, one)
    first = client.cookies[COOKIE]
    await sign_in(client, other, "/login?another=1")
    assert await who(client) == other.username
    assert await services.browser_sessions.find(first) is None


async def test_who_is_signed_in_proves_it_again_or_changes_to_another(
    client: httpx.AsyncClient, new_user: NewUser
) -> None:
    user = await new_user()
    await sign_in(client, user)
    for prompt, title in (("login", "Confirm that it’s you"), ("select_account", f"Continue as {user.username}?")):
        page = await client.get(f"/login?prompt={prompt}")
        assert title in shown(page)
        assert re.search(rf'<input [^>]*value="{user.username}"[^>]* readonly', page.text)
        assert f'href="/login?prompt={prompt}&amp;another=1"' in page.text
        another = await client.get(f"/login?prompt={prompt}&another=1")
        assert user.username not in another.text


async def test_who_is_to_choose_an_account_goes_on_with_a_click(client: httpx.AsyncClient, new_user: NewUser) -> None:
    user = await new_user()
    await sign_in(client, user)
    page = await client.get(
        "/login", params={"prompt": "select_account", "continue": "/authorize?client_id=x&ticket=1.x"}
    )
    assert 'href="/authorize?client_id=x&amp;ticket=1.x&amp;chosen=1"' in page.text
    assert 'type="password"' not in page.text


async def test_the_page_knows_the_application_and_offers_to_cancel(
    client: httpx.AsyncClient, new_client: NewClient
) -> None:
    app = await new_client()
    back = f"/authorize?client_id={app.client_id}&ticket=1.x"
    page = await client.get("/login", params={"client_id": app.client_id, "continue": back, "login_hint": "ada"})
    assert "to continue to A client of the tests" in shown(page)
    assert f'href="/authorize?client_id={app.client_id}&amp;ticket=1.x&amp;refused=login"' in page.text
    assert 'value="ada"' in page.text
    assert (
        f'href="/signup?continue={quote(back, safe="")}&amp;client_id={app.client_id}&amp;login_hint=ada"' in page.text
    )
    assert "form-action" not in page.headers["content-security-policy"]


@pytest.mark.parametrize("unknown", ["", "nobody", "\0", "x" * 3000, "<script>"], ids=lambda value: repr(value)[:20])
async def test_an_application_that_is_not_there_is_not_named(client: httpx.AsyncClient, unknown: str) -> None:
    page = await client.get("/login", params={"client_id": unknown})
    assert page.status_code == 200
    assert "<script>" not in page.text


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example/authorize?",
        "/\\evil.example",
        "/authorize",
        "/authorized?x",
        "/authorize/../evil?x",
        "/authorize?x\r\nSet-Cookie: a=b",
        "/authorize?x y",
        "/authorize?\\",
        "/authorize?ü",
        "/accounts",
        "/account/../authorize?x",
        "/account/delete",
        "javascript:alert(1)",
        "https://auth.example.com/authorize?x",
        "authorize?x",
        " /authorize?x",
        "/logout",
        "",
        "?",
        "/login?continue=/account",
    ],
)
async def test_nobody_is_sent_elsewhere_after_signing_in(
    client: httpx.AsyncClient, new_user: NewUser, wanted: str
) -> None:
    user = await new_user()
    answer = await sign_in(client, user, f"/login?continue={quote(wanted, safe='')}")
    assert answer.headers["location"] == "/account"


@pytest.mark.parametrize(
    "wanted", ["/authorize?client_id=a%20b&state=%22", "/account", "/account#password", "/account?x=1"]
)
async def test_people_go_on_to_where_they_came_from(client: httpx.AsyncClient, new_user: NewUser, wanted: str) -> None:
    user = await new_user()
    answer = await sign_in(client, user, f"/login?continue={quote(wanted, safe='')}")
    assert answer.headers["location"] == wanted


def test_a_proxy_may_serve_us_below_a_path() -> None:
    assert destination("/auth", "/auth/authorize?x") == "/auth/authorize?x"
    assert destination("/auth", "/authorize?x") is None
    assert destination("/auth", "/auth/account") == "/auth/account"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{}", {"Content-Type": "application/json"}),
        (b"", {"Content-Type": "text/plain"}),
        (b"a=%ff", {}),
        (b"a=\xff", {}),
        (b"a=%00", {}),
        (b"a=%0a", {}),
        (b"username=a&username=b", {}),
        (b"&".join(b"a%d=" % number for number in range(50)), {}),
        (b"a=" + b"x" * 20_000, {}),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_no_form_of_ours_sends_is_refused_with_a_page(
    client: httpx.AsyncClient, body: bytes, headers: dict[str, str]
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"} | headers
    answer = await client.post("/login", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "The request cannot be understood" in shown(answer)


async def test_too_many_guesses_are_a_page_with_retry_after(client_with: Callable[..., Any], new_user: NewUser) -> None:
    user = await new_user()
    browser = await client_with(throttle_enabled=True, throttle_account_free_failures=1)
    for _ in range(3):
        answer = await submit(browser, "/login", username=user.username, password="wrong")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"].startswith("text/html")
    assert "too many attempts" in shown(answer)
    answer = await submit(browser, "/login", username=user.username, password=PASSWORD)
    assert answer.status_code == 429  # the right one is not looked at either


async def test_a_full_hashing_queue_is_a_page_with_retry_after(
    client: httpx.AsyncClient, services: Services, new_user: NewUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await new_user()
    monkeypatch.setattr(type(services.hasher), "check_room", _no_room)
    answer = await submit(client, "/login", username=user.username, password=PASSWORD)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "We cannot answer at the moment" in shown(answer)


def _no_room(_hasher: object) -> None:
    raise Busy("full")
