"""/account: people see and change their account in a browser."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from authserver import own_account
from authserver.services import Services
from tests import factories
from tests.factories import PASSWORD, NewClient, NewUser, Person, agreed
from tests.pages import EXPIRED, form_token, shown, sign_in, submit, who

NEW_PASSWORD = "nine wet otters on a raft"


async def change(client: httpx.AsyncClient, what: str, /, **fields: str) -> httpx.Response:
    return await submit(client, "/account", f"/account/{what}", **fields)


async def test_whoever_is_not_signed_in_does_that_first(client: httpx.AsyncClient) -> None:
    for path in ("/account", "/account/profile", "/account/delete"):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?continue=/account")
    answer = await client.post("/account/delete", data={"current_password": PASSWORD})
    assert answer.status_code == 303


async def test_the_root_and_the_well_known_address_lead_there(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).headers["location"] == "/account"
    answer = await client.get("/.well-known/change-password")
    assert (answer.status_code, answer.headers["location"]) == (303, "/account#password")


async def test_wherever_a_password_is_asked_for_a_password_manager_sees_whose(
    client: httpx.AsyncClient, new_user: NewUser
) -> None:
    pages = [(await client.get(path)).text for path in ("/login", "/signup")]
    await sign_in(client, await new_user())
    pages.append((await client.get("/account")).text)
    forms = [form for page in pages for form in re.findall(r"<form.*?</form>", page, re.DOTALL) if "-password" in form]
    assert len(forms) == 4
    assert all('autocomplete="username"' in form for form in forms)


async def test_username_and_email_can_be_changed(client: httpx.AsyncClient, new_user: NewUser) -> None:
    user = await new_user()
    await sign_in(client, user)
    name = f"new-{user.username}"
    answer = await change(client, "profile", username=name, email=f"{name}@example.com")
    assert (answer.status_code, answer.headers["location"]) == (303, "/account?done=profile#profile")
    page = await client.get(answer.headers["location"])
    assert "Saved." in shown(page)
    assert f'value="{name}@example.com"' in page.text
    assert await who(client) == name


async def test_what_is_wrong_with_the_profile_is_said_and_what_was_typed_stays(
    client: httpx.AsyncClient, new_user: NewUser
) -> None:
    user, other = await new_user(), await new_user()
    await sign_in(client, user)
    page = await change(client, "profile", username=other.username, email="ada@example.com")
    assert page.status_code == 400
    assert "This username is taken" in shown(page)
    assert f'value="{other.username}"' in page.text
    assert '<a href="#profile-username">' in page.text
    page = await change(client, "profile", username="", email="x")
    assert "Use 3 to 50 letters" in shown(page)
    assert "Give an e-mail address" in shown(page)
    assert await who(client) == user.username


async def test_a_new_password_signs_out_all_others_but_not_this_browser(
    client: httpx.AsyncClient, client_with: Callable[..., Any], new_client: NewClient, new_user: NewUser
) -> None:
    user, app, other = await new_user(), await new_client(), await client_with()
    await sign_in(client, user)
    await sign_in(other, user)
    tokens = (await factories.sign_in(client, app, user)).json()
    answer = await change(client, "password", current_password=PASSWORD, new_password=NEW_PASSWORD)
    assert answer.headers["location"] == "/account?done=password#password"
    assert await who(client) == user.username
    assert await who(other) is None
    refreshed = await client.post(
        "/token",
        data={"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]},
        auth=factories.basic(app),
    )
    assert refreshed.status_code == 400
    assert (await submit(other, "/login", username=user.username, password=PASSWORD)).status_code == 400
    assert (await submit(other, "/login", username=user.username, password=NEW_PASSWORD)).status_code == 303


@pytest.mark.parametrize(
    ("current", "new", "sentence"),
    [
        ("wrong", NEW_PASSWORD, "This is not your current password"),
        ("", NEW_PASSWORD, "This is not your current password"),
        (PASSWORD, "short", "Use at least 15 characters"),
        (PASSWORD, "", "Use at least 15 characters"),
    ],
)
async def test_a_new_password_needs_the_old_one_and_must_be_good(
    client: httpx.AsyncClient, new_user: NewUser, current: str, new: str, sentence: str
) -> None:
    user = await new_user()
    await sign_in(client, user)
    page = await change(client, "password", current_password=current, new_password=new)
    assert page.status_code == 400
    assert sentence in shown(page)
    assert NEW_PASSWORD not in page.text
    assert PASSWORD not in page.text


async def test_people_see_where_they_are_signed_in_and_sign_out_there(
    client: httpx.AsyncClient, client_with: Callable[..., Any], services: Services, new_user: NewUser
) -> None:
    user, phone = await new_user(), await client_with()
    phone.headers["User-Agent"] = "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537 Chrome/140 Mobile Safari/537"
    await sign_in(client, user)
    await sign_in(phone, user)
    text = shown(await client.get("/account"))
    assert "Chrome on Android" in text
    assert "this browser" in text
    there = await services.browser_sessions.find(phone.cookies["__Host-authserver_session"])
    assert there is not None
    answer = await change(client, "sign-out", browser=str(there.browser_session_id))
    assert answer.headers["location"] == "/account?done=sign_out#sign_out"
    assert await who(phone) is None
    assert await who(client) == user.username


async def test_an_applications_sign_in_can_be_ended(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    user, app = await new_user(), await new_client()
    tokens = (await factories.sign_in(client, app, user)).json()
    await sign_in(client, user)
    assert "A client of the tests" in shown(await client.get("/account"))
    session = factories.claims_of(tokens["access_token"])["sid"]
    await change(client, "sign-out", session=session)
    answer = await client.post("/introspect", data={"token": tokens["access_token"]}, auth=factories.basic(app))
    assert answer.json() == {"active": False}


async def test_nobody_signs_out_others(
    client: httpx.AsyncClient,
    client_with: Callable[..., Any],
    services: Services,
    new_client: NewClient,
    new_user: NewUser,
) -> None:
    user, other, app, their_browser = await new_user(), await new_user(), await new_client(), await client_with()
    tokens = (await factories.sign_in(client, app, other)).json()
    await sign_in(their_browser, other)
    theirs = await services.browser_sessions.find(their_browser.cookies["__Host-authserver_session"])
    assert theirs is not None
    await sign_in(client, user)
    for fields in (
        {"session": factories.claims_of(tokens["access_token"])["sid"]},
        {"browser": str(theirs.browser_session_id)},
        {"browser": "x"},
        {"session": "' or 1=1 --"},
        {},
    ):
        assert (await change(client, "sign-out", **fields)).status_code == 303
    assert await who(their_browser) == other.username
    answer = await client.get("/users/me", headers=factories.bearer(tokens["access_token"]))
    assert answer.status_code == 200


async def test_signing_out_everywhere_leaves_nothing(
    client: httpx.AsyncClient, client_with: Callable[..., Any], new_client: NewClient, new_user: NewUser
) -> None:
    user, app, other = await new_user(), await new_client(), await client_with()
    tokens = (await factories.sign_in(client, app, user)).json()
    await sign_in(client, user)
    await sign_in(other, user)
    answer = await change(client, "sign-out", everywhere="1")
    assert answer.headers["location"] == "/logout"
    assert await who(client) is None
    assert await who(other) is None
    answer = await client.get("/users/me", headers=factories.bearer(tokens["access_token"]))
    assert answer.status_code == 401


async def test_consent_can_be_withdrawn_and_ends_what_came_of_it(
    client: httpx.AsyncClient, services: Services, new_client: NewClient, new_user: NewUser
) -> None:
    user, app = await new_user(), await new_client()
    await agreed(services, user, app)
    tokens = (await factories.sign_in(client, app, user)).json()
    await sign_in(client, user)
    assert "Allowed on" in shown(await client.get("/account"))
    answer = await change(client, "withdraw", client_id=app.client_id)
    page = shown(await client.get(answer.headers["location"]))
    assert "Withdrawn." in page
    assert "You have allowed no application" in page
    answer = await client.get("/users/me", headers=factories.bearer(tokens["access_token"]))
    assert answer.status_code == 401


async def test_the_account_is_deleted_only_with_its_password(client: httpx.AsyncClient, new_user: NewUser) -> None:
    user = await new_user()
    await sign_in(client, user)
    page = await change(client, "delete", current_password="wrong")
    assert page.status_code == 400
    assert "This is not your current password" in shown(page)
    assert "<details open>" in page.text
    answer = await change(client, "delete", current_password=PASSWORD)
    assert answer.headers["location"] == "/logout"
    assert await who(client) is None
    assert (await submit(client, "/login", username=user.username, password=PASSWORD)).status_code == 400


async def test_an_account_whose_password_changes_meanwhile_is_not_deleted(
    client: httpx.AsyncClient, new_user: NewUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, confirm = await new_user(), own_account.confirm_password

    async def and_then_sign_out_everywhere(house: Services, *proof: Any) -> Any:
        verified = await confirm(house, *proof)
        await own_account.sign_out_everywhere(house, user.id)
        return verified

    await sign_in(client, user)
    monkeypatch.setattr(own_account, "confirm_password", and_then_sign_out_everywhere)
    assert (await change(client, "delete", current_password=PASSWORD)).status_code == 400
    await sign_in(client, user)
    assert await who(client) == user.username


@pytest.mark.parametrize("what", ["profile", "password", "sign-out", "withdraw", "delete"])
async def test_another_sites_form_changes_nothing(client: httpx.AsyncClient, new_user: NewUser, what: str) -> None:
    user = await new_user()
    await sign_in(client, user)
    fields = everything(user) | {"form_token": form_token(await client.get("/account"))}
    for changes, headers in (
        ({}, {"Origin": "https://evil.example"}),
        ({"form_token": "x"}, {}),
        ({"form_token": form_token(await client.get("/login"))}, {}),
    ):
        page = await client.post(f"/account/{what}", data=fields | changes, headers=headers)
        assert page.status_code == 400
        assert EXPIRED in shown(page)
    assert await who(client) == user.username


def everything(user: Person) -> dict[str, str]:
    return {
        "username": f"x{user.username}", "email": f"x{user.email}", "current_password": PASSWORD,
        "new_password": NEW_PASSWORD, "everywhere": "1",
    }  # fmt: skip


async def test_a_form_still_works_after_a_proof_in_another_tab(client: httpx.AsyncClient, new_user: NewUser) -> None:
    user = await new_user()
    await sign_in(client, user)
    token = form_token(await client.get("/account"))
    await sign_in(client, user)
    fields = {"form_token": token, "username": user.username, "email": user.email}
    assert (await client.post("/account/profile", data=fields)).status_code == 303
