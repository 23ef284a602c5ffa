"""The table of sign-ins: it grows with sign-ins, never with refreshes or requests."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from authserver import clock
from authserver.db import Base, UTCDateTime


class UserSession(Base):
    """One sign-in of one user through one client."""

    __tablename__ = "user_sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), index=True)
    grant: Mapped[str] = mapped_column(String(64))
    """How it began: `password`, …"""
    scope: Mapped[str] = mapped_column(String(1000))
    token_jti: Mapped[str] = mapped_column(String(255), unique=True)
    """The current access token."""
    tokens_expire_at: Mapped[datetime] = mapped_column(UTCDateTime)
    """After that none of its access tokens is alive: so long must its revocation be remembered."""
    refresh_hash: Mapped[str | None] = mapped_column(String(64), unique=True)
    """Of the seed that every refresh token of the family carries (lifecycle.py); absent without refresh tokens."""
    generation: Mapped[int] = mapped_column(default=0)
    """Of the one refresh token that is good now: each rotation adds one."""
    rotated_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    ip: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now)
    last_used_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    """When it ends if it is not refreshed before; every refresh moves it, at most to `max_expires_at`."""
    max_expires_at: Mapped[datetime] = mapped_column(UTCDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    revoked_because: Mapped[str | None] = mapped_column(String(40))

    __table_args__ = (
        # For pruning those that were ended before their time: few, and `expires_at` does not find them.
        Index(None, tokens_expire_at, sqlite_where=revoked_at.is_not(None), postgresql_where=revoked_at.is_not(None)),
    )
