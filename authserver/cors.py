"""CORS for single-page applications: on the endpoints they call, for the configured origins, never with credentials."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from authserver.observability.requests import name_route
from authserver.settings import Settings

PATHS = frozenset({"/token", "/revoke", "/par", "/userinfo"})
PREFIX = "/.well-known/"
MAX_AGE_SECONDS = 3600


class CORS:
    """Starlette's CORSMiddleware where it belongs; everywhere else answers have no CORS header at all."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._with_cors = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("Authorization", "X-Request-ID"),
            expose_headers=("Retry-After", "WWW-Authenticate", "X-Request-ID"),
            max_age=MAX_AGE_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight request, or let the request through."""
        if scope["type"] != "http" or not _is_for_applications(scope["path"]):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS":
            name_route(scope, "preflight")
        await self._with_cors(scope, receive, send)


def _is_for_applications(path: str) -> bool:
    return path in PATHS or path.startswith(PREFIX)
