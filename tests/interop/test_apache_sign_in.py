"""Apache mod_auth_openidc as relying party: a person in a browser signs in through it, and out in every way."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.async_api import Page, expect

from tests.application import Program
from tests.browser import people
from tests.browser.conftest import browser, page
from tests.factories import NewClient
from tests.interop import apache
from tests.interop.apache import directory
from tests.interop.conftest import Actors
from tests.servers import LOOPBACK, free_port

__all__ = ["browser", "directory", "page"]  # fixtures

MODULES = ["mpm_event", "authn_core", "authz_core", "authz_user", "dir", "include", "auth_openidc"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (apache.PROGRAM and apache.modules(MODULES)), reason="no Apache with mod_auth_openidc"),
]

CONFIGURATION = """
OIDCProviderMetadataURL {issuer}/.well-known/openid-configuration
OIDCClientID {client_id}
OIDCClientSecret {client_secret}
OIDCRedirectURI {url}/private/back
OIDCCryptoPassphrase {passphrase}
OIDCScope "openid profile email"
OIDCPKCEMethod S256
OIDCRemoteUserClaim preferred_username
<Location /private>
  AuthType openid-connect
  Require valid-user
  ForceType text/html
  Options +Includes
  SetOutputFilter INCLUDES
</Location>
<Location /bye>
  ForceType text/html
</Location>
"""
PRIVATE = 'Hello <!--#echo var="REMOTE_USER" --> (<!--#echo var="OIDC_CLAIM_email" -->)'


@pytest.fixture
async def site(
    only_programs_deliver: None, server: Program, new_client: NewClient, directory: Path
) -> AsyncIterator[str]:
    """Apache with a page for those who are signed in; yields its URL."""
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    app = await new_client(
        grants=["authorization_code", "refresh_token"],
        redirect_uris=[f"{url}/private/back"],
        post_logout_redirect_uris=[f"{url}/bye/"],
        backchannel_logout_uri=f"{url}/private/back?logout=backchannel",
    )
    for name, text in (("private", PRIVATE), ("bye", "Goodbye")):
        (directory / "www" / name).mkdir(parents=True)
        (directory / "www" / name / "index.html").write_text(text)
    configuration = CONFIGURATION.format(
        issuer=server.url, url=url, client_id=app.client_id, client_secret=app.secret,
        passphrase=secrets.token_hex(),
    )  # fmt: skip
    async with apache.running(directory, port, MODULES, configuration):
        yield url


async def enter(page: Page, site: str, actors: Actors) -> None:
    """Open the private page, which takes a sign-in."""
    await page.goto(f"{site}/private/")
    await people.sign_in(page, actors.user)
    await people.allow(page)
    await expect(page.get_by_text(f"Hello {actors.user.username} ({actors.user.email})")).to_be_visible()


async def test_a_person_signs_in_through_apache_and_out_of_both(
    server: Program, site: str, page: Page, actors: Actors
) -> None:
    await enter(page, site, actors)
    await page.goto(f"{site}/private/back?logout={quote(f'{site}/bye/')}")
    await expect(page.get_by_text("Goodbye")).to_be_visible()
    await page.goto(f"{site}/private/")
    await expect(page.get_by_label("Password")).to_be_visible()


async def test_who_signs_out_of_the_server_is_signed_out_of_apache(
    server: Program, site: str, page: Page, actors: Actors
) -> None:
    await enter(page, site, actors)
    await people.sign_out(page, server.url)
    await expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    for _ in range(100):
        await page.goto(f"{site}/private/")
        if await page.get_by_label("Password").count():
            return
        await asyncio.sleep(0.2)
    pytest.fail("Apache was not told")


async def test_apache_lets_nobody_in_who_has_said_no(site: str, page: Page, actors: Actors) -> None:
    """mod_auth_openidc 2.4.12 takes a refusal with `iss` (RFC 9207) for an invitation to sign in; it shows an error."""
    await page.goto(f"{site}/private/")
    await people.sign_in(page, actors.user)
    await page.get_by_role("button", name="Don’t allow").click()
    await expect(page.get_by_text("Error")).to_be_visible()
    assert "error=access_denied" in page.url
    await expect(page.get_by_text("Hello")).to_have_count(0)
