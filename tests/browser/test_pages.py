"""A person in Chromium signs in, allows, denies, signs out, and does what people do besides."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from tests.application import Program
from tests.browser import application, pictures
from tests.code_flow import challenge_of
from tests.factories import PASSWORD, App, NewClient, NewUser, Person


@dataclass
class Visit:
    """One person in front of one browser, an application, and us."""

    page: Page
    url: str
    user: Person
    app: App
    callback: str

    async def begin(self, **changes: str) -> None:
        """Press "Sign in" at the application."""
        usual = {
            "response_type": "code", "client_id": self.app.client_id, "redirect_uri": self.callback,
            "scope": "openid profile", "state": "s", "code_challenge": challenge_of("x" * 43),
            "code_challenge_method": "S256",
        }  # fmt: skip
        await self.page.goto(f"{self.url}/authorize?{urlencode(usual | changes)}")

    async def sign_in(self, password: str = PASSWORD) -> None:
        """Fill in the form and press Enter."""
        await self.page.get_by_label("Username").fill(self.user.username)
        await self.page.get_by_label("Password").fill(password)
        await self.page.keyboard.press("Enter")

    async def arrived(self, with_what: str) -> None:
        """See the application's own page, two origins on."""
        await expect(self.page.get_by_role("heading")).to_have_text(f"Welcome: {with_what}")


@pytest.fixture(scope="module")
def callback() -> Iterator[str]:
    with application.running() as uri:
        yield uri


ONCE = pytest.mark.parametrize("backend", ["postgres"], indirect=True)
"""What the browser sees does not depend on the database; tests/test_pages_….py run on both."""
BOTH_WAYS = pytest.mark.parametrize("visit", ["with scripts", "without scripts"], indirect=True)


@pytest.fixture
async def visit(
    request: pytest.FixtureRequest,
    browser: Browser,
    callback: str,
    program: Program,
    new_user: NewUser,
    new_client: NewClient,
) -> AsyncIterator[Visit]:
    """A visit in which the browser must not complain of anything."""
    user = await new_user()
    app = await new_client(grants=["authorization_code", "refresh_token"], redirect_uris=[callback])
    context = await browser.new_context(
        java_script_enabled=getattr(request, "param", "") != "without scripts", locale="en-GB"
    )
    page = await context.new_page()
    page.set_default_timeout(20_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield Visit(page, program.url, user, app, callback)
    await context.close()
    assert [text for text in complaints if "the server responded with a status of 4" not in text] == []


@ONCE
@BOTH_WAYS
async def test_signing_in_and_allowing_leads_back_to_the_application(visit: Visit) -> None:
    await visit.begin()
    await visit.sign_in("not the password")
    await expect(visit.page.get_by_role("alert")).to_contain_text("do not fit together")
    await expect(visit.page.get_by_role("alert")).to_be_focused()
    await expect(visit.page.get_by_label("Username")).to_have_value(visit.user.username)
    await visit.sign_in()
    await expect(visit.page.get_by_role("heading")).to_have_text("May A client of the tests use your account?")
    await visit.page.get_by_role("button", name="Allow", exact=True).click()
    await visit.arrived("code")
    await visit.begin()  # nobody is asked twice
    await visit.arrived("code")


@ONCE
async def test_denying_and_cancelling_lead_back_too(visit: Visit) -> None:
    await visit.begin()
    await visit.page.get_by_role("link", name="Cancel and return to A client of the tests").click()
    await visit.arrived("access_denied")
    await visit.begin()
    await visit.sign_in()
    await visit.page.get_by_role("button", name="Don’t allow").click()
    await visit.arrived("access_denied")


@ONCE
async def test_proving_it_again_leads_back_when_the_application_wants_that(visit: Visit) -> None:
    await visit.begin()
    await visit.sign_in()
    await visit.page.get_by_role("button", name="Allow", exact=True).click()
    await visit.arrived("code")
    await visit.begin(prompt="login")
    await expect(visit.page.get_by_label("Username")).to_have_value(visit.user.username)
    await visit.page.get_by_label("Password").fill(PASSWORD)
    await visit.page.get_by_role("button", name=f"Continue as {visit.user.username}").click()
    await visit.arrived("code")
    await visit.begin(prompt="select_account")
    await visit.page.get_by_role("link", name=f"Continue as {visit.user.username}").click()
    await visit.arrived("code")


@ONCE
@BOTH_WAYS
async def test_a_newcomer_makes_an_account_on_the_way(visit: Visit) -> None:
    await visit.begin()
    await visit.page.get_by_role("link", name="Create an account").click()
    name = f"new-{visit.user.username}"
    await visit.page.get_by_label("Username").fill(name)
    await visit.page.get_by_label("E-mail address").fill(f"{name}@example.com")
    await visit.page.get_by_label("Password").fill("short")
    await visit.page.get_by_role("button", name="Create account").click()
    await visit.page.get_by_role("link", name="Use at least 15 characters").click()
    await expect(visit.page.get_by_label("Password")).to_be_focused()
    await visit.page.get_by_label("Password").fill("eleven shy newts hum")
    await visit.page.get_by_role("button", name="Create account").click()
    await expect(visit.page.get_by_text(f"You are signed in as {name}")).to_be_visible()
    await visit.page.get_by_role("button", name="Allow", exact=True).click()
    await visit.arrived("code")


@ONCE
async def test_the_back_button_shows_nothing_after_signing_out(visit: Visit) -> None:
    page = visit.page
    await page.goto(visit.url)  # the address alone, as a newcomer types it
    await visit.sign_in()
    await expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    await page.get_by_role("link", name="Sign out").first.click()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading")).to_have_text("You are signed out")
    for _ in range(3):
        await page.go_back()
        assert visit.user.email not in await page.content()


@ONCE
async def test_two_tabs_both_work(visit: Visit) -> None:
    await visit.begin()
    first = visit.page
    second = visit.page = await first.context.new_page()
    await visit.begin()
    await visit.sign_in()
    await second.get_by_role("button", name="Allow", exact=True).click()
    await visit.arrived("code")
    visit.page = first
    await visit.sign_in()
    await visit.arrived("code")


@ONCE
async def test_an_expired_form_is_shown_again_and_then_works(visit: Visit) -> None:
    await visit.begin()
    field = visit.page.locator("[name=form_token]")
    await field.evaluate("field => { field.value = '1000000000.' + field.value.split('.')[1] }")
    await visit.sign_in()
    await expect(visit.page.get_by_role("alert")).to_contain_text("was open for too long")
    await expect(visit.page.get_by_label("Username")).to_have_value(visit.user.username)
    await expect(visit.page.get_by_label("Password")).to_have_value("")
    await visit.sign_in()
    await expect(visit.page.get_by_role("heading")).to_contain_text("use your account?")


@ONCE
async def test_with_cookies_off_the_page_says_so(visit: Visit) -> None:
    await visit.begin()
    await visit.page.context.clear_cookies()
    await visit.sign_in()
    await expect(visit.page.get_by_role("alert")).to_contain_text("sent no cookie")


@ONCE
async def test_an_application_that_nobody_knows_is_a_page_with_a_number(visit: Visit) -> None:
    await visit.begin(client_id="nobody")
    await expect(visit.page.get_by_role("heading")).to_have_text("That did not work")
    await expect(visit.page.locator("code")).to_have_text(re.compile("^[0-9a-f]{32}$"))


@ONCE
@BOTH_WAYS
async def test_one_signs_out_another_browser(visit: Visit, browser: Browser) -> None:
    await visit.page.goto(visit.url)
    await visit.sign_in()
    elsewhere = await browser.new_context(user_agent="Mozilla/5.0 (Windows NT 10.0) Firefox/140.0", locale="en-GB")
    there = Visit(await elsewhere.new_page(), visit.url, visit.user, visit.app, visit.callback)
    await there.page.goto(visit.url)
    await there.sign_in()
    await expect(there.page.get_by_role("heading", name="Your account")).to_be_visible()
    await visit.page.reload()
    await visit.page.get_by_role("button", name="Sign out there Firefox on Windows").click()
    await expect(visit.page.get_by_role("status")).to_have_text("Signed out there.")
    await there.page.reload()
    await expect(there.page.get_by_role("heading")).to_have_text("Sign in")
    await elsewhere.close()


@pytest.fixture(scope="module")
async def place() -> AsyncIterator[pictures.House]:
    async with pictures.house() as place:
        yield place


@pytest.mark.parametrize(("device", "scheme", "language"), pictures.WAYS)
async def test_everybody_can_use_every_page(
    browser: Browser, place: pictures.House, device: str, scheme: pictures.Scheme, language: str
) -> None:
    """axe-core finds nothing to complain of, and nothing is wider than the window."""
    context = await pictures.open_window(browser, place, device, scheme, language)
    page = await context.new_page()
    for name in pictures.PAGES:
        await pictures.go(page, place, name)
        found = await Axe().run(page)
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
    await context.close()
