"""The client behind "Authorize" in /docs: public, and only in development."""

from urllib.parse import urlsplit

from sqlalchemy.exc import IntegrityError

from authserver.clients.metadata import DEFAULT_SCOPES, Metadata
from authserver.clients.models import Client
from authserver.db import Database
from authserver.settings import Settings

CLIENT_ID = "docs"
REDIRECT_PATH = "/docs/oauth2-redirect"
CODE = "authorization_code"
_NEW = Metadata(
    name="API documentation",
    auth_method="none",
    grants=[CODE, "password", "refresh_token"],
    scopes=[*DEFAULT_SCOPES, "offline_access"],
)


async def ensure(db: Database, settings: Settings) -> None:
    """Add the demo client if it is not there, and what one of an earlier version lacks."""
    addresses = redirect_uris(settings)
    async with db.read() as tx:
        found = await tx.get(Client, CLIENT_ID)
        if found is not None and CODE in found.grants and set(addresses) <= set(found.redirect_uris):
            return
    try:
        async with db.write() as tx:
            client = await tx.get(Client, CLIENT_ID)
            if client is None:
                client = Client(id=CLIENT_ID)
                _NEW.write(client)
                tx.add(client)
            client.grants = list(dict.fromkeys([CODE, *client.grants]))
            client.redirect_uris = list(dict.fromkeys([*client.redirect_uris, *addresses]))
    except IntegrityError:
        return  # another process was first


def redirect_uris(settings: Settings) -> list[str]:
    """Return where a developer's browser may have opened /docs: our own address, and this machine by all its names."""
    port = urlsplit(settings.issuer).port
    here = [f"http://{host}:{port}" if port else f"http://{host}" for host in ("127.0.0.1", "localhost", "[::1]")]
    return list(dict.fromkeys(origin + REDIRECT_PATH for origin in (settings.issuer, *here)))
