"""/signup: somebody makes an account, is signed in with it, and goes on to where they came from."""

from starlette.requests import Request
from starlette.responses import Response

from authserver import own_account, services, signed_in
from authserver.errors import Forbidden
from authserver.pages import errand, faults, forms, page, proof
from authserver.users.authentication import VerifiedPassword


async def see(request: Request) -> Response:
    """Show the empty form."""
    return await _page(request)


async def sign_up(request: Request) -> Response:
    """Make the account, or say all that speaks against it at once."""
    house = services.of(request)
    who, form = await signed_in.who(request), await forms.read(request)
    if fault := forms.fault(request, form):
        return await _page(request, form, fault)
    asked = {name: form.get(name, "") for name in ("username", "email", "password")}
    try:
        user = await own_account.register(house, **asked, ip=proof.ip_of(request))
    except faults.REFUSALS as refusal:
        return await _page(request, form, "form", faults.of(refusal, page.language_of(request)))
    verified = VerifiedPassword(user.id, user.username, user.generation, new_hash=None, attempt=None)
    response = (await errand.of(request)).done()
    if cookie := await proof.accept(request, who, verified):
        signed_in.remember(response, house.settings, cookie)
    return response


async def _page(
    request: Request,
    form: dict[str, str] | None = None,
    fault: str | None = None,
    wrong: faults.Faults | None = None,
) -> Response:
    settings = services.of(request).settings
    if not settings.registration_enabled:
        raise Forbidden("Registration is switched off.")
    purpose = await errand.of(request)
    return page.show(
        request,
        "signup.html",
        400 if fault else 200,
        leads_away=purpose.leads_away,
        errand=purpose,
        form=form or {},
        fault=fault,
        wrong=wrong or {},
        min_length=settings.password_min_length,
    )
