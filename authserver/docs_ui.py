"""Swagger UI at /docs from our own files, so that it works without the internet, and the page of error types."""

from collections.abc import Sequence
from pathlib import Path

import fastapi_swagger  # only for the files of Swagger UI that it carries
import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from authserver.clients import demo
from authserver.errors import NotFound
from authserver.settings import Settings

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
});
ui.initOAuth(%s);
"""


def routes(settings: Settings) -> Sequence[BaseRoute]:
    """Return /errors, and /docs with its files where it is switched on."""
    error_types = [Route("/errors", _errors)]
    if not settings.serves_docs:
        return error_types
    oauth = {"clientId": demo.CLIENT_ID, "appName": "API documentation"} if settings.is_development else {}
    start = _START % orjson.dumps(oauth).decode()

    async def page(_request: Request) -> Response:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"})

    async def start_script(_request: Request) -> Response:
        return Response(start, headers={"Cache-Control": "no-cache"}, media_type="text/javascript")

    return [
        Route("/docs", page),
        Route("/docs/start.js", start_script),
        Route("/docs/{name}", _asset),
        *error_types,
    ]


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
