"""The tables of revocations: the truth that Redis copies, and whether that copy may be believed (denylist.py)."""

from datetime import datetime

from sqlalchemy import BigInteger, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from authserver.db import Base, UTCDateTime


class DenylistEntry(Base):
    """One revoked access token (`j:<jti>`) or one revoked sign-in with all its tokens (`s:<session id>`)."""

    __tablename__ = "denylist_entries"

    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    """Grows; what is written later has a larger one."""
    entry: Mapped[str] = mapped_column(String(80), unique=True)
    forget_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    """No token that it covers can be alive after that."""


class DenylistState(Base):
    """The one row that says which copy of the list may be believed, if any."""

    __tablename__ = "denylist_state"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    is_trusted: Mapped[bool] = mapped_column(default=False)
    epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    """Raised each time that trust is lost; 0 if it never was there."""
    run: Mapped[str] = mapped_column(String(100), default="")
    """The Redis process that holds the copy (redis.Line)."""
    marker: Mapped[str] = mapped_column(String(200), default="")
    """The member of the copy that proves it is this one."""
