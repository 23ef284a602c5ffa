"""Access tokens: signed JWTs that any resource server can read (RFC 9068)."""

from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

from authserver import clock
from authserver.keys.keyring import Keyring
from authserver.keys.pairs import ES256, Key
from authserver.keys.signing import is_signed, sign, unverified
from authserver.recent import Recent
from authserver.settings import Settings

_REMEMBERED = 4000
"""Tokens whose signature a process need not verify again: about 2 KB each."""
_HEADER_TYPES = frozenset({"at+jwt", "application/at+jwt"})
_TEXT_CLAIMS = ("iss", "sub", "jti", "client_id", "scope")


class Claims(NamedTuple):
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
    userinfo_claims: tuple[str, ...] = ()
    """Asked for by name, for /userinfo (OpenID Connect Core §5.5)."""

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
        # Only genuine tokens come into the first, so that no stranger can push one out with rubbish of their own.
        self._known: Recent[str, _Known] = Recent(_REMEMBERED)
        self._forged: Recent[str, bool] = Recent(_REMEMBERED // 4)

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
        userinfo_claims: list[str] | None = None,
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
        if userinfo_claims:
            claims["userinfo_claims"] = userinfo_claims
        return sign(key, "at+jwt", claims)

    async def read(self, token: str, *, at_any_time: bool = False) -> Claims | None:
        """Return the claims of a token that we signed and that has not expired, else None (RFC 9068 §4).

        `at_any_time`: expired or not, to be revoked: on a node whose clock is a little behind, it may yet be good.
        Such a token is not remembered, so that many revocations do not push out what is asked for.
        """
        known = self._known.get(token)
        if known is None:
            return await self._verified(token, at_any_time)
        # What a signature says never changes; whether its key and its time still hold is looked at each time.
        is_in_time = at_any_time or known.claims.expires_at > clock.now().timestamp()
        return known.claims if is_in_time and self._keyring.holds(known.key) else None

    async def _verified(self, token: str, at_any_time: bool) -> Claims | None:
        """Look at everything that costs little before the signature; remember the token if that is right too."""
        found = unverified(token)
        if found is None:
            return None
        header, payload = found
        if header.get("alg") != ES256 or str(header.get("typ")).lower() not in _HEADER_TYPES:
            return None
        claims = self._checked(payload, at_any_time)
        key = await self._keyring.find(str(header.get("kid"))) if claims is not None else None
        if claims is None or key is None or self._forged.get(token):
            return None
        if not is_signed(key, token):
            self._forged.put(token, True)
            return None
        if not at_any_time:
            self._known.put(token, _Known(claims, key))
        return claims

    def _checked(self, claims: dict[str, Any], at_any_time: bool) -> Claims | None:
        """Signed by us is not yet an access token of ours: every claim must be there, of its type, and in time."""
        now = clock.now().timestamp()
        audience = claims.get("aud")
        exp, iat, nbf = claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)
        session_id, username = claims.get("sid"), claims.get("username")
        named = claims.get("userinfo_claims", [])
        if (
            not all(isinstance(claims.get(name), str) for name in _TEXT_CLAIMS)
            or claims["iss"] != self._issuer
            or not isinstance(audience, list)
            or not isinstance(exp, int)
            or not isinstance(iat, int)
            or not isinstance(nbf, int)
            or not (at_any_time or nbf - 60 <= now < exp)
            or not isinstance(session_id, str | None)
            or not isinstance(username, str | None)
            or not isinstance(named, list)
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
            userinfo_claims=tuple(named),
        )


class _Known(NamedTuple):
    """What has been found out about a token that is genuine."""

    claims: Claims
    key: Key
