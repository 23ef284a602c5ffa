"""/consent: somebody allows an application what it asks for, or does not."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from authserver import services, signed_in
from authserver.clients.models import Client
from authserver.errors import ShownToPerson
from authserver.pages import errand, forms, page
from authserver.pages.errand import Errand
from authserver.sessions import consents
from authserver.sessions.browser import SignedIn
from authserver.users import accounts


async def see(request: Request) -> Response:
    """Show what the application wants."""
    purpose, who = await _asked(request), await signed_in.who(request)
    return _page(request, purpose, who) if who else purpose.to_login()


async def decide(request: Request) -> Response:
    """Remember a yes, and go back to /authorize with either answer."""
    house = services.of(request)
    purpose, who, form = await _asked(request), await signed_in.who(request), await forms.read(request)
    if who is None:
        return purpose.to_login()
    if fault := forms.fault(request, form, who):
        return _page(request, purpose, who, fault)
    if form.get("decision") != "allow":
        return RedirectResponse(purpose.refused("consent") or "", 303, {"Cache-Control": "no-store"})
    client = _client(purpose)
    async with house.db.write() as tx:
        if await accounts.locked(tx, who.user_id) is None:
            return purpose.to_login()
        await consents.give(tx, who.user_id, client.id, " ".join(_scopes(request, client)))
    return purpose.done()


def _page(request: Request, purpose: Errand, who: SignedIn, fault: str | None = None) -> Response:
    client = _client(purpose)
    return page.show(
        request,
        "consent.html",
        400 if fault else 200,
        who=who,
        leads_away=True,
        errand=purpose,
        client=client,
        scopes=_scopes(request, client),
        fault=fault,
    )


async def _asked(request: Request) -> Errand:
    """Return what is asked for; ShownToPerson for a link that /authorize did not make."""
    purpose = await errand.of(request)
    client = _client(purpose)
    if purpose.asking_client_id != client.id or not _scopes(request, client):
        raise ShownToPerson("malformed_request", "no request of /authorize to consent to")
    return purpose


def _client(purpose: Errand) -> Client:
    if purpose.client is None:
        raise ShownToPerson("unknown_client", "consent for a client that is not there")
    return purpose.client


def _scopes(request: Request, client: Client) -> list[str]:
    """Return the scopes that are asked for, only such as the client may have: what is shown is what is given."""
    asked = dict.fromkeys(request.query_params.get("scope", "").split())
    return [scope for scope in asked if scope in client.scopes]
