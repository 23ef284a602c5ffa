"""A client that acts for itself, not for a user (RFC 6749 §4.4)."""

from datetime import timedelta

from starlette.responses import Response

from authserver import clock
from authserver.oauth import audience, errors, scopes
from authserver.oauth.client import Asked
from authserver.oauth.errors import Refusal
from authserver.oauth.issue import token_response
from authserver.services import Services
from authserver.sessions.lifecycle import SignIn
from authserver.tokens import access_token

ABOUT_A_USER = frozenset({"openid", "profile", "email", "offline_access"})
"""Scopes that say something of a person (OpenID Connect Core §5.4), so nothing here."""


async def client_credentials(services: Services, asked: Asked) -> Response | Refusal:
    """Answer with an access token whose subject is the client (RFC 9068 §2.2); no refresh token (RFC 6749 §4.4.3).

    Nothing is written. The token carries the client's own session id, which ends when the client is switched off.
    """
    client = asked.client
    if client.is_public:
        return errors.UNAUTHORIZED_CLIENT.because("a public client has nothing to prove itself with (§4.4)")
    scope = scopes.granted(asked.form.get("scope"), [name for name in client.scopes if name not in ABOUT_A_USER])
    if scope is None:
        return errors.INVALID_SCOPE
    resources = audience.granted(asked.form.get("resource"), client.audience)
    if isinstance(resources, Refusal):
        return resources
    own = SignIn(
        session_id=client.own_session_id,
        user_id=None,
        username=None,
        scope=scope,
        jti=access_token.new_jti(),
        access_expires_at=clock.now() + timedelta(seconds=services.settings.access_token_seconds),
        refresh_token=None,
    )
    return token_response(services, client, own, scope, audience=resources)
