"""The successful answer of the token endpoint (RFC 6749 §5.1), with the ID token of a sign-in (OIDC Core §3.1.3.3)."""

from collections.abc import Mapping

from starlette.responses import Response

from authserver import clock
from authserver.clients.models import Client
from authserver.oauth import claims
from authserver.oauth.errors import json_response
from authserver.observability import requests
from authserver.services import Services
from authserver.sessions.lifecycle import SignIn
from authserver.sessions.models import AuthorizationCode
from authserver.users import finding


def token_response(
    services: Services,
    client: Client,
    sign_in: SignIn,
    scope: str,
    *,
    audience: list[str],
    nonce: str | None = None,
    id_token_claims: Mapping[str, object] | None = None,
) -> Response:
    """Sign the tokens of a session and return the answer; call it when the session's row is committed.

    An ID token belongs to it if the user has proved in a browser who they are, at a refresh too (OIDC Core §12.2).
    """
    user_id = None if sign_in.user_id is None else str(sign_in.user_id)
    requests.note(user_id=user_id, session_id=str(sign_in.session_id))
    token = services.access_tokens.issue(
        jti=sign_in.jti,
        expires_at=sign_in.access_expires_at,
        subject=user_id or client.id,
        client_id=client.id,
        scope=scope,
        audience=audience,
        session_id=str(sign_in.session_id),
        username=sign_in.username,
        userinfo_claims=sign_in.userinfo_claims,
    )
    answer: dict[str, object] = {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": max(0, round((sign_in.access_expires_at - clock.now()).total_seconds())),
        "scope": scope,
    }
    if sign_in.refresh_token is not None:
        answer["refresh_token"] = sign_in.refresh_token
    if sign_in.authenticated is not None and "openid" in scope.split(" "):
        answer["id_token"] = services.id_tokens.issue(
            algorithm=client.id_token_alg,
            client_id=client.id,
            subject=str(sign_in.user_id),
            session_id=str(sign_in.session_id),
            expires_at=sign_in.access_expires_at,
            authenticated_at=sign_in.authenticated.at,
            amr=sign_in.authenticated.amr,
            access_token=token,
            nonce=nonce,
            more=id_token_claims or {},
        )
    return json_response(answer)


async def asked_for(services: Services, whose: AuthorizationCode | SignIn) -> dict[str, object]:
    """Return the claims that an ID token was to have by name (§5.5); what scopes open is at /userinfo only (§5.4)."""
    if whose.id_token_claims is None or whose.user_id is None:
        return {}
    user = await finding.by_id(services.db, whose.user_id)
    return {} if user is None else claims.about(user, named=whose.id_token_claims)
