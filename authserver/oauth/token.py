"""POST /token (RFC 6749 §3.2): who asks, which grant, may it, then the grant's own rule."""

from starlette.requests import Request
from starlette.responses import Response

from authserver import services
from authserver.oauth import errors
from authserver.oauth.client import asked
from authserver.oauth.errors import Refusal
from authserver.oauth.grants import GRANTS


async def token(request: Request) -> Response:
    """Issue tokens to a client."""
    answer = await _token(request)
    return answer.response() if isinstance(answer, Refusal) else answer


async def _token(request: Request) -> Response | Refusal:
    house = services.of(request)
    who = await asked(request, house)
    if isinstance(who, Refusal):
        return who
    name = who.form.get("grant_type")
    if name is None:
        return errors.missing("grant_type")
    grant = GRANTS.get(name)
    if grant is None:
        return errors.UNSUPPORTED_GRANT_TYPE
    if name not in who.client.grants:
        return errors.UNAUTHORIZED_CLIENT.because(f"not registered for {name}")
    return await grant(house, who)
