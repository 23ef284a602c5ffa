"""What must be found again later: security events, in a table and as a log line."""

import logging
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import JSON, String
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from authserver import clock
from authserver.db import Base, UTCDateTime

log = logging.getLogger(__name__)


class AuditEvent(Base):
    """One security event. It outlives what it speaks of, so it has no foreign keys."""

    __tablename__ = "audit_events"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now, index=True)
    event: Mapped[str] = mapped_column(String(60))
    user_id: Mapped[UUID | None] = mapped_column(index=True)
    client_id: Mapped[str | None] = mapped_column(String(64))
    session_id: Mapped[UUID | None]
    ip: Mapped[str | None] = mapped_column(String(45))
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


def record(
    tx: AsyncSession,
    event: str,
    *,
    user_id: UUID | None = None,
    client_id: str | None = None,
    session_id: UUID | None = None,
    ip: str | None = None,
    **details: Any,
) -> None:
    """Write an event with the transaction that it belongs to; never pass a secret, token or password in `details`."""
    tx.add(AuditEvent(event=event, user_id=user_id, client_id=client_id, session_id=session_id, ip=ip, details=details))
    extra = {"client_id": client_id, "user_id": user_id and str(user_id), "session_id": session_id and str(session_id)}
    log.info(event, extra={"audit": True, "ip": ip, **extra, **details})
