"""POST /token (RFC 6749 §3.2): who asks, which grant, may it, then the grant's own rule."""

from starlette.requests import Request
from starlette.responses import Response

from authserver import services
from authserver.oauth import errors
from authserver.oauth.client import Asked, asked
from authserver.oauth.errors import Refusal
from authserver.oauth.grants import GRANTS
from authserver.observability import metrics
from authserver.services import Services


async def token(request: Request) -> Response:
    """Issue tokens to a client."""
    house = services.of(request)
    who = await asked(request, house)
    if isinstance(who, Refusal):
        return who.response()
    name = who.form.get("grant_type")
    if name is None:
        return errors.missing("grant_type").response()
    if name not in GRANTS:
        return errors.UNSUPPORTED_GRANT_TYPE.response()
    answer = await _granted(house, who, name)
    outcome = answer.error if isinstance(answer, Refusal) else "issued"
    metrics.soon(lambda: metrics.GRANTS.labels(name, outcome).inc())
    return answer.response() if isinstance(answer, Refusal) else answer


async def _granted(house: Services, who: Asked, name: str) -> Response | Refusal:
    if name not in who.client.grants:
        return errors.UNAUTHORIZED_CLIENT.because(f"not registered for {name}")
    # Without keys to sign with nothing is begun, and no code or refresh token used up.
    house.keyring.signing_key()
    if "authorization_code" in who.client.grants and "openid" in who.client.scopes:
        await house.id_tokens.prepare(who.client.id_token_alg)
    return await GRANTS[name](house, who)
