"""What an authorization request asks for, each parameter honoured or refused (RFC 6749 §4.1.1, OIDC Core §3.1.2.1)."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from authserver.clients.models import Client
from authserver.oauth import audience, errors, scopes
from authserver.oauth.authorization import claims, refusals
from authserver.oauth.authorization.claims import AskedClaims
from authserver.oauth.authorization.refusals import invalid_request
from authserver.oauth.authorization.response import MODES, QUERY
from authserver.oauth.errors import Refusal
from authserver.sessions.authorization_code import Allowed
from authserver.sessions.browser import OFFLINE
from authserver.tokens.id_token import ACR

NONE, LOGIN, CONSENT, SELECT_ACCOUNT = "none", "login", "consent", "select_account"
PROMPTS = (NONE, LOGIN, CONSENT, SELECT_ACCOUNT)
DISPLAYS = ("page", "popup", "touch", "wap")
"""Our pages fit them all."""
_MAX_NONCE_CHARACTERS = 1000
_S256 = re.compile(r"[A-Za-z0-9_-]{43}")
_SECONDS = re.compile(r"[0-9]{1,9}")
Values = dict[str, str]


@dataclass(frozen=True)
class AuthorizationRequest:
    """A request that makes sense, and that the client may make."""

    allowed: Allowed
    """What the user will have allowed, when they have."""
    consent_to: str
    """The scopes that the user must have consented to."""
    prompts: frozenset[str]
    max_age: int | None
    """Seconds since the user has proved who they are."""
    subjects: frozenset[str] | None
    """The answer may only speak of one of these users."""
    id_token_hint: str | None
    login_hint: str | None
    ui_locales: str | None


def checked(client: Client, values: Values) -> AuthorizationRequest | Refusal:
    """Return what a client asks for, or why it cannot be had."""
    for check in _CHECKS:
        if refusal := check(client, values):
            return refusal
    wishes = claims.read(values.get("claims"))
    if wishes is None:
        return invalid_request("The parameter claims is not well-formed.")
    if wishes.acr_values is not None and ACR not in wishes.acr_values:
        return refusals.UNMET_AUTHENTICATION
    scope = _scope(client, values)
    if scope is None:
        return errors.INVALID_SCOPE
    granted = audience.granted(values.get("resource"), client.audience)
    if isinstance(granted, Refusal):
        return granted
    is_openid = "openid" in scope.split(" ")
    wishes = wishes.within(client.scopes) if is_openid else AskedClaims()
    max_age = values.get("max_age")
    return AuthorizationRequest(
        allowed=Allowed(
            client_id=client.id,
            redirect_uri=values.get("redirect_uri"),
            scope=scope,
            audience=granted if "resource" in values else None,
            id_token_claims=list(wishes.id_token) or None,
            userinfo_claims=list(wishes.userinfo) or None,
            code_challenge=values.get("code_challenge"),
            nonce=values.get("nonce"),
        ),
        consent_to=" ".join(dict.fromkeys([*scope.split(" "), *sorted(wishes.scopes)])),
        prompts=frozenset(values.get("prompt", "").split()),
        max_age=client.default_max_age if max_age is None else int(max_age),
        subjects=wishes.subjects,
        id_token_hint=values.get("id_token_hint"),
        login_hint=values.get("login_hint"),
        ui_locales=values.get("ui_locales"),
    )


def _scope(client: Client, values: Values) -> str | None:
    """Return the scope to grant; what a request without one gets is no OpenID Connect, and ends with the browser."""
    if "scope" not in values:
        return scopes.granted(None, [name for name in client.scopes if name not in ("openid", OFFLINE)]) or None
    return scopes.granted(values["scope"], client.scopes)


def _response(client: Client, values: Values) -> Refusal | None:
    response_type = values.get("response_type")
    if response_type is None:
        return errors.missing("response_type")
    if response_type != "code":
        return refusals.UNSUPPORTED_RESPONSE_TYPE
    if "authorization_code" not in client.grants:
        return refusals.UNAUTHORIZED_CLIENT
    if values.get("response_mode", QUERY) not in MODES:
        return invalid_request("There is no such response_mode.")
    return None


def _what_is_not_supported(_client: Client, values: Values) -> Refusal | None:
    if "registration" in values:
        return refusals.REGISTRATION_NOT_SUPPORTED
    return None


def _proof_key(client: Client, values: Values) -> Refusal | None:
    """Check what RFC 7636 §4.3 says; `plain`, also where it is the default, proves nothing to who sees the request."""
    challenge, method = values.get("code_challenge"), values.get("code_challenge_method")
    if challenge is None:
        if method is not None or client.is_public or client.require_pkce:
            return errors.missing("code_challenge")
        return None
    if method != "S256":
        return invalid_request("The only code_challenge_method is S256.")
    return None if _S256.fullmatch(challenge) else invalid_request("The code_challenge is not that of S256.")


def _how_to_sign_in(_client: Client, values: Values) -> Refusal | None:
    prompts = values.get("prompt", "").split()
    if not set(prompts) <= set(PROMPTS):
        return invalid_request("There is no such prompt.")
    if NONE in prompts and len(prompts) > 1:
        return invalid_request("The prompt none goes with no other.")
    if "max_age" in values and not _SECONDS.fullmatch(values["max_age"]):
        return invalid_request("The parameter max_age is a number of seconds.")
    if values.get("display", DISPLAYS[0]) not in DISPLAYS:
        return invalid_request("There is no such display.")
    if len(values.get("nonce", "")) > _MAX_NONCE_CHARACTERS:
        return invalid_request("The nonce is too long.")
    return None


_CHECKS: tuple[Callable[[Client, Values], Refusal | None], ...] = (
    _what_is_not_supported,
    _response,
    _proof_key,
    _how_to_sign_in,
)
