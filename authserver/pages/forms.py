"""A form of ours is believed only from the browser that it was shown in, for the person that it was shown to.

Each browser has a random cookie; a form carries a MAC of it, of who was signed in, and of the time. Another site's page
can know none of that, can send no such cookie (SameSite), and is betrayed by Origin and Sec-Fetch-Site.
"""

from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from authserver import clock, opaque, services
from authserver.errors import ShownToPerson
from authserver.sessions.browser import SignedIn
from authserver.settings import Settings
from authserver.signed_in import cookie_name
from authserver.text import is_clean

GOOD_FOR_SECONDS = 12 * 3600
MAX_BYTES = 16 * 1024
_MAX_FIELDS = 20
_PURPOSE = "form"
_MEDIA_TYPE = "application/x-www-form-urlencoded"


async def read(request: Request) -> dict[str, str]:
    """Return what was filled in; ShownToPerson for what no form of ours sends."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _MEDIA_TYPE:
        raise ShownToPerson("malformed_request", "not a form")
    body = await _body(request)  # in bounded time: serving/connection.py hangs up
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as fault:  # not UTF-8, too many fields
        raise ShownToPerson("malformed_request", str(fault)) from None
    form = dict(pairs)
    if len(form) != len(pairs) or not all(is_clean(name) and is_clean(value) for name, value in pairs):
        raise ShownToPerson("malformed_request", "a field is repeated, or has control characters")
    return form


def fault(request: Request, form: dict[str, str], who: SignedIn | None = None) -> str | None:
    """Return why a form is not believed: `cookies` (none came with it) or `expired`; None if all is well."""
    if not _is_from_here(request):
        return "expired"
    cookie = request.cookies.get(_cookie_name(request))
    if not cookie:
        return "cookies"
    issued_at, _, mac = form.get("form_token", "").partition(".")
    if not issued_at.isascii() or not issued_at.isdigit() or len(issued_at) > 12:
        return "expired"
    age = clock.now().timestamp() - int(issued_at)
    is_ours = opaque.same(mac, _mac(request, issued_at, cookie, who))
    return None if is_ours and -60 <= age <= GOOD_FOR_SECONDS else "expired"


def token(request: Request, who: SignedIn | None) -> tuple[str, str | None]:
    """Return what a form carries, and the cookie that the browser must have besides if it has none yet."""
    cookie = request.cookies.get(_cookie_name(request))
    new = None if cookie else opaque.random_text("")
    issued_at = str(int(clock.now().timestamp()))
    return f"{issued_at}.{_mac(request, issued_at, cookie or new or '', who)}", new


def remember(response: Response, settings: Settings, cookie: str) -> None:
    """Have the browser keep the cookie until it is closed."""
    is_secure = settings.issuer.startswith("https:")
    name = cookie_name(settings, _PURPOSE)
    response.set_cookie(name, cookie, path="/", secure=is_secure, httponly=True, samesite="lax")


def _cookie_name(request: Request) -> str:
    return cookie_name(services.of(request).settings, _PURPOSE)


def _mac(request: Request, issued_at: str, cookie: str, who: SignedIn | None) -> str:
    key = opaque.derived_key(services.of(request).settings.secret_key.get_secret_value(), "forms")
    message = "\n".join([issued_at, cookie, str(who.browser_session_id) if who else ""])
    return opaque.b64encode(opaque.mac(key, message.encode("utf-8", "surrogatepass")))


def _is_from_here(request: Request) -> bool:
    """Tell whether the browser says that a page of ours sent the form, as far as it says anything."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    if origin is None:
        return True
    ours = urlsplit(services.of(request).settings.issuer)
    return origin == f"{ours.scheme}://{ours.netloc}" or urlsplit(origin).netloc == request.headers.get("host")


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise ShownToPerson("malformed_request", "the form is too large")
    return body
