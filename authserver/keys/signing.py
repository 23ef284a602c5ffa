"""JWTs signed with our keys, each key with the one algorithm that it was made for."""

from collections.abc import Mapping
from typing import Any

import orjson
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry
from typing_extensions import override

from authserver import opaque
from authserver.keys.pairs import Key

_MAX_CHARACTERS = 8192


class Registry(JWSRegistry):
    """Algorithms of joserfc, EdDSA without a warning at each use: RFC 9864 renamed it, and everybody still says it."""

    @override
    def get_alg(self, name: str) -> Any:
        """Return the algorithm."""
        is_allowed = self.allowed is not None and name in self.allowed
        return self.algorithms[name] if name == "EdDSA" and is_allowed else super().get_alg(name)


_ONLY = {name: Registry(algorithms=[name]) for name in ("ES256", "RS256", "EdDSA")}


def sign(key: Key, typ: str, claims: Mapping[str, Any]) -> str:
    """Return a signed JWT; `typ` keeps one kind from being taken for another (RFC 8725 §3.11).

    On the event loop, RSA too: a signature takes 0.3 ms, and to send it to a thread would cost a third of that again.
    """
    assert key.private is not None  # Keyring.signing_key returns no other
    header = {"alg": key.algorithm, "typ": typ, "kid": key.kid}
    return jwt.encode(header, dict(claims), key.private, registry=_ONLY[key.algorithm])


def is_signed(key: Key, token: str) -> bool:
    """Tell whether a compact JWS has been signed with a key."""
    try:
        jws.deserialize_compact(token, key.public, registry=_ONLY[key.algorithm])
    except (JoseError, ValueError):
        return False
    return True


def unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return header and payload of what may be a compact JWS, before any key is looked for; nothing is verified."""
    if len(token) > _MAX_CHARACTERS or token.count(".") != 2 or not token.isascii():
        return None
    try:
        header, payload = (orjson.loads(opaque.b64decode(part)) for part in token.split(".")[:2])
    except ValueError:
        return None
    return (header, payload) if isinstance(header, dict) and isinstance(payload, dict) else None
