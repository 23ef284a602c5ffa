"""The table of signing keys."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from authserver import clock
from authserver.db import Base, UTCDateTime


class SigningKey(Base):
    """One key pair; its state follows from its dates: announced, signing, verifying, gone."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(String(64), primary_key=True)
    """The thumbprint of the public key (RFC 7638)."""
    alg: Mapped[str] = mapped_column(String(16))
    """Each algorithm has keys of its own, which rotate for themselves."""
    public_jwk: Mapped[dict[str, Any]] = mapped_column(JSON)
    encrypted_private_jwk: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=clock.now)
    signs_from: Mapped[datetime] = mapped_column(UTCDateTime)
    """Before that it is only announced in the JWKS."""
    verifies_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """Set when a successor is made: the last moment at which a token signed with it can be alive."""
