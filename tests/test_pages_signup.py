"""/signup: making an account in a browser."""

import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.factories import PASSWORD, NewUser
from tests.pages import EXPIRED, form_token, shown, submit, who


def somebody(**changes: str) -> dict[str, str]:
    name = f"ada-{secrets.token_hex(6)}"
    return {"username": name, "email": f"{name}@example.com", "password": PASSWORD} | changes


async def test_signing_up_signs_in_and_goes_on(client: httpx.AsyncClient) -> None:
    fields, back = somebody(), "/authorize?client_id=x"
    answer = await submit(client, f"/signup?continue={quote(back, safe='')}", **fields)
    assert (answer.status_code, answer.headers["location"]) == (303, back)
    assert await who(client) == fields["username"]
    assert fields["password"] not in answer.text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"username": ""}, "Use 3 to 50 letters and digits"),
        ({"username": "a b"}, "Use 3 to 50 letters and digits"),
        ({"username": "<script>alert(1)</script>"}, "Use 3 to 50 letters and digits"),
        ({"email": "nobody"}, "Give an e-mail address"),
        ({"email": '"><img src=x>@example.com'}, "Give an e-mail address"),
        ({"password": ""}, "Use at least 15 characters"),
        ({"password": "short"}, "Use at least 15 characters"),
        ({"password": "x" * 300}, "Use at most 256 characters"),
        ({"password": "kiwikiwikiwikiwikiwi"}, "mostly repeated or neighbouring"),
        ({"password": "an authserver among them"}, "Leave the name of this service out"),
    ],
)
async def test_what_is_wrong_is_said_beside_the_field(
    client: httpx.AsyncClient, changes: dict[str, str], sentence: str
) -> None:
    fields = somebody(**changes)
    page = await submit(client, "/signup", **fields)
    assert page.status_code == 400
    assert sentence in shown(page)
    (field,) = changes
    assert f'<a href="#field-{field}">' in page.text
    assert f'id="field-{field}-why"' in page.text
    assert 'aria-invalid="true"' in page.text
    assert "<script>" not in page.text
    assert "<img src=x" not in page.text
    if fields["password"]:
        assert fields["password"] not in page.text
    assert await who(client) is None


async def test_all_that_is_wrong_is_said_at_once(client: httpx.AsyncClient) -> None:
    page = await submit(client, "/signup", username="a", email="b", password="c")
    for field in ("username", "email", "password"):
        assert f'href="#field-{field}"' in page.text


async def test_a_taken_name_is_said_in_the_readers_language(client: httpx.AsyncClient, new_user: NewUser) -> None:
    user = await new_user()
    page = await submit(client, "/signup?ui_locales=de", **somebody(username=user.username.upper()))
    assert page.status_code == 400
    assert "Dieser Benutzername ist vergeben" in shown(page)
    page = await submit(client, "/signup?ui_locales=de", **somebody(email=user.email))
    assert "Zu dieser E-Mail-Adresse gibt es schon ein Konto" in shown(page)


async def test_another_sites_form_makes_no_account(client: httpx.AsyncClient) -> None:
    fields = {"form_token": form_token(await client.get("/signup")), **somebody()}
    page = await client.post("/signup", data=fields, headers={"Origin": "https://evil.example"})
    assert page.status_code == 400
    assert EXPIRED in shown(page)
    assert f'value="{fields["email"]}"' in page.text
    assert (await client.post("/signup", data=fields)).status_code == 303  # the names are still free


async def test_where_registration_is_off_nobody_is_offered_it(client_with: Callable[..., Any]) -> None:
    browser = await client_with(registration_enabled=False)
    assert "/signup" not in (await browser.get("/login")).text
    token = form_token(await browser.get("/login"))
    for page in (
        await browser.get("/signup"),
        await browser.post("/signup", data={"form_token": token, **somebody()}),
    ):
        assert page.status_code == 403
        assert "New accounts cannot be made here" in shown(page)


async def test_registrations_are_counted_as_those_of_the_api(client_with: Callable[..., Any]) -> None:
    browser = await client_with(throttle_enabled=True, throttle_registrations_per_minute=1, address="192.0.2.77")
    answers = [await submit(browser, "/signup", **somebody()) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 429]
    assert "retry-after" in answers[1].headers
