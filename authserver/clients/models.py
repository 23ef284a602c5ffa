"""The table of applications and resource servers (RFC 6749 §2)."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy import JSON, LargeBinary, String, false, true
from sqlalchemy.orm import Mapped, mapped_column

from authserver import clock
from authserver.db import Base, UTCDateTime

AuthMethod = Literal["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"]
"""How a client proves itself, by the names of RFC 7591 §2 and OpenID Connect Core §9."""


class Client(Base):
    """One registered client. A confidential one has a secret, of which a keyed hash is kept, or keys of its own."""

    __tablename__ = "clients"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """The client_id."""
    name: Mapped[str] = mapped_column(String(100))
    auth_method: Mapped[AuthMethod | None] = mapped_column(String(20))
    """The one way in which it proves itself; without it, by its secret in Basic or in the body, as it likes."""
    secret_hash: Mapped[str | None] = mapped_column(String(64))
    """Absent where there is no secret."""
    encrypted_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The secret itself, for client_secret_jwt alone: an HMAC cannot be checked with a hash of its key."""
    old_secret_hash: Mapped[str | None] = mapped_column(String(64))
    """The secret before, which is still good until `old_secret_until`."""
    old_encrypted_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    old_secret_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    jwks: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Its public keys, for private_key_jwt (RFC 7517)."""
    grants: Mapped[list[str]] = mapped_column(JSON, default=list)
    scopes: Mapped[list[str]] = mapped_column(JSON, default=list)
    audience: Mapped[list[str]] = mapped_column(JSON, default=list)
    """Whom its access tokens are for, besides this server itself."""
    redirect_uris: Mapped[list[str]] = mapped_column(JSON, default=list)
    post_logout_redirect_uris: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """Where a browser may be sent after it has signed out (RP-Initiated Logout §3.1)."""
    backchannel_logout_uri: Mapped[str | None] = mapped_column(String(2000))
    """Where it hears that a sign-in has ended (Back-Channel Logout §2.2)."""
    require_pkce: Mapped[bool] = mapped_column(default=True, server_default=true())
    """Asked of a public client in any case."""
    require_pushed_requests: Mapped[bool] = mapped_column(default=False, server_default=false())
    """RFC 9126 §6."""
    require_signed_requests: Mapped[bool] = mapped_column(default=False, server_default=false())
    """RFC 9101 §10.5."""
    is_trusted: Mapped[bool] = mapped_column(default=False, server_default=false())
    """The operator's own: nobody is asked for consent."""
    default_max_age: Mapped[int | None]
    """Seconds since the last sign-in after which people must prove themselves again, where a request names none."""
    id_token_alg: Mapped[str] = mapped_column(String(10), default="RS256", server_default="RS256")
    userinfo_alg: Mapped[str | None] = mapped_column(String(10))
    """None: /userinfo answers with plain JSON."""
    uri: Mapped[str | None] = mapped_column(String(2000))
    """Its own page, for people, as the next two."""
    policy_uri: Mapped[str | None] = mapped_column(String(2000))
    tos_uri: Mapped[str | None] = mapped_column(String(2000))
    registration_token_hash: Mapped[str | None] = mapped_column(String(64))
    """Of what it manages its own registration with (RFC 7592 §3); absent where the operator made it."""
    may_introspect: Mapped[bool] = mapped_column(default=False)
    """May see every token, not only its own and those made for it."""
    is_active: Mapped[bool] = mapped_column(default=True)
    own_session_id: Mapped[UUID] = mapped_column(default=uuid4)
    """The `sid` of the tokens that it gets for itself; another one after they were ended (sessions.end_own)."""
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now, onupdate=clock.now)

    @property
    def is_public(self) -> bool:
        """Tell whether it has nothing to prove itself with (RFC 6749 §2.1)."""
        return self.auth_method == "none"

    @property
    def auth_methods(self) -> tuple[AuthMethod, ...]:
        """The ways in which it may prove itself."""
        return ("client_secret_basic", "client_secret_post") if self.auth_method is None else (self.auth_method,)

    @property
    def old_secret_is_good(self) -> bool:
        """Tell whether the secret before the newest one is still good at this moment."""
        return self.old_secret_until is not None and clock.now() < self.old_secret_until


class UsedAssertion(Base):
    """One assertion that a client has proved itself with, so that nobody does it again (RFC 7523 §3, `jti`)."""

    __tablename__ = "used_assertions"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    """A hash of client and `jti`."""
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    """The assertion is refused from then on anyway."""


class PushedRequest(Base):
    """An authorization request that a client has pushed before it sends the browser (RFC 9126)."""

    __tablename__ = "pushed_requests"

    handle_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Of the random part of the `request_uri`."""
    client_id: Mapped[str] = mapped_column(String(64))
    parameters: Mapped[dict[str, str]] = mapped_column(JSON)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
