"""The first step of every OAuth endpoint: read the form, and know which client asks."""

from dataclasses import dataclass

from starlette.requests import Request

from authserver.clients.authentication import Credentials
from authserver.clients.models import Client
from authserver.oauth import client_assertion, errors
from authserver.oauth.client_assertion import Assertion
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
    proof = client_assertion.read(head, form) if client_assertion.is_offered(form) else read_credentials(head, form)
    if isinstance(proof, Refusal):
        return proof
    requests.note(client_id=proof.client_id)
    if form.get("grant_type") == "password":
        services.hasher.check_room()  # in a storm of sign-ins, those too many cost next to nothing
    ip = request.scope["client"] and request.scope["client"][0]
    client = await _proved(services, proof, form)
    if isinstance(client, Refusal):
        # Only wrong secrets are held back: a right one has 256 bits and needs no protection from a neighbour's guesses.
        for guesser in (f"address {address_key(ip)}", f"client {proof.client_id[:64]}"):
            await services.throttle.check(CLIENT_SECRETS, guesser)
            await services.throttle.count(CLIENT_SECRETS, guesser)
        return challenged(client) if head.authorization else client
    return Asked(client, form, ip, head.user_agent)


async def _proved(services: Services, proof: Credentials | Assertion, form: Form) -> Client | Refusal:
    """Return the client that a proof is good for."""
    if isinstance(proof, Assertion):
        return await client_assertion.verify(services, proof)
    # A client that is switched off has no sessions left, so only what begins one must know it as it is this moment.
    begins_session = form.get("grant_type", "refresh_token") not in {"refresh_token", "client_credentials"}
    client = await services.clients.authenticate(proof, briefly_cached=not begins_session)
    return client or errors.INVALID_CLIENT.because("unknown client, wrong secret or way to prove it, or switched off")
