"""The public keys of a client, as it registers them (RFC 7517): looked at once, so that no request finds them bad."""

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from authserver import opaque
from authserver.errors import Fault
from authserver.text import is_clean

ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "Ed25519": ("EdDSA", "Ed25519"),
    "RSA": ("RS256", "PS256"),
}
"""What each kind of key may sign with; Ed25519 has an old and a new name (RFC 8037, RFC 9864)."""
MAX_KEYS = 10
_CURVES: Mapping[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_RSA_BITS = range(2048, 4097)
_MAX_EXPONENT = 2**32

Jwk = Mapping[str, Any]


def kind(key: Jwk) -> str:
    """Return the curve of a key, or RSA."""
    return "RSA" if key.get("kty") == "RSA" else str(key.get("crv"))


def faults(document: object) -> list[Fault]:
    """Return what is wrong with a key set."""
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= MAX_KEYS or not all(isinstance(key, dict) for key in keys):
        return [Fault("/jwks", f"A key set is a JSON object whose `keys` are 1 to {MAX_KEYS} keys (RFC 7517 §5).")]
    found = [Fault(f"/jwks/keys/{number}", why) for number, key in enumerate(keys) if (why := _fault(key))]
    names = [key["kid"] for key in keys if "kid" in key]
    if not found and len(names) != len(set(names)):
        found.append(Fault("/jwks", "Two keys have one kid."))
    return found


def _fault(key: Jwk) -> str | None:
    if not _PRIVATE.isdisjoint(key):
        return "It holds a private key; that stays with the client. Register the public one."
    name = key.get("kid", "none")
    if not isinstance(name, str) or not 1 <= len(name) <= 255 or not is_clean(name):
        return "A kid has 1 to 255 characters, no control characters."
    if key.get("use", "sig") != "sig":
        return "It is not for signatures (use)."
    if kind(key) not in ALGORITHMS:
        return "A key is RSA, or on the curve P-256, P-384 or Ed25519."
    allowed = ALGORITHMS[kind(key)]
    if key.get("alg", allowed[0]) not in allowed:
        return f"Such a key signs with {' or '.join(allowed)}."
    try:
        return _parsed(key)
    except (KeyError, TypeError, ValueError):
        return "It is not a well-formed public key (RFC 7518 §6)."


def _parsed(key: Jwk) -> str | None:
    """Read the numbers of a key, which fails if they are no key; return what is wrong with their size."""
    match key["kty"]:
        case "RSA":
            modulus, exponent = _number(key["n"]), _number(key["e"])
            if modulus.bit_length() not in _RSA_BITS or exponent >= _MAX_EXPONENT:
                return f"An RSA key has {_RSA_BITS.start} to {_RSA_BITS.stop - 1} bits."
            rsa.RSAPublicNumbers(exponent, modulus).public_key()
        case "EC":
            ec.EllipticCurvePublicNumbers(_number(key["x"]), _number(key["y"]), _CURVES[key["crv"]]).public_key()
        case "OKP" if key["crv"] == "Ed25519":
            ed25519.Ed25519PublicKey.from_public_bytes(opaque.b64decode(key["x"]))
        case _:
            raise ValueError("a curve of another kind of key")
    return None


def _number(text: str) -> int:
    return int.from_bytes(opaque.b64decode(text), "big")
