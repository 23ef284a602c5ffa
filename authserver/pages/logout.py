"""/logout: nobody is signed out by a mere link; people are asked, and then told or sent back (RP-Initiated Logout).

Only an application that shows an ID token about whoever is signed in here may sign them out unasked. Its request stays
in the address while people are asked, and is looked at again when they have answered.
"""

import logging
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from authserver import audit, services, signed_in
from authserver.clients.models import Client
from authserver.pages import forms, look, page
from authserver.services import Services
from authserver.sessions.browser import SignedIn
from authserver.sessions.models import BrowserSession
from authserver.text import is_clean
from authserver.tokens.id_token import Hint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What an application asks for, as far as it is sound (§2)."""

    client: Client | None = None
    hint: Hint | None = None
    logout_hint: str | None = None
    back_to: str | None = None
    """Where it wants the browser back, with `state`; registered, or None."""
    is_sound: bool = True

    def may_sign_out(self, who: SignedIn) -> bool:
        """Tell whether it has shown that it means whoever is signed in here; then nobody need be asked (§2)."""
        is_meant = self.logout_hint in {None, who.username, who.email, str(who.user_id)}
        return self.hint is not None and self.hint.subject == str(who.user_id) and is_meant


async def see(request: Request) -> Response:
    """Sign out at once where that is safe, else ask; or say that nobody is signed in."""
    house = services.of(request)
    asked, who = await _read(house, request.query_params), await signed_in.who(request)
    if who is not None and asked.may_sign_out(who):
        await _end(request, who, asked)
        who = None
    if who is None and asked.back_to is not None:
        return _done(request, asked)
    fault = None if asked.is_sound else "logout_request"
    template = "logout.html" if who else "signed_out.html"
    response = page.show(request, template, who=who, fault=fault, leads_away=asked.back_to is not None)
    if who is None:
        signed_in.forget(response, house.settings)
    return response


async def sign_out(request: Request) -> Response:
    """Sign out whoever has answered our question with yes; put an application's own form into the address first."""
    form = await forms.read(request)
    if "form_token" not in form:
        # Another site's form comes without the cookie of the sign-in (SameSite); the GET that follows has it.
        address = f"{look.of(request).path('/logout')}?{urlencode(form)}"
        return RedirectResponse(address, 303, {"Cache-Control": "no-store"})
    asked, who = await _read(services.of(request), request.query_params), await signed_in.who(request)
    if who is not None:
        if fault := forms.fault(request, form, who):
            return page.show(request, "logout.html", 400, who=who, fault=fault, leads_away=asked.back_to is not None)
        await _end(request, who, asked)
    return _done(request, asked)


async def _read(house: Services, query: QueryParams) -> Asked:
    """Look at a request: an address to go back to must be the client's, the client known by hint or name (§2, §3)."""
    names = [name for name, _ in query.multi_items()]
    if len(set(names)) != len(names) or not all(is_clean(value) for value in query.values()):
        return _unsound("a parameter is repeated, or has control characters")
    token, client_id, target = (query.get(name) for name in ("id_token_hint", "client_id", "post_logout_redirect_uri"))
    hint = await house.id_tokens.read(token) if token else None
    if token and hint is None:
        return _unsound("id_token_hint is no ID token of ours")
    if hint is not None and client_id and client_id != hint.client_id:
        return _unsound("client_id is not the one of id_token_hint")
    name = client_id or (hint and hint.client_id)
    client = await house.clients.find_active(name) if name else None
    if name and client is None:
        return _unsound("unknown client")
    logout_hint = query.get("logout_hint") or None
    if not target:
        return Asked(client, hint, logout_hint)
    if client is None or target not in (client.post_logout_redirect_uris or ()):
        return _unsound("post_logout_redirect_uri is not registered")
    state = query.get("state")
    return Asked(client, hint, logout_hint, _with_state(target, state) if state else target)


def _unsound(reason: str) -> Asked:
    """Return what is left of a request with a fault: people can sign out, and stay here."""
    log.info("logout_request_unsound", extra={"reason": reason})
    return Asked(is_sound=False)


async def _end(request: Request, who: SignedIn, asked: Asked) -> None:
    """Sign this browser out, and the applications that people signed in to from it."""
    house = services.of(request)
    async with house.denylist.revoking() as tx:
        await house.browser_sessions.end(tx, BrowserSession.id == who.browser_session_id, because="signed out")
        ip = request.client and request.client.host
        client_id = None if asked.client is None else asked.client.id
        audit.record(tx, "signed_out", user_id=who.user_id, client_id=client_id, ip=ip)


def _done(request: Request, asked: Asked) -> Response:
    target = asked.back_to or look.of(request).path("/logout")
    response = RedirectResponse(target, 303, {"Cache-Control": "no-store"})
    signed_in.forget(response, services.of(request).settings)
    return response


def _with_state(target: str, state: str) -> str:
    return f"{target}{'&' if urlsplit(target).query else '?'}{urlencode({'state': state})}"
