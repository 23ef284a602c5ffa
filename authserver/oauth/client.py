"""The first step of every OAuth endpoint: read the form, and know which client asks."""

from dataclasses import dataclass

from starlette.requests import Request

from authserver.clients.models import Client
from authserver.oauth import errors
from authserver.oauth.errors import Refusal
from authserver.oauth.request import Form, challenged, read_credentials, read_form, read_head
from authserver.observability import requests
from authserver.services import Services
from authserver.throttle import CLIENT_SECRETS, address_key


@dataclass(frozen=True)
class Asked:
    """A well-formed request of a client that is who it says it is."""

    client: Client
    form: Form
    ip: str | None
    user_agent: str | None


async def asked(request: Request, services: Services) -> Asked | Refusal:
    """Return who asks for what, or the refusal; TooManyAttempts instead of a refusal for one who guesses secrets."""
    head = read_head(request.scope["headers"])
    form = await read_form(request, head)
    if isinstance(form, Refusal):
        return form
    credentials = read_credentials(head, form)
    if isinstance(credentials, Refusal):
        return credentials
    requests.note(client_id=credentials.client_id)
    if form.get("grant_type") == "password":
        services.hasher.check_room()  # in a storm of sign-ins, those too many cost next to nothing
    ip = request.scope["client"] and request.scope["client"][0]
    # A client that is switched off has no sessions left, so only what begins one must know it as it is this moment.
    begins_session = form.get("grant_type", "refresh_token") not in {"refresh_token", "client_credentials"}
    client = await services.clients.authenticate(credentials, briefly_cached=not begins_session)
    if client is None:
        # Only wrong secrets are held back: a right one has 256 bits and needs no protection from a neighbour's guesses.
        for guesser in (f"address {address_key(ip)}", f"client {credentials.client_id[:64]}"):
            await services.throttle.check(CLIENT_SECRETS, guesser)
            await services.throttle.count(CLIENT_SECRETS, guesser)
        refusal = errors.INVALID_CLIENT.because("unknown client, wrong secret, or switched off")
        return challenged(refusal) if head.authorization else refusal
    return Asked(client, form, ip, head.user_agent)
