"""The successful answer of the token endpoint (RFC 6749 §5.1)."""

from starlette.responses import Response

from authserver import clock
from authserver.clients.models import Client
from authserver.oauth.errors import json_response
from authserver.observability import requests
from authserver.services import Services
from authserver.sessions.lifecycle import SignIn


def token_response(services: Services, client: Client, sign_in: SignIn, scope: str) -> Response:
    """Sign the access token of a session and return the answer; call it when the session's row is committed."""
    user_id = None if sign_in.user_id is None else str(sign_in.user_id)
    requests.note(user_id=user_id, session_id=str(sign_in.session_id))
    token = services.access_tokens.issue(
        jti=sign_in.jti,
        expires_at=sign_in.access_expires_at,
        subject=user_id or client.id,
        client_id=client.id,
        scope=scope,
        audience=client.audience,
        session_id=str(sign_in.session_id),
        username=sign_in.username,
    )
    answer: dict[str, object] = {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": max(0, round((sign_in.access_expires_at - clock.now()).total_seconds())),
        "scope": scope,
    }
    if sign_in.refresh_token is not None:
        answer["refresh_token"] = sign_in.refresh_token
    return json_response(answer)
