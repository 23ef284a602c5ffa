"""The short way to the endpoints that are asked thousands of times a second.

FastAPI looks through its routes and wraps each call in seven layers, which costs more than a whole introspection. These
endpoints need none of that: they read the request as it came and answer with a ready response.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from authserver.errors import AuthserverError
from authserver.observability.requests import name_route

Endpoint = Callable[[Request], Awaitable[Response]]


class FastLane:
    """Calls an endpoint by its method and exact path; everything else goes on to the application."""

    def __init__(
        self,
        app: ASGIApp,
        endpoints: Mapping[tuple[str, str], Endpoint],
        exception_handlers: Mapping[type[Exception], ExceptionHandler],
    ) -> None:
        self._app = app
        self._endpoints = endpoints
        self._exception_handlers = exception_handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the request through."""
        endpoint = self._endpoints.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        name_route(scope, scope["path"])
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except AuthserverError as failure:
            response = await self._translated(request, failure)
        await response(scope, receive, send)

    async def _translated(self, request: Request, failure: AuthserverError) -> Response:
        """Give what the domain raises the form that it has everywhere else in the application."""
        for kind in type(failure).__mro__:
            if handler := self._exception_handlers.get(kind):
                return cast("Response", await handler(request, failure))  # type: ignore[misc, arg-type]
        raise failure
