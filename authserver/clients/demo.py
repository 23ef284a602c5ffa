"""The client behind "Authorize" in /docs: public, first-party, and only in development."""

from sqlalchemy.ext.asyncio import AsyncSession

from authserver.clients.models import Client
from authserver.clients.registration import DEFAULT_SCOPES

CLIENT_ID = "docs"


async def ensure(tx: AsyncSession) -> None:
    """Add the demo client if it is not there."""
    if await tx.get(Client, CLIENT_ID) is None:
        tx.add(
            Client(
                id=CLIENT_ID,
                name="API documentation",
                secret_hash=None,
                grants=["password", "refresh_token"],
                scopes=list(DEFAULT_SCOPES),
                audience=[],
                redirect_uris=[],
            )
        )
