"""Random secrets, and the keyed hashes under which they are known.

Every purpose has its own key, derived from SECRET_KEY (RFC 5869), so that nothing made for one fits another.
"""

import base64
import hashlib
import hmac
import secrets

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derived_key(secret_key: str, purpose: str) -> bytes:
    """Return the 32-byte key for one purpose."""
    return HKDF(SHA256(), 32, salt=None, info=f"authserver {purpose}".encode()).derive(secret_key.encode())


def mac(key: bytes, message: bytes) -> bytes:
    """Return the 32-byte HMAC-SHA256 of a message."""
    return hmac.digest(key, message, "sha256")


def random_text(prefix: str) -> str:
    """Return `prefix` and 256 random bits, base64url: 43 characters more."""
    return prefix + secrets.token_urlsafe(32)


def b64encode(data: bytes) -> str:
    """Return unpadded base64url (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64decode(text: str) -> bytes:
    """Return the bytes of unpadded base64url; ValueError for anything that `b64encode` would not have written."""
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if b64encode(data) != text:
        raise ValueError("not the canonical base64url form")
    return data


def digest(data: bytes) -> str:
    """Return the SHA-256 of a value that is random enough to need no key, in hex."""
    return hashlib.sha256(data).hexdigest()


def same(left: str | bytes, right: str | bytes) -> bool:
    """Compare in constant time, any characters."""
    left_bytes = left if isinstance(left, bytes) else left.encode("utf-8", "surrogatepass")
    right_bytes = right if isinstance(right, bytes) else right.encode("utf-8", "surrogatepass")
    return hmac.compare_digest(left_bytes, right_bytes)
