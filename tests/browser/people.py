"""What a person does on our pages, in a real browser."""

from playwright.async_api import Page

from tests.factories import PASSWORD, Person


async def sign_in(page: Page, user: Person) -> None:
    """Fill in the sign-in page."""
    await page.get_by_label("Username or e-mail").fill(user.username)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()


async def allow(page: Page) -> None:
    """Let the application in."""
    await page.get_by_role("button", name="Allow", exact=True).click()


async def sign_out(page: Page, url: str) -> None:
    """Go to our sign-out page and say yes."""
    await page.goto(f"{url}/logout")
    await page.get_by_role("button", name="Sign out").click()
