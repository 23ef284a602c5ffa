"""A request that the client has signed: the parameter `request` (RFC 9101, OpenID Connect Core §6.1)."""

from math import inf
from typing import Any

import orjson

from authserver.clients.models import Client
from authserver.oauth import client_jwt
from authserver.oauth.authorization.refusals import INVALID_REQUEST_OBJECT, invalid_request
from authserver.oauth.client_jwt import Jwt
from authserver.oauth.errors import Refusal
from authserver.services import Services
from authserver.text import is_clean

_TYPES = ("jwt", "oauth-authz-req+jwt", "application/oauth-authz-req+jwt")
_OF_THE_JWT = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti", "sub"})
_NEVER_INSIDE = frozenset({"request", "request_uri"})
Values = dict[str, str]


def opened(services: Services, client: Client, values: Values) -> Values | Refusal:
    """Return what the client has signed, and nothing else of the request (RFC 9101 §6.3); the request itself without.

    `client_id` is the one parameter that counts outside, to find the keys.
    """
    if "request" not in values:
        unsigned = client.require_signed_requests
        return invalid_request("This client signs its requests (RFC 9101).") if unsigned else values
    token = client_jwt.read(values["request"])
    if token is None:
        return INVALID_REQUEST_OBJECT.because("not a JWT")
    if why := _fault(token, client.id, services.settings.issuer):
        return INVALID_REQUEST_OBJECT.because(why)
    if not client_jwt.is_signed_by(services, client, token):
        return INVALID_REQUEST_OBJECT.because("not signed with a key or a secret of this client")
    found = {name: _text(value) for name, value in token.claims.items() if name not in _OF_THE_JWT}
    if not all(text is not None and is_clean(name) and is_clean(text) for name, text in found.items()):
        return INVALID_REQUEST_OBJECT.because("a parameter is neither text nor a number")
    return {name: text for name, text in found.items() if text} | {"client_id": client.id}


def _fault(token: Jwt, client_id: str, issuer: str) -> str | None:
    """Look at everything that the signature has no part in."""
    claims = token.claims
    audience = claims.get("aud")
    if token.header.get("alg") not in client_jwt.ALGORITHMS:
        return "alg is not allowed"
    if not token.is_of_type(*_TYPES):
        return "typ is that of another kind of JWT"
    if claims.get("iss") != client_id or claims.get("client_id", client_id) != client_id:
        return "iss or client_id is not the client_id of the request"
    if audience != issuer and not (isinstance(audience, list) and issuer in audience):
        return "aud is not the issuer"
    if not _NEVER_INSIDE.isdisjoint(claims):
        return "a request object inside a request object"
    return token.fault_in_dates(inf)


def _text(value: Any) -> str | None:
    """Return a member of the JSON as the parameter that it stands for."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, dict):  # claims
        return orjson.dumps(value).decode()
    if isinstance(value, list) and all(isinstance(one, str) for one in value):  # resource
        return " ".join(value)
    return None
