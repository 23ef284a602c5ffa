"""Takes pictures of every page: python -m tests.browser.pictures FOLDER.

On a phone and on a desk, light and dark, in English and German; each is `page-device-scheme-language.png`.
"""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote
from uuid import UUID

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from authserver import migrations
from authserver.clients import registration
from authserver.services import Services
from authserver.sessions import consents
from authserver.settings import Settings
from authserver.users import registration as people
from tests.application import Program
from tests.browser.conftest import FLAGS

PASSWORD = "seven grey herons over the weir"
SIZES = {"phone": (390, 844), "desk": (1280, 800)}
Scheme = Literal["light", "dark"]
WAYS: tuple[tuple[str, Scheme, str], ...] = (
    ("phone", "light", "en"),
    ("phone", "dark", "en"),
    ("desk", "light", "en"),
    ("desk", "dark", "en"),
    ("phone", "light", "de"),
)
"""Device, colours, language."""


@dataclass(frozen=True)
class House:
    """A server with somebody in it, and the application that she uses."""

    url: str
    client_id: str

    @property
    def request(self) -> str:
        """The query of a page to which an application has sent somebody."""
        back = quote(f"/authorize?client_id={self.client_id}", safe="")
        return f"client_id={self.client_id}&continue={back}&scope=openid+profile+email+offline_access"


PAGES = ("login", "wrong", "again", "signup", "faults", "consent", "account", "logout", "signed_out", "error")


async def main(folder: Path) -> None:
    """Take all of them."""
    async with house() as place, async_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for device, scheme, language in WAYS:
            await take(browser, place, folder, device, scheme, language)
        await browser.close()


async def take(browser: Browser, place: House, folder: Path, device: str, scheme: Scheme, language: str) -> None:
    """Walk through all pages as one person with one device."""
    context = await open_window(browser, place, device, scheme, language)
    page = await context.new_page()
    for name in PAGES:
        await go(page, place, name)
        await page.screenshot(path=folder / f"{name}-{device}-{scheme}-{language}.png", full_page=device == "phone")
    await context.close()


async def open_window(browser: Browser, place: House, device: str, scheme: Scheme, language: str) -> BrowserContext:
    """Open a browser of its own on a device."""
    width, height = SIZES[device]
    return await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, locale=language, base_url=place.url
    )


async def go(page: Page, place: House, name: str) -> None:
    """Open a page, in the order of PAGES."""
    match name:
        case "login":
            await page.goto(f"/login?{place.request}")
        case "wrong":
            await fill(page, username="ada", password="seven grey herons")
        case "again":
            await fill(page, username="ada", password=PASSWORD)
            await page.goto(f"/login?{place.request}&prompt=login")
        case "signup":
            await page.goto(f"/signup?{place.request}")
        case "faults":
            await fill(page, username="ada", email="ada@example.org", password="password1234567")
        case "consent":
            await page.goto(f"/consent?{place.request}")
        case "account" | "logout":
            await page.goto(f"/{name}")
        case "signed_out":
            await fill(page)
        case "error":
            await page.goto("/consent")


async def fill(page: Page, **fields: str) -> None:
    """Fill in the form and send it."""
    for name, value in fields.items():
        await page.fill(f"[name={name}]", value)
    await page.click("button.main")


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    """Run a server with Ada, who has allowed two applications, until the block ends."""
    with tempfile.TemporaryDirectory() as directory:
        database = f"sqlite+aiosqlite:///{directory}/pictures.db"
        settings = Settings(_env_file=None, database_url=database, argon2_memory_kib=8, argon2_time_cost=1)
        await asyncio.to_thread(migrations.upgrade, settings)
        async with Services.open(settings) as services:
            client_id = await furnish(services)
        options = {"database_url": database, "product_name": "Lighthouse", "throttle_enabled": False}
        program = Program(Path(directory), options)
        try:
            await program.ready()
            yield House(program.url, client_id)
        finally:
            program.kill()


async def furnish(services: Services) -> str:
    """Add Ada and what she uses; return the client_id of the application that she comes from."""
    new = people.validated(services.settings, username="ada", email="ada@example.com", password=PASSWORD)
    ada = await people.register(services.db, services.hasher, new)
    photos = await add_client(services, "Harbour Photos")
    calendar = await add_client(services, "Tide Calendar")
    async with services.db.write() as tx:
        await consents.give(tx, ada.id, photos, "openid profile email")
        await consents.give(tx, ada.id, calendar, "openid offline_access")
    for client_id, agent in (
        (photos, "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36"),
        (calendar, "TideCalendar/3.1 (iPhone)"),
    ):
        await sign_in(services, ada.id, client_id, agent)
    return photos


async def add_client(services: Services, name: str) -> str:
    """Register an application."""
    scopes = ("openid", "profile", "email", "offline_access")
    new = registration.NewClient(name=name, grants=("password", "refresh_token"), scopes=scopes)
    async with services.db.write() as tx:
        client, _ = registration.create(tx, services.clients, new)
    return client.id


async def sign_in(services: Services, user_id: UUID, client_id: str, agent: str) -> None:
    """Sign Ada in to an application."""
    await services.sessions.start(
        user_id=user_id, username="ada", generation=0, client_id=client_id, grant="authorization_code",
        scope="openid profile", refreshable=True, ip="203.0.113.7", user_agent=agent,
    )  # fmt: skip


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(target))
