"""ID tokens: what a client may know of a sign-in, signed with the algorithm that it registered for (OIDC Core §2)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from authserver import clock, opaque
from authserver.keys.keyring import Keyring
from authserver.keys.pairs import EDDSA, ES256, RS256, Algorithm
from authserver.keys.signing import is_signed, sign, unverified
from authserver.settings import Settings

ALGORITHMS: tuple[Algorithm, ...] = (RS256, ES256, EDDSA)
ACR = "1"
"""ISO/IEC 29115, level 1: a password was given, and nobody has looked at whose passport. There is no more to claim."""
CLAIMS = ("iss", "sub", "aud", "azp", "exp", "iat", "auth_time", "nonce", "acr", "amr", "at_hash", "sid")
"""All but `nonce` are in every ID token, whether they are asked for by name or not."""
_TYPE = "JWT"
_HASHES = {RS256: hashlib.sha256, ES256: hashlib.sha256, EDDSA: hashlib.sha512}
"""The hash of each algorithm, for at_hash (OIDC Core §3.1.3.6); Ed25519 has SHA-512 in it (RFC 8032 §5.1)."""


@dataclass(frozen=True)
class Hint:
    """What an ID token of ours says, however old it is: about whom, for whom, from which sign-in."""

    subject: str
    client_id: str
    session_id: str


class IdTokens:
    """Writes ID tokens of this issuer, and reads them when they come back as `id_token_hint`."""

    def __init__(self, settings: Settings, keyring: Keyring) -> None:
        self._issuer = settings.issuer
        self._keyring = keyring

    async def prepare(self, algorithm: str) -> None:
        """See to it that `issue` can sign; StoreUnavailable while it cannot, which is for minutes with a first key."""
        name = known(algorithm)
        await self._keyring.introduce(name)
        self._keyring.signing_key(name)

    def issue(
        self,
        *,
        algorithm: str,
        client_id: str,
        subject: str,
        session_id: str,
        expires_at: datetime,
        authenticated_at: datetime,
        amr: str,
        access_token: str,
        nonce: str | None = None,
        more: Mapping[str, object] | None = None,
    ) -> str:
        """Return the signed token, of an access token that it is sent with; `more` are claims that were asked for."""
        name = known(algorithm)
        claims: dict[str, Any] = {
            **(more or {}),
            "iss": self._issuer,
            "sub": subject,
            "aud": client_id,
            "azp": client_id,
            "exp": int(expires_at.timestamp()),
            "iat": int(clock.now().timestamp()),
            "auth_time": int(authenticated_at.timestamp()),
            "acr": ACR,
            "amr": amr.split(" "),
            "at_hash": _left_half(name, access_token),
            "sid": session_id,
        }
        if nonce is not None:
            claims["nonce"] = nonce
        return sign(self._keyring.signing_key(name), _TYPE, claims)

    async def read(self, token: str) -> Hint | None:
        """Return what an ID token of ours says, expired or not; None for all else, and when its key has gone.

        So a hint is understood for a day after its key was retired (rotation.retired_at), and any time before that.
        """
        found = unverified(token)
        if found is None:
            return None
        header, claims = found
        texts = [claims.get(name) for name in ("sub", "aud", "sid")]
        is_whole = all(isinstance(value, str) for value in texts)
        if header.get("typ") != _TYPE or claims.get("iss") != self._issuer or not is_whole:
            return None
        key = await self._keyring.find(str(header.get("kid")))
        return Hint(*cast("list[str]", texts)) if key is not None and is_signed(key, token) else None


def known(algorithm: str) -> Algorithm:
    """Return the algorithm that a client is registered for, which registration has looked at."""
    (name,) = (known for known in ALGORITHMS if known == algorithm)
    return name


def _left_half(algorithm: Algorithm, access_token: str) -> str:
    digest = _HASHES[algorithm](access_token.encode()).digest()
    return opaque.b64encode(digest[: len(digest) // 2])
