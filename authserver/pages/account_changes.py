"""The forms of /account: each is posted to an address of its own, and leads back to the page."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from authserver import audit, own_account, services, signed_in
from authserver.pages import account, faults, forms, look, page, proof
from authserver.sessions import consents
from authserver.sessions.browser import SignedIn
from authserver.sessions.models import BrowserSession, UserSession
from authserver.users import accounts, finding

Change = Callable[[Request, SignedIn, dict[str, str]], Awaitable[Response]]


def change(section: str, do: Change) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of a form: it is believed only from who is signed in; refusals are shown in its section."""

    async def endpoint(request: Request) -> Response:
        who = await signed_in.who(request)
        if who is None or request.method != "POST":
            return account.to_login(request) if who is None else account.done(request, "")
        form = await forms.read(request)
        if fault := forms.fault(request, form, who):
            return await account.show(request, who, form=form, fault=fault, section=section)
        try:
            return await do(request, who, form)
        except faults.REFUSALS as refusal:
            wrong = faults.of(refusal, page.language_of(request))
            return await account.show(request, who, form=form, fault="form", wrong=wrong, section=section)

    return endpoint


async def rename(request: Request, who: SignedIn, form: dict[str, str]) -> Response:
    """Change username and e-mail address."""
    username, email = form.get("username", ""), form.get("email", "")
    await accounts.rename(services.of(request).db, who.user_id, username=username, email=email, ip=proof.ip_of(request))
    return account.done(request, "profile")


async def set_password(request: Request, who: SignedIn, form: dict[str, str]) -> Response:
    """Change the password: this browser and what came from it stay signed in, all others do not."""
    house = services.of(request)
    user = await finding.by_id(house.db, who.user_id)
    if user is None:
        return account.to_login(request)
    cookie = await own_account.change_password(
        house,
        user,
        current=form.get("current_password", ""),
        new=form.get("new_password", ""),
        ip=proof.ip_of(request),
        ended=UserSession.browser_session_id.is_distinct_from(who.browser_session_id),
        browser=who,
    )
    response = account.done(request, "password")
    if cookie:
        signed_in.remember(response, house.settings, cookie)
    return response


async def sign_out(request: Request, who: SignedIn, form: dict[str, str]) -> Response:
    """Sign out of one browser, of one application, or everywhere."""
    house = services.of(request)
    if form.get("everywhere"):
        await own_account.sign_out_everywhere(house, who.user_id)
        return _signed_out(request)
    try:
        browser_id, session_id = (UUID(form[name]) if form.get(name) else None for name in ("browser", "session"))
    except ValueError:
        return account.done(request, "")
    if session_id:
        await own_account.end_sign_in(house, who.user_id, session_id)
    elif browser_id:
        which = (BrowserSession.id == browser_id, BrowserSession.user_id == who.user_id)
        async with house.denylist.revoking() as tx:
            await house.browser_sessions.end(tx, *which, because="signed out")
            audit.record(tx, "signed_out", user_id=who.user_id, ip=proof.ip_of(request))
    return account.done(request, "sign_out")


async def withdraw(request: Request, who: SignedIn, form: dict[str, str]) -> Response:
    """Take back what an application was allowed, and sign it out."""
    house = services.of(request)
    async with house.denylist.revoking() as tx:
        await consents.withdraw(tx, house.sessions, who.user_id, form.get("client_id", ""))
    return account.done(request, "withdraw")


async def delete(request: Request, who: SignedIn, form: dict[str, str]) -> Response:
    """Delete the account, for good, for whoever knows its password."""
    house, ip = services.of(request), proof.ip_of(request)
    verified = await own_account.confirm_password(house, who.user_id, form.get("current_password", ""), ip)
    await own_account.delete(house, who.user_id, ip=ip, verified=verified)
    return _signed_out(request)


def _signed_out(request: Request) -> Response:
    house = look.of(request)
    response = RedirectResponse(house.path("/logout"), 303, {"Cache-Control": "no-store"})
    signed_in.forget(response, house.settings)
    return response
