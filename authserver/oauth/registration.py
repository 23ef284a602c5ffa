"""/clients: clients that register themselves (RFC 7591), and manage what they have registered (RFC 7592).

Off unless the operator says otherwise. Such a client can do nothing that its users do not allow it: no password grant,
no introspection, no trust, no scopes of others.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from authserver import bearer, json_body, opaque, services
from authserver.clients import registration
from authserver.clients.models import Client
from authserver.errors import BadRequest, Busy, NotFound, UnsupportedMediaType
from authserver.oauth import client_metadata
from authserver.oauth.errors import Refusal, json_response
from authserver.services import Services
from authserver.sessions.models import UserSession
from authserver.throttle import REGISTRATIONS, address_key

_RETRY_SECONDS = 3600
_OURS = frozenset({"registration_access_token", "registration_client_uri", "client_secret_expires_at"})
"""What only we say; a client that sends it back has misunderstood (RFC 7592 §2.2)."""


async def register(request: Request) -> Response:
    """Register a client; the answer has its secret and the token for its registration, once."""
    house = _open(request)
    _check_initial_token(request, house)
    await _throttle(request, house)
    document = await _document(request)
    asked = document if isinstance(document, Refusal) else client_metadata.read(document)
    if isinstance(asked, Refusal):
        return asked.response()
    async with house.db.write() as tx:
        if await registration.count_registered(tx) >= house.settings.client_registration_max_clients:
            raise Busy("as many clients as may have registered themselves", _RETRY_SECONDS)
        client, secret = registration.create(tx, house.clients, registration.NewClient(**vars(asked)))
        token = registration.let_manage_itself(house.clients, client)
        await tx.flush()
    return json_response(_described(house, client, token, secret), 201)


async def read(request: Request) -> Response:
    """Tell a client what is registered of it; never its secret, which we do not have."""
    house = _open(request)
    token = bearer.token_of(request)
    async with house.db.read() as tx:
        client = _its_own(house, await registration.find(tx, request.path_params["client_id"]), token)
    return json_response(_described(house, client, token))


async def replace(request: Request) -> Response:
    """Replace all that is registered; what is left out gets its default (RFC 7592 §2.2)."""
    house = _open(request)
    token = bearer.token_of(request)
    await _throttle(request, house)
    document = await _document(request)
    if isinstance(document, Refusal):
        return document.response()
    asked = client_metadata.read(document)
    async with house.db.write() as tx:
        client = _its_own(house, await registration.locked(tx, request.path_params["client_id"]), token)
        if isinstance(asked, Refusal):
            return asked.response()
        if fault := _fault(house, client, document, asked.auth_method):
            return client_metadata.refused(fault).response()
        registration.change(tx, client, vars(asked))
        await tx.flush()
    return json_response(_described(house, client, token))


async def delete(request: Request) -> Response:
    """Delete the client, with its sessions and all their tokens."""
    house = _open(request)
    token = bearer.token_of(request)
    async with house.denylist.revoking() as tx:
        client = _its_own(house, await registration.locked(tx, request.path_params["client_id"]), token)
        await house.sessions.end(tx, UserSession.client_id == client.id, because="client deleted")
        await house.sessions.end_own(tx, client)
        await registration.delete(tx, client)
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


def _open(request: Request) -> Services:
    """Return the services; NotFound if clients cannot register here."""
    house = services.of(request)
    if house.settings.client_registration == "off":
        raise NotFound("Clients cannot register themselves here.")
    return house


def _check_initial_token(request: Request, house: Services) -> None:
    """Refuse who does not have the operator's token, where one is asked for (RFC 7591 §3)."""
    if house.settings.client_registration == "open":
        return
    if not opaque.same(bearer.token_of(request), house.settings.client_registration_token.get_secret_value()):
        raise bearer.invalid_token()


async def _throttle(request: Request, house: Services) -> None:
    """Count each try, good or bad, by address."""
    key = f"clients {address_key(request.client and request.client.host)}"
    await house.throttle.check(REGISTRATIONS, key)
    await house.throttle.count(REGISTRATIONS, key)


async def _document(request: Request) -> dict[str, Any] | Refusal:
    """Return the body, or the refusal of one that is no JSON object."""
    try:
        return await json_body.read(request)
    except (BadRequest, UnsupportedMediaType) as unreadable:
        return client_metadata.refused(unreadable.detail)


def _its_own(house: Services, client: Client | None, token: str) -> Client:
    """Return the client if the token is the one for its registration; gone, switched off and wrong are one answer."""
    known = client.registration_token_hash if client is not None and client.is_active else None
    if client is None or known is None or not opaque.same(house.clients.hash_secret(token), known):
        raise bearer.invalid_token()
    return client


def _fault(house: Services, client: Client, document: dict[str, Any], method: str | None) -> str | None:
    """Tell what is wrong with a replacement that would do as a registration (RFC 7592 §2.2)."""
    secret = document.get("client_secret")
    if document.get("client_id") != client.id:
        return "client_id is missing, or another one"
    if not _OURS.isdisjoint(document):
        return "it sends what only we say"
    if method != client.auth_method:
        return "the way in which a client proves itself cannot be changed"
    if secret is not None and not (isinstance(secret, str) and house.clients.hash_secret(secret) == client.secret_hash):
        return "client_secret is not the one that was issued"
    return None


def _described(house: Services, client: Client, token: str, secret: str | None = None) -> dict[str, Any]:
    """Return the client information response (RFC 7591 §3.2.1, RFC 7592 §3)."""
    issued = {} if secret is None else {"client_secret": secret, "client_secret_expires_at": 0}
    return {
        **client_metadata.write(client),
        **issued,
        "registration_access_token": token,
        "registration_client_uri": f"{house.settings.issuer}/clients/{client.id}",
    }
