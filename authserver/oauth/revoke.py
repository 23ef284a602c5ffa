"""POST /revoke (RFC 7009): after the 200, no operation that starts later, on any node, says that the token is good."""

from starlette.requests import Request
from starlette.responses import Response

from authserver import services
from authserver.clients.models import Client
from authserver.oauth import errors
from authserver.oauth.client import asked
from authserver.oauth.errors import Refusal, json_response
from authserver.observability import metrics
from authserver.services import Services
from authserver.tokens.access_token import Claims
from authserver.tokens.denylist import token_entry

_COUNT_ACCESS, _COUNT_REFRESH = (metrics.REVOCATIONS.labels(kind).inc for kind in ("access_token", "refresh_token"))


async def revoke(request: Request) -> Response:
    """Kill a token, or find it dead; 200 comes only after the durable write."""
    house = services.of(request)
    who = await asked(request, house)
    if isinstance(who, Refusal):
        return who.response()
    token = who.form.get("token")
    if token is None:
        return errors.missing("token").response()
    # The two kinds cannot be mistaken for one another, so token_type_hint has nothing to order.
    claims = await house.access_tokens.read(token, at_any_time=True)
    refusal = await (_access_token(house, who.client, claims) if claims else _refresh_token(house, who.client, token))
    return refusal.response() if refusal else json_response({})


async def _access_token(house: Services, client: Client, claims: Claims) -> Refusal | None:
    if claims.client_id != client.id:
        return errors.INVALID_GRANT_FOREIGN
    await house.denylist.deny_one(token_entry(claims.jti), claims.expires)
    metrics.soon(_COUNT_ACCESS)
    return None


async def _refresh_token(house: Services, client: Client, token: str) -> Refusal | None:
    """End the whole session, also when the token was just rotated away: a sign-out that races a refresh must win."""
    found = await house.sessions.find(token)
    if found is None:
        return None
    if found.session.client_id != client.id:
        return errors.INVALID_GRANT_FOREIGN
    await house.sessions.end_found(found, because="revoked")
    metrics.soon(_COUNT_REFRESH)
    return None
