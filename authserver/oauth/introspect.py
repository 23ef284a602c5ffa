"""POST /introspect (RFC 7662): who asks, is the token ours and theirs to see, is it revoked."""

from starlette.requests import Request
from starlette.responses import Response

from authserver import services
from authserver.clients.models import Client
from authserver.oauth import errors
from authserver.oauth.client import asked
from authserver.oauth.errors import Refusal, json_response
from authserver.observability import metrics
from authserver.services import Services
from authserver.sessions import refresh_token
from authserver.tokens.access_token import Claims

INACTIVE: dict[str, object] = {"active": False}
_COUNT = {outcome: metrics.INTROSPECTIONS.labels("active" if outcome else "inactive").inc for outcome in (True, False)}


async def introspect(request: Request) -> Response:
    """Tell a client whether a token is active."""
    house = services.of(request)
    who = await asked(request, house)
    if isinstance(who, Refusal):
        return who.response()
    if who.client.is_public:
        return errors.INVALID_CLIENT.because("a public client cannot introspect").response()
    token = who.form.get("token")
    if token is None:
        return errors.missing("token").response()
    look = _refresh_token if token.startswith(refresh_token.PREFIX) else _access_token
    answer = await look(house, who.client, token)
    metrics.soon(_COUNT[answer is not INACTIVE])
    return json_response(answer)


async def _access_token(house: Services, client: Client, token: str) -> dict[str, object]:
    claims = await house.access_tokens.read(token)
    if claims is None or not _may_see(client, claims) or await house.denylist.is_revoked(claims.jti, claims.session_id):
        return INACTIVE
    answer: dict[str, object] = {
        "active": True,
        "iss": claims.issuer,
        "sub": claims.subject,
        "aud": list(claims.audience),
        "exp": claims.expires_at,
        "iat": claims.issued_at,
        "nbf": claims.issued_at,
        "jti": claims.jti,
        "client_id": claims.client_id,
        "scope": claims.scope,
        "token_type": "Bearer",
    }
    if claims.username is not None:
        answer["username"] = claims.username
    if claims.session_id is not None:
        answer["sid"] = claims.session_id
    return answer


async def _refresh_token(house: Services, client: Client, token: str) -> dict[str, object]:
    """A refresh token is seen by its own client only: a resource server would let it in as a bearer token."""
    found = await house.sessions.find(token)
    if found is None or found.session.client_id != client.id:
        return INACTIVE
    session = found.session
    if session.revoked_at is not None:
        # Whoever hears here that the session is over must not hear elsewhere that its access tokens are good.
        await house.denylist.make_known(session.token_jti, str(session.id))
    if not found.is_good:
        return INACTIVE
    return {
        "active": True,
        "iss": house.settings.issuer,
        "sub": str(session.user_id),
        "exp": int(session.expires_at.timestamp()),
        "iat": int((session.rotated_at or session.created_at).timestamp()),
        "client_id": session.client_id,
        "scope": session.scope,
        "username": found.username,
        "token_type": "refresh_token",
        "sid": str(session.id),
    }


def _may_see(client: Client, claims: Claims) -> bool:
    return client.may_introspect or client.id == claims.client_id or client.id in claims.audience
