"""/login: somebody proves who they are, and goes on to where they came from."""

from starlette.requests import Request
from starlette.responses import Response

from authserver import services, signed_in
from authserver.pages import errand, forms, page, proof
from authserver.pages.errand import Errand
from authserver.sessions.browser import SignedIn


async def see(request: Request) -> Response:
    """Show the form: empty, or for the one who is signed in here to prove it again."""
    return await _page(request, await errand.of(request), await signed_in.who(request))


async def sign_in(request: Request) -> Response:
    """Sign in whoever knows the password; one sentence for everything that is not right."""
    house = services.of(request)
    purpose, who, form = await errand.of(request), await signed_in.who(request), await forms.read(request)
    username = form.get("username", "")
    if fault := forms.fault(request, form):
        return await _page(request, purpose, who, username, fault=fault)
    verified = None
    if username and form.get("password"):
        verified = await house.authentication.verify_password(
            identifier=username, password=form["password"], ip=proof.ip_of(request), client_id=None
        )
    cookie = verified and await proof.accept(request, who, verified)
    if not cookie:
        return await _page(request, purpose, who, username, fault="wrong")
    response = purpose.done()
    signed_in.remember(response, house.settings, cookie)
    return response


async def _page(
    request: Request, purpose: Errand, who: SignedIn | None, username: str | None = None, fault: str | None = None
) -> Response:
    wants_another = "another" in request.query_params
    return page.show(
        request,
        "login.html",
        400 if fault else 200,
        leads_away=purpose.leads_away,
        errand=purpose,
        known=None if who is None or wants_another else who.username,
        username=username if username is not None else request.query_params.get("login_hint", ""),
        fault=fault,
    )
