"""A developer presses "Authorize" in Swagger UI and tries an endpoint out."""

from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, expect

from tests.application import Program
from tests.browser import people
from tests.factories import PASSWORD, NewUser

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
"""What a developer has on the first day; tests/test_docs_ui.py runs on both."""


async def test_authorize_signs_in_and_try_it_out_answers(page: Page, program: Program, new_user: NewUser) -> None:
    user = await new_user()
    hosts, problems = set(), []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)

    await page.goto(f"{program.url}/docs")
    await page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".modal-ux")
    password_flow = dialog.locator(".auth-container").filter(has_text="Flow: password").first
    await expect(password_flow.locator("#client_id_password")).to_have_value("docs")
    await password_flow.locator("#oauth_username").fill(user.username)
    await password_flow.locator("#oauth_password").fill(PASSWORD)
    await password_flow.locator("button.authorize").click()
    await expect(password_flow.get_by_text("Logout")).to_be_visible()
    await dialog.get_by_role("button", name="Close").first.click()

    operation = page.locator(".opblock-get").filter(has=page.locator('[data-path="/users/me"]'))
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Try it out").click()
    await operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table")
    await expect(answer.locator(".response-col_status").last).to_contain_text("200")
    await expect(answer).to_contain_text(user.username)

    assert hosts == {urlsplit(program.url).netloc}  # it works without the internet
    assert problems == []


async def test_the_code_flow_opens_our_own_page_and_comes_back_signed_in(
    page: Page, program: Program, new_user: NewUser
) -> None:
    user = await new_user()
    problems: list[str] = []
    await page.goto(f"{program.url}/docs")
    await page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".modal-ux")
    code_flow = dialog.locator(".auth-container").filter(has_text="Flow: authorizationCode").first
    await expect(code_flow.locator("#client_id_authorizationCode")).to_have_value("docs")
    async with page.expect_popup() as opened:
        await code_flow.locator("button.authorize").click()
    popup = await opened.value
    popup.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    await people.sign_in(popup, user)
    async with popup.expect_event("close"):
        await people.allow(popup)
    await expect(code_flow.get_by_text("Logout")).to_be_visible()
    await dialog.get_by_role("button", name="Close").first.click()

    operation = page.locator(".opblock-get").filter(has=page.locator('[data-path="/users/me"]'))
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Try it out").click()
    await operation.get_by_role("button", name="Execute").click()
    await expect(operation.locator(".live-responses-table")).to_contain_text(user.username)
    assert problems == []


async def test_an_answer_to_another_question_is_not_taken(page: Page, program: Program) -> None:
    await page.goto(f"{program.url}/docs")
    await page.get_by_role("button", name="Authorize").first.click()
    code_flow = page.locator(".modal-ux .auth-container").filter(has_text="Flow: authorizationCode").first
    async with page.expect_popup() as opened:
        await code_flow.locator("button.authorize").click()
    popup = await opened.value
    answer = f"{program.url}/docs/oauth2-redirect?code=a-code-of-somebody-else&state=another"
    await popup.wait_for_load_state()
    await popup.evaluate("address => { location.assign(address) }", answer)  # it closes itself
    await expect(code_flow.get_by_text("The answer is not to the question")).to_be_visible()
    await expect(code_flow.get_by_text("Logout")).to_have_count(0)


async def test_the_form_endpoints_show_their_fields(page: Page, program: Program) -> None:
    await page.goto(f"{program.url}/docs")
    operation = page.locator(".opblock-post").filter(has=page.locator('[data-path="/token"]'))
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Try it out").click()
    for field in ("grant_type", "username", "password", "refresh_token", "scope", "client_id", "client_secret"):
        await expect(operation.locator(f'tr[data-property-name="{field}"]')).to_be_visible()
