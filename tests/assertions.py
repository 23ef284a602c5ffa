"""Clients that sign, for tests: their keys, and the assertions that they prove themselves with (RFC 7523)."""

import secrets
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from tests.application import ISSUER
from tests.factories import App, NewClient

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
KEYS: Mapping[str, Key] = {
    "ES256": ECKey.generate_key("P-256", parameters={"kid": "p256"}),
    "ES384": ECKey.generate_key("P-384", parameters={"kid": "p384"}),
    "RS256": RSAKey.generate_key(2048, parameters={"kid": "rsa"}),
    "EdDSA": OKPKey.generate_key("Ed25519", parameters={"kid": "ed25519"}),
}
_ANY = JWSRegistry(algorithms=["ES256", "ES384", "RS256", "RS512", "PS256", "PS384", "EdDSA", "Ed25519", "HS256",
                               "HS384"], strict_check_header=False)  # fmt: skip


def key_set(*keys: Key) -> dict[str, Any]:
    """Return the public halves, as a client registers them."""
    return {"keys": [key.as_dict(private=False) for key in keys]}


@dataclass(frozen=True)
class Signer:
    """A client and what it signs with."""

    client_id: str
    key: Key
    alg: str
    issuer: str = ISSUER

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return what a sound assertion says; a change to None leaves a claim out."""
        now = int(time.time())
        usual = {"iss": self.client_id, "sub": self.client_id, "aud": self.issuer, "iat": now, "exp": now + 60}
        claims = usual | {"jti": secrets.token_hex(16)} | changes
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, header: Mapping[str, Any] | None = None, key: Key | None = None, **changes: Any) -> str:
        """Return an assertion."""
        head = {"alg": self.alg, **(header or {})}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # EdDSA has a new name (RFC 9864)
            return jwt.encode(head, self.claims(**changes), key or self.key, registry=_ANY, default_type=None)

    def form(self, assertion: str | None = None, **changes: str) -> dict[str, str]:
        """Return the parameters that prove the client."""
        return {"client_assertion_type": TYPE, "client_assertion": assertion or self.sign(), **changes}


async def new_signer(new_client: NewClient, alg: str = "ES256", **changes: Any) -> Signer:
    """Register a client that proves itself by its key."""
    key = KEYS[{"PS256": "RS256", "Ed25519": "EdDSA"}.get(alg, alg)]
    app = await new_client(auth_method="private_key_jwt", jwks=key_set(key), **changes)
    return Signer(app.client_id, key, alg)


async def new_secret_signer(new_client: NewClient, **changes: Any) -> tuple[App, Signer]:
    """Register a client that signs with its secret."""
    app = await new_client(auth_method="client_secret_jwt", **changes)
    return app, Signer(app.client_id, OctKey.import_key(app.secret or ""), "HS256")
