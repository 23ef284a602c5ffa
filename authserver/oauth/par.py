"""POST /par: a client leaves its request with us and sends the browser with a reference to it (RFC 9126)."""

from starlette.requests import Request
from starlette.responses import Response

from authserver import services
from authserver.oauth.authorization import pushed, redirect_uri, refusals, request_object
from authserver.oauth.authorization.request import checked
from authserver.oauth.client import Asked, asked
from authserver.oauth.errors import Refusal, json_response
from authserver.services import Services
from authserver.throttle import PUSHED_REQUESTS, address_key

_PROOF = frozenset({"client_secret", "client_assertion", "client_assertion_type"})


async def par(request: Request) -> Response:
    """Check a request as /authorize will, and keep it."""
    house = services.of(request)
    who = await asked(request, house)
    if isinstance(who, Refusal):
        return who.response()
    values = _acceptable(house, who)
    if isinstance(values, Refusal):
        return values.response()
    if who.client.is_public:  # anybody can say that they are this client
        address = f"address {address_key(who.ip)}"
        await house.throttle.check(PUSHED_REQUESTS, address)
        await house.throttle.count(PUSHED_REQUESTS, address)
    uri = await pushed.keep(house.db, who.client.id, values)
    return json_response({"request_uri": uri, "expires_in": pushed.SECONDS}, 201)


def _acceptable(house: Services, who: Asked) -> dict[str, str] | Refusal:
    values = {name: value for name, value in who.form.items() if name not in _PROOF}
    if "request_uri" in values:
        return refusals.invalid_request("A request_uri cannot be pushed.")
    meant = request_object.opened(house, who.client, values | {"client_id": who.client.id})
    if isinstance(meant, Refusal):
        return meant
    if redirect_uri.choose(who.client, meant) is None:
        return refusals.invalid_request("The redirect_uri is missing, or not one of the client's.")
    asked_for = checked(who.client, meant)
    return asked_for if isinstance(asked_for, Refusal) else meant
