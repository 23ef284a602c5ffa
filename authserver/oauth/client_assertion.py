"""A client proves itself by a JWT that it has signed: private_key_jwt and client_secret_jwt (RFC 7523, OIDC Core §9).

The order of the checks matters: what costs nothing comes first, the signature before anything is believed, and the
one row that makes an assertion single use comes last, so that nobody else can spend it or fill the table.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeyBase, OctKey, OKPKey, RSAKey

from authserver import clock, opaque
from authserver.clients import jwks
from authserver.clients.authentication import MAX_ID_CHARACTERS
from authserver.clients.models import Client
from authserver.keys.signing import Registry
from authserver.oauth import errors
from authserver.oauth.errors import Refusal
from authserver.oauth.request import Form, Head
from authserver.services import Services
from authserver.text import is_clean

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
BY_SECRET = "HS256"
ALGORITHMS = [name for names in jwks.ALGORITHMS.values() for name in names] + [BY_SECRET]
MAX_SECONDS = 3600
"""An assertion may live so long from now; Authlib makes them for an hour, others for one minute."""
_LEEWAY_SECONDS = 60
"""For clients whose clock is ahead."""
_MAX_CHARACTERS = 8192
_MAX_JTI_CHARACTERS = 255
_HEADER_TYPES = frozenset({None, "jwt", "client-authentication+jwt"})
"""No other kind of JWT can be taken for an assertion (RFC 8725 §3.11, draft-ietf-oauth-rfc7523bis)."""
_KEY_TYPES: dict[str, type[ECKey | RSAKey | OKPKey]] = {"EC": ECKey, "RSA": RSAKey, "OKP": OKPKey}


class _Registry(Registry):
    """How joserfc reads what others have written: certificates in the header (`x5c`) make it long."""

    max_header_length = _MAX_CHARACTERS


_REGISTRY = _Registry(algorithms=ALGORITHMS, strict_check_header=False)


@dataclass(frozen=True)
class Assertion:
    """What a request offers; nothing of it is verified yet."""

    text: str
    header: dict[str, Any]
    claims: dict[str, Any]
    client_id: str


def is_offered(form: Form) -> bool:
    """Tell whether a request tries to prove itself by an assertion."""
    return "client_assertion" in form or "client_assertion_type" in form


def read(head: Head, form: Form) -> Assertion | Refusal:
    """Return the assertion of a request that has no other proof."""
    if head.authorization or "client_secret" in form:
        return errors.TWO_METHODS
    if form.get("client_assertion_type") != TYPE:
        return _refused("client_assertion_type is not that of a JWT")
    text = form.get("client_assertion", "")
    parts = _parts(text)
    if parts is None:
        return _refused("not a JWT")
    header, claims = parts
    client_id: Any = claims.get("sub")
    is_name = isinstance(client_id, str) and len(client_id) <= MAX_ID_CHARACTERS and is_clean(client_id)
    if not is_name or claims.get("iss") != client_id:
        return _refused("iss and sub are not the client_id")
    if form.get("client_id", client_id) != client_id:
        return _refused("client_id differs from sub")
    return Assertion(text, header, claims, client_id)


async def verify(services: Services, assertion: Assertion) -> Client | Refusal:
    """Return the client that has made the assertion, for this server and this one time; StoreUnavailable."""
    claims = assertion.claims
    if why := _fault(assertion, services.settings.issuer):
        return _refused(why)
    client = await services.clients.find_active(assertion.client_id)
    if client is None:
        return _refused("unknown client, or switched off")
    if not any(_is_signed_with(key, assertion) for key in _keys(services, client, assertion.header)):
        return _refused("not signed with a key of this client in a way that it is registered for")
    if not await services.clients.use_once(client.id, claims["jti"], datetime.fromtimestamp(claims["exp"], UTC)):
        return _refused("used before (jti)")
    return client


def _parts(text: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return header and claims of what may be a JWS."""
    if len(text) > _MAX_CHARACTERS or text.count(".") != 2 or not text.isascii():
        return None
    try:
        header, claims = (orjson.loads(opaque.b64decode(part)) for part in text.split(".")[:2])
    except ValueError:
        return None
    return (header, claims) if isinstance(header, dict) and isinstance(claims, dict) else None


def _fault(assertion: Assertion, issuer: str) -> str | None:
    """Look at everything that the signature has no part in (RFC 7523 §3)."""
    header, claims = assertion.header, assertion.claims
    now = clock.now().timestamp()
    kind, jti = header.get("typ"), claims.get("jti")
    dates: list[Any] = [claims.get("exp"), claims.get("nbf", now), claims.get("iat", now)]
    exp, nbf, iat = dates
    if header.get("alg") not in ALGORITHMS:
        return "alg is not allowed"
    if not isinstance(kind, str | None) or (kind and kind.lower()) not in _HEADER_TYPES:
        return "typ is that of another kind of JWT"
    if claims.get("aud") not in (issuer, [issuer]):
        return "aud is not the issuer, alone"
    if not all(isinstance(date, int | float) and not isinstance(date, bool) for date in dates):
        return "exp is missing, or a date is not a number"
    if not now < exp <= now + MAX_SECONDS + _LEEWAY_SECONDS:
        return "expired, or too far in the future (exp)"
    if max(nbf, iat) > now + _LEEWAY_SECONDS:
        return "not good yet (nbf, iat)"
    if not isinstance(jti, str) or not 1 <= len(jti) <= _MAX_JTI_CHARACTERS:
        return "jti is missing, or too long"
    return None


def _keys(services: Services, client: Client, header: dict[str, Any]) -> list[KeyBase]:
    """Return what the client may have signed with. Its registration decides which kind, never the header."""
    name = header["alg"]
    if client.auth_method == "client_secret_jwt" and name == BY_SECRET:
        return [OctKey.import_key(secret) for secret in services.clients.signing_secrets(client)]
    if client.auth_method != "private_key_jwt" or client.jwks is None:
        return []
    return [
        _KEY_TYPES[key["kty"]].import_key(key)
        for key in client.jwks["keys"]
        if name in jwks.ALGORITHMS[jwks.kind(key)]
        and key.get("alg", name) == name
        and ("kid" not in header or key.get("kid", header["kid"]) == header["kid"])
    ]


def _is_signed_with(key: KeyBase, assertion: Assertion) -> bool:
    try:
        jws.deserialize_compact(assertion.text, key, registry=_REGISTRY)
    except (JoseError, ValueError, RecursionError):  # joserfc reads a deep header with Python's own parser
        return False
    return True


def _refused(reason: str) -> Refusal:
    return errors.INVALID_CLIENT.because(f"client assertion: {reason}")
