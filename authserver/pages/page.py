"""One page: a template in the language of who asks, with headers that let it do nothing but be shown and filled in."""

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from authserver.pages import forms, language, look
from authserver.pages.language import Language
from authserver.sessions.browser import SignedIn

_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"


def show(
    request: Request,
    template: str,
    status: int = 200,
    *,
    who: SignedIn | None = None,
    leads_away: bool = False,
    headers: dict[str, str] | None = None,
    **values: Any,
) -> Response:
    """Return the page. Its forms are good for `who` in this browser alone; None: for whoever sits there.

    `leads_away`: what answers a form may be a redirect to an application.
    """
    house = look.of(request)
    token, new_cookie = forms.token(request, who)
    texts = language_of(request)
    body = house.templates.get_template(template).render(
        t=texts.say, knows=texts.knows, language=texts.code, form_token=token, who=who, **values
    )
    # Chromium holds form-action against every redirect that follows a form, up to the application's last one, which we
    # do not know: where there are such, the directive would keep people from where they want to go.
    policy = _POLICY if leads_away else f"{_POLICY}; form-action 'self'"
    response = HTMLResponse(body, status, {**(headers or {}), "Cache-Control": "no-store"})
    response.headers["Content-Security-Policy"] = policy
    # Not no-referrer: a form would then come with `Origin: null`.
    response.headers["Referrer-Policy"] = "same-origin"
    if new_cookie:
        forms.remember(response, house.settings, new_cookie)
    return response


def language_of(request: Request) -> Language:
    """Return the language that whoever asks reads best."""
    wanted = request.query_params.get("ui_locales", "")
    return language.choose(look.of(request).languages, wanted, request.headers.get("accept-language", ""))
