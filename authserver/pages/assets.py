"""/assets/…: style sheet and pictures, our own only."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from authserver.pages import look

_YEAR = "public, max-age=31536000, immutable"


async def asset(request: Request) -> Response:
    """Send a file under the name that changes with its content."""
    found = look.of(request).asset(request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    # A picture that is opened by itself runs nothing, whatever an operator's SVG holds.
    policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    headers = {"Cache-Control": _YEAR, "Content-Security-Policy": policy}
    return Response(found.content, headers=headers, media_type=found.media_type)


async def icon(request: Request) -> Response:
    """Send browsers that ask for it unbidden to the icon."""
    return RedirectResponse(look.of(request).address("icon.svg"), 302, {"Cache-Control": "public, max-age=86400"})
