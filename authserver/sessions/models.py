"""The tables of sign-ins, and of what leads to them: they grow with sign-ins, never with refreshes or requests."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import JSON, ForeignKey, Index, String
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
    browser_session_id: Mapped[UUID | None] = mapped_column(index=True)
    """The browser that it came from; no foreign key, for it may outlive that (offline_access)."""
    audience: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """Whom its access tokens are for (RFC 8707); without it, whom the client's are for."""
    userinfo_claims: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """Claims asked for by name, besides those of the scope (OpenID Connect Core §5.5)."""
    id_token_claims: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """The same for its ID tokens."""
    authenticated_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """When the user proved who they are: the ID token's `auth_time`."""
    amr: Mapped[str | None] = mapped_column(String(64))
    """How, separated by spaces (RFC 8176)."""

    __table_args__ = (
        # For pruning those that were ended before their time: few, and `expires_at` does not find them.
        Index(None, tokens_expire_at, sqlite_where=revoked_at.is_not(None), postgresql_where=revoked_at.is_not(None)),
    )


class BrowserSession(Base):
    """One browser in which one user is signed in. Signing out deletes the row."""

    __tablename__ = "browser_sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    cookie_hash: Mapped[str] = mapped_column(String(64), unique=True)
    generation: Mapped[int]
    """The user's, at sign-in: the browser is signed in as long as the user still has it."""
    amr: Mapped[str] = mapped_column(String(64))
    authenticated_at: Mapped[datetime] = mapped_column(UTCDateTime)
    ip: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)


class Consent(Base):
    """What one user has allowed one client. Withdrawing deletes the row."""

    __tablename__ = "consents"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True, index=True)
    scope: Mapped[str] = mapped_column(String(1000))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now)
    given_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now)
    """The last time."""


class AuthorizationCode(Base):
    """One authorization code: what was asked, by whom it was allowed, and the session that it was traded for.

    No foreign keys: user, client, browser and consent are looked at when it is redeemed.
    """

    __tablename__ = "authorization_codes"

    code_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    client_id: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[UUID]
    generation: Mapped[int]
    browser_session_id: Mapped[UUID]
    redirect_uri: Mapped[str | None] = mapped_column(String(2000))
    """As it was in the request; if it was there, the token request must repeat it (RFC 6749 §4.1.3)."""
    scope: Mapped[str] = mapped_column(String(1000))
    audience: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    id_token_claims: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    userinfo_claims: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    code_challenge: Mapped[str | None] = mapped_column(String(128))
    """S256 (RFC 7636 §4.2)."""
    nonce: Mapped[str | None] = mapped_column(String(1000))
    authenticated_at: Mapped[datetime] = mapped_column(UTCDateTime)
    amr: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    session_id: Mapped[UUID | None]
    """Set once, by the one who redeems it; ended if somebody else comes with the same code."""


class LogoutNotice(Base):
    """A client has yet to hear that a sign-in has ended (Back-Channel Logout §2.5). Delivery deletes the row.

    It outlives user and session, so it has no foreign keys to them; nor to the client, whose row nobody who ends a
    session shall have to wait for.
    """

    __tablename__ = "logout_notices"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    client_id: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[UUID]
    session_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now)
    attempts: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now, index=True)
