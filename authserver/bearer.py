"""Who calls: the access token of a request, checked as RFC 6750 and RFC 9068 §4 say, and the user it speaks for."""

from dataclasses import dataclass
from uuid import UUID

from starlette.requests import Request

from authserver import services
from authserver.errors import BadRequest, Forbidden, Unauthenticated
from authserver.observability import requests
from authserver.tokens.access_token import Claims
from authserver.users.models import User

_REALM = 'Bearer realm="authserver"'


@dataclass(frozen=True)
class Caller:
    """The user who calls, and what their token says."""

    user: User
    claims: Claims

    @property
    def session_id(self) -> UUID | None:
        """The sign-in that the token comes from."""
        return UUID(self.claims.session_id) if self.claims.session_id else None


async def authenticate(request: Request, *, scope: str | None = None, in_form: str | None = None) -> Caller:
    """Return who calls; Unauthenticated, BadRequest or Forbidden with WWW-Authenticate if that is not to be had.

    `in_form` is a token that the body had (RFC 6750 §2.2), in place of the header: a request has one or the other.
    StoreUnavailable when nobody knows whether the token has been revoked: never a guess.
    """
    if in_form is None:
        token = token_of(request)
    elif "authorization" in request.headers:
        raise malformed("Send the access token in the header or in the form, not in both.")
    else:
        token = in_form
    parts = services.of(request)
    claims = await parts.access_tokens.read(token)
    if claims is None or parts.settings.issuer not in claims.audience:
        raise invalid_token()
    requests.note(client_id=claims.client_id, user_id=claims.subject, session_id=claims.session_id)
    if await parts.denylist.is_revoked(claims.jti, claims.session_id):
        raise invalid_token()
    if claims.username is None:  # a client acting for itself: its name must not pass for a user's (RFC 9068 §5)
        raise invalid_token()
    user = await parts.users.by_id(UUID(claims.subject))
    if user is None or not user.is_active:
        raise await of_nobody(request, claims)
    if scope is not None and scope not in claims.scopes:
        challenge = f'{_REALM}, error="insufficient_scope", scope="{scope}"'
        raise Forbidden(f"The access token lacks the scope {scope}.", {"WWW-Authenticate": challenge})
    return Caller(user, claims)


def token_of(request: Request) -> str:
    """Return the bearer token of the Authorization header (RFC 6750 §2.1); Unauthenticated or BadRequest."""
    headers = request.headers.getlist("authorization")
    scheme, _, token = (headers[0] if headers else "").partition(" ")
    if not headers or scheme.lower() != "bearer":
        # No error code when no token was sent (§3).
        raise Unauthenticated("Send an access token: `Authorization: Bearer …`.", {"WWW-Authenticate": _REALM})
    token = token.strip(" ")
    if len(headers) > 1 or not token or " " in token:
        raise malformed("Send one Authorization header: `Bearer`, a space, the token.")
    return token


def malformed(detail: str) -> BadRequest:
    """Return the refusal of a request that offers its token in a wrong way (RFC 6750 §3.1)."""
    return BadRequest(detail, {"WWW-Authenticate": f'{_REALM}, error="invalid_request"'})


async def of_nobody(request: Request, claims: Claims) -> Unauthenticated:
    """Return the refusal of a token whose user is gone or switched off, once all nodes know that the token is dead.

    Whoever did that may not have told everybody yet. Not to be called inside a transaction.
    """
    await services.of(request).denylist.make_known(claims.jti, claims.session_id)
    return invalid_token()


def invalid_token() -> Unauthenticated:
    """Return the refusal of a token that is not good (any more), for whatever reason (RFC 6750 §3.1)."""
    challenge = f'{_REALM}, error="invalid_token", error_description="The access token is not valid (any more)"'
    return Unauthenticated("The access token is not valid (any more).", {"WWW-Authenticate": challenge})
