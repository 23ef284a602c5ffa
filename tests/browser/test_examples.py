"""The applications of docs/examples, used by a person in a browser."""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page, expect

from tests.application import ROOT, Program, environment
from tests.browser import people
from tests.factories import App, NewClient, NewUser
from tests.servers import LOOPBACK, free_port

EXAMPLES = ROOT / "docs" / "examples"
Serve = Callable[..., Awaitable[Program]]
Start = Callable[..., Awaitable[None]]

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("backend", ["postgres"], indirect=True)]
"""What an application sees does not depend on the database; tests/interop does the same flows on both."""


@pytest.fixture
def url() -> str:
    """Where the application will be."""
    return f"http://{LOOPBACK}:{free_port()}"


@pytest.fixture
def start(url: str, tmp_path: Path) -> Iterator[Start]:
    """Start an application's process, and wait until it answers at `url`."""
    processes: list[subprocess.Popen[bytes]] = []

    async def start(*arguments: str, **settings: str) -> None:
        with (tmp_path / "example.log").open("wb") as log:
            command = [sys.executable, *arguments]
            process = subprocess.Popen(command, env=environment(settings), stdout=log, stderr=log)  # noqa: ASYNC220
            processes.append(process)
        deadline = time.monotonic() + 30
        async with httpx.AsyncClient(base_url=url) as client:
            while time.monotonic() < deadline and processes[-1].poll() is None:
                try:
                    assert (await client.get("/")).status_code == 200
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                else:
                    return
        pytest.fail((tmp_path / "example.log").read_text())

    yield start
    for process in processes:
        process.terminate()
        process.wait(10)


@pytest.fixture
async def server_side(
    only_programs_deliver: None, serve: Serve, new_client: NewClient, start: Start, url: str
) -> tuple[Program, App]:
    """Run the server-side application, beside a server where it is registered as its README says."""
    app = await new_client(
        grants=["authorization_code"],
        redirect_uris=[f"{url}/callback"],
        post_logout_redirect_uris=[f"{url}/"],
        backchannel_logout_uri=f"{url}/backchannel-logout",
    )
    program = await serve()
    assert app.secret
    told = {"ISSUER": program.url, "URL": url, "CLIENT_ID": app.client_id, "CLIENT_SECRET": app.secret}
    await start(str(EXAMPLES / "server_side" / "app.py"), **told)
    return program, app


@pytest.fixture
async def single_page(serve: Serve, new_client: NewClient, start: Start, url: str, tmp_path: Path) -> Program:
    """Serve the single-page app's files, beside a server where it is registered as its README says."""
    app = await new_client(
        grants=["authorization_code", "refresh_token"],
        is_public=True,
        redirect_uris=[f"{url}/"],
        post_logout_redirect_uris=[f"{url}/"],
    )
    program = await serve(cors_origins=url)
    files = tmp_path / "single_page"
    shutil.copytree(EXAMPLES / "single_page", files)
    index = (files / "index.html").read_text()
    index = index.replace("http://127.0.0.1:8000", program.url).replace('"my-spa"', f'"{app.client_id}"')
    (files / "index.html").write_text(index)
    port = url.rpartition(":")[2]
    await start("-m", "http.server", port, "--bind", LOOPBACK, "--directory", str(files))
    return program


async def test_the_server_side_application_signs_in_and_out(
    server_side: tuple[Program, App], page: Page, url: str, new_user: NewUser
) -> None:
    user = await new_user()
    await page.goto(url)
    await page.get_by_role("link", name="Sign in").click()
    await people.sign_in(page, user)
    await people.allow(page)
    await expect(page.get_by_text(f"Hello {user.username} ({user.email}).")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_text("Nobody is signed in.")).to_be_visible()
    assert page.url.startswith(url)
    await page.get_by_role("link", name="Sign in").click()
    await expect(page.get_by_label("Password")).to_be_visible()  # authserver has signed the browser out, too


async def test_the_server_side_application_takes_a_no(
    server_side: tuple[Program, App], page: Page, url: str, new_user: NewUser
) -> None:
    await page.goto(f"{url}/login")
    await people.sign_in(page, await new_user())
    await page.get_by_role("button", name="Don’t allow").click()
    await expect(page.get_by_text("You are not signed in: access_denied.")).to_be_visible()


async def test_who_signs_out_elsewhere_is_signed_out_of_the_server_side_application(
    server_side: tuple[Program, App], page: Page, url: str, new_user: NewUser
) -> None:
    program, _ = server_side
    user = await new_user()
    await page.goto(f"{url}/login")
    await people.sign_in(page, user)
    await people.allow(page)
    await expect(page.get_by_text(f"Hello {user.username}")).to_be_visible()
    await people.sign_out(page, program.url)
    await expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    for _ in range(100):
        await page.goto(url)
        if await page.get_by_text("Nobody is signed in.").count():
            return
        await asyncio.sleep(0.2)
    pytest.fail("it was not told")


async def test_the_server_side_application_refuses_what_is_not_from_the_server(
    server_side: tuple[Program, App], url: str
) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        for token in ("", "x", "a.b.c"):
            answer = await client.post("/backchannel-logout", data={"logout_token": token})
            assert answer.status_code == 400
        forged = await client.get("/callback", params={"code": "x", "state": "x", "iss": server_side[0].url})
        assert (forged.status_code, "not signed in" in forged.text) == (400, True)
        of_nobody = await client.get("/callback", params={"code": "x", "state": "x"})
        assert (of_nobody.status_code, "not from authserver" in of_nobody.text) == (400, True)


async def test_the_single_page_app_signs_in_refreshes_and_signs_out(
    single_page: Program, page: Page, url: str, new_user: NewUser
) -> None:
    user, problems = await new_user(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.goto(url)
    await expect(page.get_by_role("status")).to_have_text("Nobody is signed in.")
    await page.get_by_role("button", name="Sign in").click()
    await people.sign_in(page, user)
    await people.allow(page)
    await expect(page.get_by_role("status")).to_have_text(f"Hello {user.username} ({user.email}).")
    assert page.url == f"{url}/"
    for count in (1, 2):
        await page.get_by_role("button", name="Refresh").click()
        await expect(page.get_by_role("status")).to_contain_text(f"Refreshed: {count}.")

    await page.reload()  # what was in memory is gone; neither password nor consent is asked for again
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("status")).to_contain_text(f"Hello {user.username}")

    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("status")).to_have_text("Nobody is signed in.")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_label("Password")).to_be_visible()
    assert problems == []


async def test_the_single_page_app_takes_no_answer_to_another_question(
    single_page: Program, page: Page, url: str
) -> None:
    await page.goto(f"{url}/?code=a-code-of-somebody-else&state=x&iss={single_page.url}")
    await expect(page.get_by_role("status")).to_contain_text("This answer is not to a question of ours.")
