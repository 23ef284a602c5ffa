"""The application: what it mounts is what it does."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

import authserver
from authserver import account, docs_ui, health, pages, problems
from authserver.clients import demo
from authserver.cors import CORS
from authserver.errors import (
    AuthserverError,
    Busy,
    Forbidden,
    Problem,
    ShownToPerson,
    StoreUnavailable,
    TooManyAttempts,
)
from authserver.fast_lane import FastLane
from authserver.oauth.errors import http_error_response
from authserver.oauth.router import ENDPOINTS, FORM_PATHS
from authserver.oauth.router import router as oauth
from authserver.observability import logs
from authserver.observability.requests import Requests
from authserver.services import Services
from authserver.settings import Settings, load

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the ASGI application; SettingsError when the settings are not usable. Touches no store until it starts."""
    settings = settings or load()
    logs.configure(settings)
    services = Services.build(settings)
    app = FastAPI(
        title="authserver",
        version=authserver.__version__,
        lifespan=_lifespan,
        openapi_url="/openapi.json" if settings.serves_docs else None,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # 5 µs a request to find out that nobody listens
        redirect_slashes=False,  # a redirect would send credentials to whatever the Host header says
    )
    app.state.services = services
    app.include_router(oauth)
    app.include_router(account.router)
    app.include_router(health.router)
    app.router.routes.extend(docs_ui.routes(settings))
    pages.install(app, settings)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    problems.install(app)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)
    _show_errors_to_people(app)
    routed = FastLane(app.build_middleware_stack(), ENDPOINTS, app.exception_handlers)
    app.middleware_stack = Requests(CORS(routed, settings) if settings.cors_origins else routed, settings)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    async with services.running(), _preparing(services), health.sampling(services):
        yield


@asynccontextmanager
async def _preparing(services: Services) -> AsyncIterator[None]:
    """Make the first key and the demo client before the block, or inside it as soon as there is a database."""
    later = None
    try:
        await _prepare(services)
    except AuthserverError as unavailable:
        log.warning("started_without_database", extra={"reason": str(unavailable)})
        later = asyncio.create_task(_prepare_later(services), name="prepare")
    yield
    if later is not None:
        later.cancel()


async def _prepare(services: Services) -> None:
    await services.keyring.load()
    if services.settings.is_development:
        await demo.ensure(services.db, services.settings)


async def _prepare_later(services: Services) -> None:
    while True:
        await services.db.migrated()
        try:
            await _prepare(services)
        except AuthserverError as unavailable:
            log.debug("not_prepared", extra={"reason": str(unavailable)})
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    if request.url.path in FORM_PATHS:
        return http_error_response(error.status_code, dict(error.headers or {}))
    return problems.http_error(request, error)


async def _bug(request: Request, error: Exception) -> Response:
    """A mistake of ours: the log has it, the caller gets the form that the endpoint speaks."""
    if request.url.path in FORM_PATHS:
        return http_error_response(500)
    return problems.bug(request, error)


def _show_errors_to_people(app: FastAPI) -> None:
    """Answer with a page where people are, and as before everywhere else."""

    def shown(otherwise: ExceptionHandler) -> ExceptionHandler:
        async def handle(request: Request, error: Exception) -> Response:
            if pages.is_for_people(request.url.path):
                return pages.error_response(request, error)
            return cast("Response", await otherwise(request, error))  # type: ignore[misc, arg-type]

        return handle

    for kind in (HTTPException, Exception, StoreUnavailable, Busy, TooManyAttempts):
        app.add_exception_handler(kind, shown(app.exception_handlers[kind]))
    app.add_exception_handler(Forbidden, shown(app.exception_handlers[Problem]))
    app.add_exception_handler(ShownToPerson, shown(_bug))


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return what /openapi.json says, with the ways to be let in that Swagger UI offers under "Authorize"."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, summary="OAuth 2.0 and OpenID Connect token server", routes=app.routes
        )
        components = schema.setdefault("components", {})
        scopes = {"openid": "Who you are", "profile": "Your username", "email": "Your e-mail address"}
        password = {"tokenUrl": "token", "scopes": scopes}
        code = {"authorizationUrl": "authorize", **password}
        components["securitySchemes"] = {
            "sign_in": {"type": "oauth2", "flows": {"authorizationCode": code, "password": password}},
            "bearer": {"type": "http", "scheme": "bearer", "description": "An access token that you have already."},
        }
        components.setdefault("schemas", {})["Problem"] = problems.SCHEMA
        app.openapi_schema = schema
    return app.openapi_schema
