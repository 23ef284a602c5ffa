"""The pages as a browser without scripts sees them, for tests."""

import html
import re

import httpx

from tests.factories import PASSWORD, Person

EXPIRED = "This page was open for too long"
NO_COOKIE = "Your browser sent no cookie"
WRONG = "That username and password do not fit together"


def form_token(page: httpx.Response) -> str:
    """Return what a form of the page carries."""
    found = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]


def shown(page: httpx.Response) -> str:
    """Return the text of a page, without tags."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page.text)))


async def submit(browser: httpx.AsyncClient, page: str, to: str | None = None, /, **fields: str) -> httpx.Response:
    """Open a page and send a form of it."""
    token = form_token(await browser.get(page))
    return await browser.post(to or page, data={"form_token": token, **fields})


async def sign_in(browser: httpx.AsyncClient, user: Person, page: str = "/login") -> httpx.Response:
    """Sign in as a person does."""
    answer = await submit(browser, page, username=user.username, password=PASSWORD)
    assert answer.status_code == 303, shown(answer)
    return answer


async def who(browser: httpx.AsyncClient) -> str | None:
    """Return who is signed in in a browser, by the account page."""
    page = await browser.get("/account")
    if page.status_code == 303:
        assert page.headers["location"] == "/login?continue=/account"
        return None
    found = re.search(r"Signed in as ([^ ]+)", shown(page))
    assert found
    return found[1]
