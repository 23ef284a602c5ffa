"""The table of revocations: the truth that Redis copies (denylist.md, rules 1 and 2)."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from authserver.db import Base, UTCDateTime


class DenylistEntry(Base):
    """One revoked access token (`j:<jti>`) or one revoked sign-in with all its tokens (`s:<session id>`)."""

    __tablename__ = "denylist_entries"

    entry: Mapped[str] = mapped_column(String(80), primary_key=True)
    forget_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    """No token that it covers can be alive after that."""
