"""The client behind "Authorize" in /docs: public, first-party, and only in development."""

from sqlalchemy.exc import IntegrityError

from authserver.clients.models import Client
from authserver.clients.registration import DEFAULT_SCOPES
from authserver.db import Database

CLIENT_ID = "docs"


async def ensure(db: Database) -> None:
    """Add the demo client if it is not there."""
    async with db.read() as tx:
        if await tx.get(Client, CLIENT_ID) is not None:
            return
    client = Client(
        id=CLIENT_ID,
        name="API documentation",
        auth_method="none",
        grants=["password", "refresh_token"],
        scopes=list(DEFAULT_SCOPES),
        audience=[],
        redirect_uris=[],
    )
    try:
        async with db.write() as tx:
            tx.add(client)
    except IntegrityError:
        return  # another process was first
