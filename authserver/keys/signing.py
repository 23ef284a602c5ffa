"""JWTs signed with our keys, each key with the one algorithm that it was made for."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from joserfc.jws import JWSRegistry

from authserver import opaque
from authserver.keys.pairs import Key

_MAX_CHARACTERS = 8192
# joserfc's algorithms, without its ways to them: these look at every header and key as if they were somebody else's,
# which takes as long as the signature itself.
_ALGORITHMS = {name: JWSRegistry.algorithms[name] for name in ("ES256", "RS256", "EdDSA")}


def sign(key: Key, typ: str, claims: Mapping[str, Any]) -> str:
    """Return a signed JWT (RFC 7515 §3.1); `typ` keeps one kind from being taken for another (RFC 8725 §3.11).

    On the event loop, RSA too: a signature takes 0.3 ms, and to send it to a thread would cost a third of that again.
    """
    assert key.private is not None  # Keyring.signing_key returns no other
    payload = opaque.b64encode(orjson.dumps(claims, option=orjson.OPT_PASSTHROUGH_DATETIME))  # dates are numbers here
    signed = f"{_header(key.algorithm, typ, key.kid)}.{payload}"
    return f"{signed}.{opaque.b64encode(_ALGORITHMS[key.algorithm].sign(signed.encode(), key.private))}"


def is_signed(key: Key, token: str) -> bool:
    """Tell whether a compact JWS has been signed with a key, by its algorithm whatever the header says."""
    signed, _, signature = token.rpartition(".")
    try:
        return _ALGORITHMS[key.algorithm].verify(signed.encode(), opaque.b64decode(signature), key.public)
    except ValueError:
        return False


def unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return header and payload of what may be a compact JWS, before any key is looked for; nothing is verified."""
    if len(token) > _MAX_CHARACTERS or token.count(".") != 2 or not token.isascii():
        return None
    first, second, _ = token.split(".")
    try:
        header, payload = _loaded_once(first), _loaded(second)
    except ValueError:
        return None
    return (header, payload) if isinstance(header, dict) and isinstance(payload, dict) else None


def _loaded(part: str) -> Any:
    return orjson.loads(opaque.b64decode(part))


_loaded_once = lru_cache(maxsize=64)(_loaded)
"""All tokens of a key have the same header."""


@lru_cache(maxsize=64)
def _header(algorithm: str, typ: str, kid: str) -> str:
    return opaque.b64encode(orjson.dumps({"alg": algorithm, "typ": typ, "kid": kid}))
