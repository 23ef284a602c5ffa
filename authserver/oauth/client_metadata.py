"""What a client says of itself when it registers: the names of RFC 7591 §2, and the columns that they fill.

Authlib's model is not used: it takes http addresses of other machines and wildcards, refuses the private-use schemes
of native apps, and raises TypeError on a number where text belongs (docs/standards.md).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from authserver.clients.metadata import DEFAULT_SCOPES, Metadata
from authserver.clients.models import AuthMethod, Client
from authserver.oauth import errors
from authserver.oauth.errors import Refusal

_SCOPES = frozenset({*DEFAULT_SCOPES, "offline_access"})
"""A stranger gets no scope that an API of the operator's gives a meaning to."""
_COLUMNS = {
    "redirect_uris": "redirect_uris",
    "grant_types": "grants",
    "client_name": "name",
    "client_uri": "uri",
    "policy_uri": "policy_uri",
    "tos_uri": "tos_uri",
    "jwks": "jwks",
    "post_logout_redirect_uris": "post_logout_redirect_uris",
    "id_token_signed_response_alg": "id_token_alg",
    "userinfo_signed_response_alg": "userinfo_alg",
    "default_max_age": "default_max_age",
    "require_pushed_authorization_requests": "require_pushed_requests",
    "require_signed_request_object": "require_signed_requests",
}
"""Those that go over as they are."""
# EdDSA waits for an operator who has asked for such a key.
_Algorithm = Literal["RS256", "ES256"]


class Said(BaseModel):
    """The fields that we know and their types. Others are ignored (RFC 7591 §2), what we cannot do is refused."""

    model_config = ConfigDict(strict=True, extra="ignore")

    redirect_uris: list[str] = Field(min_length=1)
    token_endpoint_auth_method: AuthMethod = "client_secret_basic"
    grant_types: list[Literal["authorization_code", "refresh_token"]] = ["authorization_code"]
    response_types: list[Literal["code"]] = ["code"]
    client_name: str | None = None
    client_uri: str | None = None
    policy_uri: str | None = None
    tos_uri: str | None = None
    scope: str = " ".join(DEFAULT_SCOPES)
    jwks: dict[str, Any] | None = None
    post_logout_redirect_uris: list[str] = []
    id_token_signed_response_alg: _Algorithm = "RS256"
    userinfo_signed_response_alg: _Algorithm | None = None
    default_max_age: int | None = None
    require_pushed_authorization_requests: bool = False
    require_signed_request_object: bool = False
    subject_type: Literal["public"] = "public"

    jwks_uri: None = None
    software_statement: None = None
    backchannel_logout_uri: None = None
    """A stranger could make us call into the operator's own network: a name may lead there by the time we call."""
    id_token_encrypted_response_alg: None = None
    userinfo_encrypted_response_alg: None = None
    request_object_encryption_alg: None = None


def read(document: Mapping[str, Any]) -> Metadata | Refusal:
    """Return what is to be registered, or the refusal (RFC 7591 §3.2.2)."""
    try:
        orjson.dumps(document)  # keys go back as they came, so what cannot be written must not come in
        said = Said.model_validate(dict(document))
    except orjson.JSONEncodeError:
        return refused("A text has half a character, or a number is too large.")
    except ValidationError as invalid:
        names = {str(error["loc"][0]) for error in invalid.errors()}
        kind = errors.INVALID_REDIRECT_URI if "redirect_uris" in names else errors.INVALID_CLIENT_METADATA
        return refused(f"We do not register such a value: {', '.join(sorted(names))}.", kind)
    scopes = said.scope.split()
    if not set(scopes) <= _SCOPES:
        return refused(f"Clients that register themselves may ask for {', '.join(sorted(_SCOPES))}.")
    columns = {column: getattr(said, name) for name, column in _COLUMNS.items()}
    columns["name"] = said.client_name or _name_of(said.redirect_uris[0])
    metadata = Metadata(**columns, auth_method=said.token_endpoint_auth_method, scopes=scopes)
    if faults := metadata.faults():
        is_about_redirects = any(fault.pointer == "/redirect_uris" for fault in faults)
        kind = errors.INVALID_REDIRECT_URI if is_about_redirects else errors.INVALID_CLIENT_METADATA
        return refused(" ".join(dict.fromkeys(fault.detail for fault in faults)), kind)
    return metadata


def write(client: Client) -> dict[str, Any]:
    """Return what is registered, by the same names."""
    written = {name: getattr(client, column) for name, column in _COLUMNS.items()}
    written |= {
        "client_id": client.id,
        "client_id_issued_at": int(client.created_at.timestamp()),
        "token_endpoint_auth_method": client.auth_method,
        "response_types": ["code"],
        "scope": " ".join(client.scopes),
        "subject_type": "public",
    }
    return {name: value for name, value in written.items() if value is not None}


def described(method: str, *, has_id: bool) -> dict[str, Any]:
    """Return what /openapi.json says of a request."""
    which = {"name": "client_id", "in": "path", "required": True, "schema": {"type": "string"}}
    body = {"required": True, "content": {"application/json": {"schema": Said.model_json_schema()}}}
    told: dict[str, Any] = {"security": [{"bearer": []}], "parameters": [which] if has_id else []}
    return told | ({"requestBody": body} if method in {"POST", "PUT"} else {})


def refused(why: str, refusal: Refusal = errors.INVALID_CLIENT_METADATA) -> Refusal:
    """Return the refusal that says why, in words of ours: whoever registers a client is there to read it."""
    return dataclasses.replace(refusal, description=why)


def _name_of(redirect_uri: str) -> str:
    """Return what people are shown of a client that has no name: where they will be sent."""
    try:
        parts = urlsplit(redirect_uri)
    except ValueError:
        return redirect_uri[:100]
    return (parts.hostname or parts.scheme)[:100]
