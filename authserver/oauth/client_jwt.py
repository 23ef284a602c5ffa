"""A JWT that a client has signed: with a key that it has registered, or with its secret (RFC 7515, RFC 8725)."""

from dataclasses import dataclass
from math import inf
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeyBase, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from typing_extensions import override

from authserver import clock
from authserver.clients import jwks
from authserver.clients.models import Client
from authserver.keys.signing import unverified
from authserver.services import Services

BY_SECRET = "HS256"
ALGORITHMS = [name for names in jwks.ALGORITHMS.values() for name in names] + [BY_SECRET]
LEEWAY_SECONDS = 60
"""For clients whose clock is ahead."""
_KEY_TYPES: dict[str, type[ECKey | RSAKey | OKPKey]] = {"EC": ECKey, "RSA": RSAKey, "OKP": OKPKey}


class _Registry(JWSRegistry):
    """How joserfc reads what others have written: certificates in the header (`x5c`) make it long.

    EdDSA without a warning at each use: RFC 9864 renamed it, and everybody still says it.
    """

    max_header_length = 8192

    @override
    def get_alg(self, name: str) -> Any:
        """Return the algorithm."""
        is_allowed = self.allowed is not None and name in self.allowed
        return self.algorithms[name] if name == "EdDSA" and is_allowed else super().get_alg(name)


_REGISTRY = _Registry(algorithms=ALGORITHMS, strict_check_header=False)


@dataclass(frozen=True)
class Jwt:
    """What somebody has sent; nothing of it is verified yet."""

    text: str
    header: dict[str, Any]
    claims: dict[str, Any]

    def is_of_type(self, *types: str) -> bool:
        """Tell whether `typ` names one of these, or nothing: no other kind of JWT can be taken for this one (§3.11)."""
        kind = self.header.get("typ")
        return kind is None or (isinstance(kind, str) and kind.lower() in types)

    def fault_in_dates(self, max_seconds: float) -> str | None:
        """Return what is wrong with exp, nbf or iat; it expires so many seconds from now at most."""
        now = clock.now().timestamp()
        if max_seconds < inf and "exp" not in self.claims:
            return "exp is missing"
        dates: list[Any] = [self.claims.get("exp", now + 1), self.claims.get("nbf", now), self.claims.get("iat", now)]
        if not all(isinstance(date, int | float) and not isinstance(date, bool) for date in dates):
            return "a date is not a number"
        exp, nbf, iat = dates
        if not now < exp <= now + max_seconds + LEEWAY_SECONDS:
            return "expired, or too far in the future (exp)"
        if max(nbf, iat) > now + LEEWAY_SECONDS:
            return "not good yet (nbf, iat)"
        return None


def read(text: str) -> Jwt | None:
    """Return header and claims of what may be a JWS."""
    parts = unverified(text)
    return None if parts is None else Jwt(text, *parts)


def is_signed_by(services: Services, client: Client, token: Jwt) -> bool:
    """Tell whether the client has signed it, with a key or a secret that is registered for such signatures."""
    return any(_is_signed_with(key, token) for key in _keys(services, client, token.header))


def _keys(services: Services, client: Client, header: dict[str, Any]) -> list[KeyBase]:
    """Return what the client may have signed with. Its registration decides which kind, never the header."""
    name = header.get("alg")
    if name == BY_SECRET:
        return [OctKey.import_key(secret) for secret in services.clients.signing_secrets(client)]
    return [
        _KEY_TYPES[key["kty"]].import_key(key)
        for key in (client.jwks or {"keys": []})["keys"]
        if name in jwks.ALGORITHMS[jwks.kind(key)]
        and key.get("alg", name) == name
        and ("kid" not in header or key.get("kid", header["kid"]) == header["kid"])
    ]


def _is_signed_with(key: KeyBase, token: Jwt) -> bool:
    try:
        jws.deserialize_compact(token.text, key, registry=_REGISTRY)
    except (JoseError, ValueError, RecursionError):  # joserfc reads a deep header with Python's own parser
        return False
    return True
