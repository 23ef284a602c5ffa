"""The table of applications and resource servers (RFC 6749 §2)."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from authserver import clock
from authserver.db import Base, UTCDateTime


class Client(Base):
    """One registered client. A confidential one has a secret; of it only the keyed hash is kept."""

    __tablename__ = "clients"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """The client_id."""
    name: Mapped[str] = mapped_column(String(100))
    secret_hash: Mapped[str | None] = mapped_column(String(64))
    """Absent for public clients."""
    grants: Mapped[list[str]] = mapped_column(JSON, default=list)
    scopes: Mapped[list[str]] = mapped_column(JSON, default=list)
    audience: Mapped[list[str]] = mapped_column(JSON, default=list)
    """Whom its access tokens are for, besides this server itself."""
    redirect_uris: Mapped[list[str]] = mapped_column(JSON, default=list)
    may_introspect: Mapped[bool] = mapped_column(default=False)
    """May see every token, not only its own and those made for it."""
    is_active: Mapped[bool] = mapped_column(default=True)
    own_session_id: Mapped[UUID] = mapped_column(default=uuid4)
    """The `sid` of the tokens that it gets for itself; another one after they were ended (sessions.end_own)."""
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now, onupdate=clock.now)

    @property
    def is_public(self) -> bool:
        """Tell whether it has no secret to prove itself with (RFC 6749 §2.1)."""
        return self.secret_hash is None
