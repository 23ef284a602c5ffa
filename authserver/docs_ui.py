"""Swagger UI at /docs from our own files, so that it works without the internet, and the page of error types."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import fastapi_swagger  # only for the files of Swagger UI that it carries
import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from authserver.clients import demo
from authserver.errors import NotFound
from authserver.settings import Settings

Endpoint = Callable[[Request], Awaitable[Response]]

_RESOURCES = Path(fastapi_swagger.__file__).parent / "resources"
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
# Swagger UI writes style attributes; scripts come from files only.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>authserver: API documentation</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """"use strict";
const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  oauth2RedirectUrl: new URL("docs/oauth2-redirect", location.href).href,
});
ui.initOAuth(%s);
"""
_REDIRECT_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>authserver: back to the API documentation</title>
<script src="oauth2-redirect.js"></script>
</html>
"""
# Swagger UI's own page has its script inside, and takes an answer whose `state` is not the one that was sent.
_REDIRECT_SCRIPT = """"use strict";
const asked = window.opener?.swaggerUIRedirectOauth2;
if (asked) {
  const answer = new URLSearchParams(location.search);
  const complain = (message) => asked.errCb({ authId: asked.auth.name, source: "auth", level: "error", message });
  if (answer.get("state") !== asked.state) {
    complain("The answer is not to the question that was asked (state).");
  } else if (answer.has("code")) {
    delete asked.state;
    asked.auth.code = answer.get("code");
    asked.callback({ auth: asked.auth, redirectUrl: asked.redirectUrl });
  } else {
    complain(`${answer.get("error")}: ${answer.get("error_description") ?? "no further reason was given"}`);
  }
  window.close();
}
"""
_OAUTH = {"usePkceWithAuthorizationCodeGrant": True, "scopes": "openid profile email", "appName": "API documentation"}


def routes(settings: Settings) -> Sequence[BaseRoute]:
    """Return /errors, and /docs with its files where it is switched on."""
    error_types = [Route("/errors", _errors)]
    if not settings.serves_docs:
        return error_types
    oauth = _OAUTH | ({"clientId": demo.CLIENT_ID} if settings.is_development else {})
    return [
        Route("/docs", _page(_PAGE)),
        Route("/docs/start.js", _script(_START % orjson.dumps(oauth).decode())),
        Route(demo.REDIRECT_PATH, _page(_REDIRECT_PAGE)),
        Route(f"{demo.REDIRECT_PATH}.js", _script(_REDIRECT_SCRIPT)),
        Route("/docs/{name}", _asset),
        *error_types,
    ]


def _page(text: str) -> Endpoint:
    async def page(_request: Request) -> Response:
        return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"})

    return page


def _script(text: str) -> Endpoint:
    async def script(_request: Request) -> Response:
        return Response(text, headers={"Cache-Control": "no-cache"}, media_type="text/javascript")

    return script


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise NotFound("There is no such file.")
    headers = {"Cache-Control": "public, max-age=86400"}
    return FileResponse(_RESOURCES / name, headers=headers, media_type=_ASSETS[name])


async def _errors(_request: Request) -> Response:
    """Send docs/errors.md: the wheel carries a copy, a checkout has the page itself."""
    installed = Path(__file__).parent / "_docs" / "errors.md"
    checkout = Path(__file__).parent.parent / "docs" / "errors.md"
    page = installed if installed.exists() else checkout
    return FileResponse(page, media_type="text/markdown; charset=utf-8")
