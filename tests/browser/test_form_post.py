"""The answer as a form, in a real browser under its Content-Security-Policy, with JavaScript and without."""

from urllib.parse import parse_qs, urlencode

import pytest
from playwright.async_api import Browser, Route

from authserver import signed_in
from tests.application import Program
from tests.code_flow import CALLBACK, NewFlow


@pytest.mark.parametrize("has_javascript", [True, False], ids=["with JavaScript", "without"])
async def test_the_answer_is_posted_to_the_client(
    browser: Browser, program: Program, new_flow: NewFlow, has_javascript: bool
) -> None:
    flow = await new_flow()
    (cookie,) = flow.browser.cookies.jar
    context = await browser.new_context(java_script_enabled=has_javascript)
    name = signed_in.cookie_name(flow.services.settings).removeprefix("__Host-")
    await context.add_cookies([{"name": name, "value": cookie.value or "", "url": program.url}])
    page, posted, problems = await context.new_page(), [], []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)

    async def callback(route: Route) -> None:
        posted.append((route.request.method, parse_qs(route.request.post_data or "")))
        await route.fulfill(content_type="text/html", body="<h1>Welcome</h1>")

    await page.route(f"{CALLBACK}**", callback)
    await page.goto(f"{program.url}/authorize?{urlencode(flow.request(response_mode='form_post', state='<&>'))}")
    if not has_javascript:
        await page.get_by_role("button", name="Continue").click()
    await page.get_by_role("heading", name="Welcome").wait_for()
    ((method, fields),) = posted
    assert method == "POST"
    assert fields["state"] == ["<&>"]
    assert (await flow.redeem(fields["code"][0])).status_code == 200
    assert problems == []
    await context.close()
