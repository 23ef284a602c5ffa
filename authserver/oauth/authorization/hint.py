"""Who is meant by `id_token_hint` (OpenID Connect Core §3.1.2.1)."""

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from authserver.oauth import client_jwt
from authserver.services import Services

_ALGORITHMS = ("ES256", "RS256", "EdDSA")
_REGISTRY = JWSRegistry(algorithms=list(_ALGORITHMS))


async def subject(services: Services, text: str) -> str | None:
    """Return the `sub` of an ID token that we have signed, expired or not; None if it is none."""
    token = client_jwt.read(text)
    if token is None or token.header.get("alg") not in _ALGORITHMS or not token.is_of_type("jwt"):
        return None
    if token.claims.get("iss") != services.settings.issuer:
        return None
    key = await services.keyring.find(str(token.header.get("kid")))
    if key is None:
        return None
    try:
        jws.deserialize_compact(text, key.public, registry=_REGISTRY)
    except (JoseError, ValueError):
        return None
    found = token.claims.get("sub")
    return found if isinstance(found, str) else None
