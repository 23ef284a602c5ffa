"""What a JWT says of itself, whoever signed it and however long ago: for people who look into a token."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from authserver import opaque
from authserver.keys.pairs import Key
from authserver.keys.signing import is_signed

_MAX_CHARACTERS = 16_384


@dataclass(frozen=True)
class Explanation:
    """A decoded JWT. What it says is worth something only if `is_ours`."""

    header: dict[str, Any]
    claims: dict[str, Any]
    is_ours: bool
    """Signed with one of our keys; says nothing of its expiry, issuer or revocation."""


def explain(token: str, keys: Iterable[Key]) -> Explanation | None:
    """Decode a JWT and look for the key that signed it; None for what is none."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _MAX_CHARACTERS or not token.isascii():
        return None
    header, claims = _object(parts[0]), _object(parts[1])
    if header is None or claims is None:
        return None
    mine = [key for key in keys if key.kid == header.get("kid")]
    return Explanation(header, claims, any(is_signed(key, token) for key in mine))


def _object(part: str) -> dict[str, Any] | None:
    """Return the JSON object in a part of a JWT, if it can be written as JSON again (NaN and 1e999 cannot)."""
    try:
        value = json.loads(opaque.b64decode(part))
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
