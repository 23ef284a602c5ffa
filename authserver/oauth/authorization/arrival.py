"""The three ways in which a request comes: as it stands in the address, signed by the client, or pushed before."""

from authserver.clients.models import Client
from authserver.errors import ShownToPerson
from authserver.oauth.authorization import pushed, refusals, request_object
from authserver.oauth.authorization.parameters import Parameters
from authserver.oauth.errors import Refusal
from authserver.services import Services

Values = dict[str, str]


async def meant(services: Services, client: Client, sent: Parameters, *, has_ticket: bool) -> Values | Refusal:
    """Return the parameters that count, or why there are none; ShownToPerson for a pushed request that is over."""
    uri = sent.values.get("request_uri")
    if uri is not None and uri.startswith(pushed.URI_PREFIX):
        found = await pushed.find(services.db, client.id, uri, has_ticket=has_ticket)
        if found is None:
            raise ShownToPerson("request_expired", "the pushed request is unknown, another client's, used, or too old")
        return found
    if sent.fault:
        return sent.fault
    if uri is not None and "request" in sent.values:
        return refusals.invalid_request("The parameters request and request_uri exclude each other.")
    if uri is not None:
        return refusals.REQUEST_URI_NOT_SUPPORTED
    if client.require_pushed_requests:
        return refusals.invalid_request("This client pushes its requests (RFC 9126).")
    return request_object.opened(services, client, sent.values)
