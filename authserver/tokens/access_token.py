"""Access tokens: signed JWTs that any resource server can read (RFC 9068)."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from authserver import clock, opaque
from authserver.keys.keyring import ALGORITHM, Keyring
from authserver.settings import Settings

_MAX_CHARACTERS = 8192
_HEADER_TYPES = frozenset({"at+jwt", "application/at+jwt"})
_TEXT_CLAIMS = ("iss", "sub", "jti", "client_id", "scope")
_REGISTRY = JWSRegistry(algorithms=[ALGORITHM])


@dataclass(frozen=True)
class Claims:
    """What a genuine, unexpired access token says. Whether it has been revoked, only the denylist knows."""

    jti: str
    subject: str
    client_id: str
    scope: str
    audience: tuple[str, ...]
    session_id: str | None
    expires_at: int
    """Seconds since the epoch."""
    issued_at: int
    username: str | None
    issuer: str

    @property
    def expires(self) -> datetime:
        """When it expires, as a date."""
        return datetime.fromtimestamp(self.expires_at, UTC)

    @property
    def scopes(self) -> frozenset[str]:
        """The granted scopes."""
        return frozenset(self.scope.split())


def new_jti() -> str:
    """Return a new token identifier: 122 random bits."""
    return str(uuid4())


class AccessTokens:
    """Writes and reads access tokens of this issuer."""

    def __init__(self, settings: Settings, keyring: Keyring) -> None:
        self._issuer = settings.issuer
        self._keyring = keyring

    def issue(
        self,
        *,
        jti: str,
        expires_at: datetime,
        subject: str,
        client_id: str,
        scope: str,
        audience: list[str],
        session_id: str | None,
        username: str | None,
    ) -> str:
        """Return the signed token; StoreUnavailable while there is no key."""
        key = self._keyring.signing_key()
        now = int(clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": subject,
            "aud": [self._issuer, *(name for name in audience if name != self._issuer)],
            "exp": int(expires_at.timestamp()),
            "iat": now,
            "nbf": now,
            "jti": jti,
            "client_id": client_id,
            "scope": scope,
        }
        if session_id is not None:
            claims["sid"] = session_id
        if username is not None:
            claims["username"] = username
        header = {"alg": ALGORITHM, "typ": "at+jwt", "kid": key.kid}
        assert key.private is not None  # signing_key() returns no other
        return jwt.encode(header, claims, key.private, registry=_REGISTRY)

    async def read(self, token: str, *, at_any_time: bool = False) -> Claims | None:
        """Return the claims of a token that we signed and that has not expired, else None (RFC 9068 §4).

        `at_any_time`: expired or not: on a node whose clock is a little behind, it may yet be good.
        """
        header = _header(token)
        if header is None or header.get("alg") != ALGORITHM or str(header.get("typ")).lower() not in _HEADER_TYPES:
            return None
        key = await self._keyring.find(str(header.get("kid")))
        if key is None:
            return None
        try:
            claims = jwt.decode(token, key.public, registry=_REGISTRY).claims
        except (JoseError, ValueError):
            return None
        return self._checked(claims, at_any_time)

    def _checked(self, claims: dict[str, Any], at_any_time: bool) -> Claims | None:
        """Signed by us is not yet an access token of ours: every claim must be there, of its type, and in time."""
        now = clock.now().timestamp()
        audience = claims.get("aud")
        exp, iat, nbf = claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)
        session_id, username = claims.get("sid"), claims.get("username")
        if (
            not all(isinstance(claims.get(name), str) for name in _TEXT_CLAIMS)
            or claims["iss"] != self._issuer
            or not isinstance(audience, list)
            or not isinstance(exp, int)
            or not isinstance(iat, int)
            or not (at_any_time or nbf - 60 <= now < exp)
            or not isinstance(session_id, str | None)
            or not isinstance(username, str | None)
        ):
            return None
        return Claims(
            jti=claims["jti"],
            subject=claims["sub"],
            client_id=claims["client_id"],
            scope=claims["scope"],
            audience=tuple(audience),
            session_id=session_id,
            expires_at=exp,
            issued_at=iat,
            username=username,
            issuer=self._issuer,
        )


def _header(token: str) -> dict[str, Any] | None:
    """Return the header of what may be a compact JWS, before any key is looked for."""
    if len(token) > _MAX_CHARACTERS or token.count(".") != 2 or not token.isascii():
        return None
    try:
        header = json.loads(opaque.b64decode(token[: token.index(".")]))
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None
