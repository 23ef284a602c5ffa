"""/logout: nobody is signed out by a mere link; people are asked, and then told."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from authserver import audit, services, signed_in
from authserver.pages import forms, look, page
from authserver.sessions.models import BrowserSession


async def see(request: Request) -> Response:
    """Ask, or say that nobody is signed in."""
    who = await signed_in.who(request)
    return page.show(request, "logout.html" if who else "signed_out.html", who=who, fault=None)


async def sign_out(request: Request) -> Response:
    """Sign this browser out, and the applications that people signed in to from it."""
    house = services.of(request)
    who, form = await signed_in.who(request), await forms.read(request)
    if who is not None:
        if fault := forms.fault(request, form, who):
            return page.show(request, "logout.html", 400, who=who, fault=fault)
        async with house.denylist.revoking() as tx:
            mine = BrowserSession.id == who.browser_session_id
            await house.browser_sessions.end(tx, mine, because="signed out")
            audit.record(tx, "signed_out", user_id=who.user_id, ip=request.client and request.client.host)
    response = RedirectResponse(look.of(request).path("/logout"), 303, {"Cache-Control": "no-store"})
    signed_in.forget(response, house.settings)
    return response
