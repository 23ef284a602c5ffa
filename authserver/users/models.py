"""The tables of people, and of the guesses at their passwords."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from authserver import clock
from authserver.db import Base, UTCDateTime


class User(Base):
    """One account. `…_key` columns hold the folded spelling (text.fold) under which names are unique."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    email: Mapped[str] = mapped_column(String(255), unique=True)
    email_key: Mapped[str] = mapped_column(String(255), unique=True)
    username: Mapped[str] = mapped_column(String(50), unique=True)
    username_key: Mapped[str] = mapped_column(String(255), unique=True)
    hashed_password: Mapped[str] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    generation: Mapped[int] = mapped_column(default=0)
    """Raised by whatever must end sign-ins in progress: a new password, disabling (docs/reliability.md)."""
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now, onupdate=clock.now)


class AccountAttempts(Base):
    """The guesses since the last right password: at one account, or at one name that no account has (attempts.py)."""

    __tablename__ = "account_attempts"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    """A hash, the same kind for people and for names of nobody."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Counted before the password is looked at, from all addresses together."""
    failures: Mapped[int] = mapped_column(default=0)
    """Those of them that were wrong."""
    blocked_until: Mapped[datetime] = mapped_column(UTCDateTime)
    """For all addresses but the user's own."""
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)


class KnownAddress(Base):
    """An address from which a user has signed in: what strangers do elsewhere does not lock it out."""

    __tablename__ = "known_addresses"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    address: Mapped[str] = mapped_column(String(45), primary_key=True)
    """throttle.address_key: an IPv4 address or an IPv6 /64."""
    failures: Mapped[int] = mapped_column(default=0)
    blocked_until: Mapped[datetime] = mapped_column(UTCDateTime)
    last_success_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
