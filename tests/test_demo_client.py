"""The client of /docs, which a server in development makes for itself."""

from authserver.clients import demo, registration
from authserver.services import Services
from authserver.settings import Settings

HERE = {f"http://{host}/docs/oauth2-redirect" for host in ("127.0.0.1", "localhost", "[::1]")}


async def test_the_demo_client_is_sent_back_to_the_page_of_swagger_ui(services: Services, settings: Settings) -> None:
    await demo.ensure(services.db, settings)
    async with services.db.read() as tx:
        client = await registration.find(tx, "docs")
    assert client
    assert {"authorization_code", "password", "refresh_token"} == set(client.grants)
    assert {f"{settings.issuer}/docs/oauth2-redirect", *HERE} <= set(client.redirect_uris)
    assert client.is_public


async def test_one_of_an_earlier_version_gets_what_it_lacks_and_keeps_the_rest(
    services: Services, settings: Settings
) -> None:
    async with services.db.write() as tx:
        client = await registration.locked(tx, "docs")
        assert client
        client.grants, client.redirect_uris, client.name = ["refresh_token"], [], "Ours"
    await demo.ensure(services.db, settings)
    async with services.db.read() as tx:
        client = await registration.find(tx, "docs")
    assert client
    assert (client.name, client.grants) == ("Ours", ["authorization_code", "refresh_token"])
    assert set(client.redirect_uris) >= HERE
    async with services.db.write() as tx:
        client = await registration.locked(tx, "docs")
        assert client
        client.grants = ["authorization_code", "password", "refresh_token"]
