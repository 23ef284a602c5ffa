"""A client proves itself by a JWT that it has signed: private_key_jwt and client_secret_jwt (RFC 7523, OIDC Core §9).

The order of the checks matters: what costs nothing comes first, the signature before anything is believed, and the
one row that makes an assertion single use comes last, so that nobody else can spend it or fill the table.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from authserver.clients.authentication import MAX_ID_CHARACTERS
from authserver.clients.models import Client
from authserver.oauth import client_jwt, errors
from authserver.oauth.client_jwt import ALGORITHMS, BY_SECRET, Jwt
from authserver.oauth.errors import Refusal
from authserver.oauth.request import Form, Head
from authserver.services import Services
from authserver.text import is_clean

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MAX_SECONDS = 3600
"""An assertion may live so long from now; Authlib makes them for an hour, others for one minute."""
_MAX_JTI_CHARACTERS = 255
_HEADER_TYPES = ("jwt", "client-authentication+jwt")
"""draft-ietf-oauth-rfc7523bis."""


@dataclass(frozen=True)
class Assertion:
    """What a request offers; nothing of it is verified yet."""

    jwt: Jwt
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
    jwt = client_jwt.read(form.get("client_assertion", ""))
    if jwt is None:
        return _refused("not a JWT")
    client_id: Any = jwt.claims.get("sub")
    is_name = isinstance(client_id, str) and len(client_id) <= MAX_ID_CHARACTERS and is_clean(client_id)
    if not is_name or jwt.claims.get("iss") != client_id:
        return _refused("iss and sub are not the client_id")
    if form.get("client_id", client_id) != client_id:
        return _refused("client_id differs from sub")
    return Assertion(jwt, client_id)


async def verify(services: Services, assertion: Assertion) -> Client | Refusal:
    """Return the client that has made the assertion, for this server and this one time; StoreUnavailable."""
    claims = assertion.jwt.claims
    if why := _fault(assertion.jwt, services.settings.issuer):
        return _refused(why)
    client = await services.clients.find_active(assertion.client_id)
    if client is None:
        return _refused("unknown client, or switched off")
    by_secret = assertion.jwt.header["alg"] == BY_SECRET
    if client.auth_method != ("client_secret_jwt" if by_secret else "private_key_jwt"):
        return _refused("this client is not registered for this way to prove itself")
    if not client_jwt.is_signed_by(services, client, assertion.jwt):
        return _refused("not signed with a key of this client in a way that it is registered for")
    if not await services.clients.use_once(client.id, claims["jti"], datetime.fromtimestamp(claims["exp"], UTC)):
        return _refused("used before (jti)")
    return client


def _fault(jwt: Jwt, issuer: str) -> str | None:
    """Look at everything that the signature has no part in (RFC 7523 §3)."""
    jti = jwt.claims.get("jti")
    if jwt.header.get("alg") not in ALGORITHMS:
        return "alg is not allowed"
    if not jwt.is_of_type(*_HEADER_TYPES):
        return "typ is that of another kind of JWT"
    if jwt.claims.get("aud") not in (issuer, [issuer]):
        return "aud is not the issuer, alone"
    if why := jwt.fault_in_dates(MAX_SECONDS):
        return why
    if not isinstance(jti, str) or not 1 <= len(jti) <= _MAX_JTI_CHARACTERS:
        return "jti is missing, or too long"
    return None


def _refused(reason: str) -> Refusal:
    return errors.INVALID_CLIENT.because(f"client assertion: {reason}")
