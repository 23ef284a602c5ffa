"""What a refresh token is made of.

`authserver_rt_` + base64url(seed 32 bytes, generation 4 bytes, MAC 32 bytes).

The seed is random, one for the whole session; the database knows its SHA-256 only. The generation counts rotations.
The MAC, with a key of the server's, shows that the server made just this pair. So the successor of a token follows from
the token itself: a retry gets the same one, nothing usable is stored, and neither the database nor SECRET_KEY, nor
both, are enough to make one.
"""

import secrets
from dataclasses import dataclass

from authserver import opaque

PREFIX = "authserver_rt_"
"""For secret scanners."""
_SEED, _GENERATION, _MAC = 32, 4, 32


@dataclass(frozen=True)
class RefreshToken:
    """A genuine refresh token, of whatever age."""

    seed: bytes
    generation: int

    @property
    def family_hash(self) -> str:
        """Under this the session is found."""
        return opaque.digest(self.seed)

    def successor(self) -> "RefreshToken":
        """Return the one token that follows."""
        return RefreshToken(self.seed, self.generation + 1)


def first() -> RefreshToken:
    """Return the first token of a new family."""
    return RefreshToken(secrets.token_bytes(_SEED), 0)


def write(key: bytes, token: RefreshToken) -> str:
    """Return the text that the client gets: 105 characters."""
    body = token.seed + token.generation.to_bytes(_GENERATION)
    return PREFIX + opaque.b64encode(body + opaque.mac(key, body))


def read(key: bytes, text: str) -> RefreshToken | None:
    """Return what `write` was given, or None for anything that the server did not write."""
    if not text.startswith(PREFIX) or len(text) > 200:
        return None
    try:
        data = opaque.b64decode(text.removeprefix(PREFIX))
    except ValueError:
        return None
    body, mac = data[:-_MAC], data[-_MAC:]
    if len(body) != _SEED + _GENERATION or not opaque.same(mac, opaque.mac(key, body)):
        return None
    return RefreshToken(body[:_SEED], int.from_bytes(body[_SEED:]))
