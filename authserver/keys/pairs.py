"""Key pairs of each algorithm: how they are made, locked away under SECRET_KEY, and opened again."""

import asyncio
import base64
import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from cryptography.fernet import Fernet, InvalidToken
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key

from authserver import opaque
from authserver.keys.models import SigningKey
from authserver.settings import Settings

log = logging.getLogger(__name__)

Algorithm = Literal["ES256", "RS256", "EdDSA"]
Pair = ECKey | RSAKey | OKPKey

ES256: Algorithm = "ES256"
"""For access tokens."""
RS256: Algorithm = "RS256"
"""For ID tokens, unless a relying party asks for another: every one must understand it (OIDC Core §15.1)."""
EDDSA: Algorithm = "EdDSA"
"""With Ed25519; for relying parties that ask for it."""

_RSA_BITS = 2048


@dataclass(frozen=True)
class Key:
    """One key pair; `private` is absent when SECRET_KEY is not the one that encrypted it."""

    kid: str
    algorithm: str
    public_jwk: dict[str, Any]
    public: Pair
    private: Pair | None
    created_at: datetime
    signs_from: datetime
    verifies_until: datetime | None


class Pairs:
    """Makes and opens key pairs in a thread: RSA takes its time, up to a second."""

    def __init__(self, settings: Settings) -> None:
        secret = opaque.derived_key(settings.secret_key.get_secret_value(), "signing keys")
        self._cipher = Fernet(base64.urlsafe_b64encode(secret))

    async def make(self, algorithm: Algorithm) -> SigningKey:
        """Return a new key for the table, still without dates."""
        return await asyncio.to_thread(self._made, algorithm)

    async def open(self, row: SigningKey) -> Key | None:
        """Return the key that a row holds; None, and a line in the log, if it holds none: the others still sign."""
        try:
            return await asyncio.to_thread(self._opened, row)
        except (JoseError, ValueError) as failure:
            log.error("signing_key_unusable", extra={"kid": row.kid, "reason": type(failure).__name__})  # noqa: TRY400
            return None

    def _made(self, algorithm: Algorithm) -> SigningKey:
        pair = _generated(algorithm)
        kid = pair.thumbprint()
        return SigningKey(
            kid=kid,
            alg=algorithm,
            public_jwk={**pair.as_dict(private=False), "kid": kid, "use": "sig", "alg": algorithm},
            encrypted_private_jwk=self._cipher.encrypt(json.dumps(pair.as_dict(private=True)).encode()),
        )

    def _opened(self, row: SigningKey) -> Key:
        try:
            private = _imported(json.loads(self._cipher.decrypt(row.encrypted_private_jwk)))
        except InvalidToken:
            private = None
        return Key(
            kid=row.kid,
            algorithm=row.alg,
            public_jwk=row.public_jwk,
            public=_imported(row.public_jwk),
            private=private,
            created_at=row.created_at,
            signs_from=row.signs_from,
            verifies_until=row.verifies_until,
        )


def _generated(algorithm: Algorithm) -> Pair:
    match algorithm:
        case "ES256":
            return ECKey.generate_key("P-256", parameters={"use": "sig", "alg": algorithm})
        case "RS256":
            return RSAKey.generate_key(_RSA_BITS, parameters={"use": "sig", "alg": algorithm})
        case "EdDSA":
            return OKPKey.generate_key("Ed25519", parameters={"use": "sig", "alg": algorithm})


def _imported(jwk: dict[str, Any]) -> Pair:
    pair = import_key(jwk)
    assert isinstance(pair, Pair)
    return pair
