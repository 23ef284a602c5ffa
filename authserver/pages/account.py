"""/account: people see and change their account, and where they and their applications are signed in."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from authserver import own_account, services, signed_in
from authserver.pages import faults, look, page, user_agent
from authserver.sessions import consents
from authserver.sessions.browser import SignedIn
from authserver.users import finding

_DONE = frozenset({"profile", "password", "sign_out", "withdraw"})
_SHOWN = 50
"""Sign-ins at most; who has more ends them all together, or those first."""


async def see(request: Request) -> Response:
    """Show the account; whoever is not signed in does that first."""
    who = await signed_in.who(request)
    return await show(request, who) if who else to_login(request)


async def show(
    request: Request,
    who: SignedIn,
    *,
    form: dict[str, str] | None = None,
    fault: str | None = None,
    wrong: faults.Faults | None = None,
    section: str = "",
) -> Response:
    """Return the page; with what is wrong in the form of a `section`, or what has just been done."""
    house = services.of(request)
    user = await finding.by_id(house.db, who.user_id)
    if user is None:
        return to_login(request)
    sign_ins = await own_account.sign_ins(house, who.user_id, limit=_SHOWN)
    async with house.db.read() as tx:
        browsers = await house.browser_sessions.alive(tx, who.user_id)
        allowed = await consents.of(tx, who.user_id)
    done = request.query_params.get("done", "")
    return page.show(
        request,
        "account.html",
        400 if fault else 200,
        who=who,
        user=user,
        browsers=browsers[:_SHOWN],
        sign_ins=sign_ins,
        allowed=allowed,
        described=user_agent.described,
        form=form or {},
        fault=fault,
        wrong=wrong or {},
        section=section,
        done=done if done in _DONE and not fault else "",
        min_length=house.settings.password_min_length,
    )


def done(request: Request, what: str) -> Response:
    """Send the browser to the page with a word on what has been done, so that a reload does not do it again."""
    target = look.of(request).path(f"/account?done={what}#{what}" if what else "/account")
    return RedirectResponse(target, 303, {"Cache-Control": "no-store"})


def to_login(request: Request) -> Response:
    """Send whoever is not signed in (any more) to do that first."""
    house = look.of(request)
    target = f"{house.path('/login')}?continue={house.path('/account')}"
    return RedirectResponse(target, 303, {"Cache-Control": "no-store"})
