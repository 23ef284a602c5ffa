"""The addresses of the OAuth endpoints, with what /openapi.json tells about them.

The handlers read the raw request (FastAPI's form parameters answer 422, accept repeated fields and cost 200 µs), so
their forms are described here by hand; tests/test_openapi.py holds the description against the behaviour.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from authserver.errors import Busy, StoreUnavailable, TooManyAttempts
from authserver.oauth import registration
from authserver.oauth.authorize import authorize
from authserver.oauth.client_metadata import described as described_client
from authserver.oauth.discovery import discovery
from authserver.oauth.errors import failure_response
from authserver.oauth.introspect import introspect
from authserver.oauth.jwks import jwks
from authserver.oauth.openapi import AUTHORIZATION_PARAMETERS, BEARER_ONLY, ERRORS, FOR_BROWSERS, document, form
from authserver.oauth.par import par
from authserver.oauth.revoke import revoke
from authserver.oauth.token import token
from authserver.oauth.userinfo import userinfo

FORM_PATHS = frozenset({"/token", "/introspect", "/revoke", "/par"})
"""Here every answer has the OAuth form, the framework's refusals too."""

Handler = Callable[[Request], Awaitable[Response]]


class _FormRoute(APIRoute):
    """A thin route: the handler gets the request as it came; what the domain raises gets the OAuth form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Handler = self.endpoint

        async def handle(request: Request) -> Response:
            try:
                return await endpoint(request)
            except (StoreUnavailable, Busy, TooManyAttempts) as failure:
                return failure_response(failure)

        return handle


class _PlainRoute(APIRoute):
    """A thin route for the documents and /userinfo; failures get the form of RFC 9457 from the application."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


router = APIRouter(tags=["OAuth 2.0"])
_browsers = APIRouter(route_class=_PlainRoute)
_forms = APIRouter(route_class=_FormRoute)
_documents = APIRouter(route_class=_PlainRoute)
_registration = APIRouter(route_class=_PlainRoute)
"""Not in the fast lane: one path for each client."""

_forms.add_api_route(
    "/token", token, methods=["POST"], summary="Get or refresh tokens",
    description="RFC 6749 §3.2. `grant_type=password` signs a user in; `grant_type=refresh_token` trades the refresh "
    "token for its successor, and a retry within a few seconds gets the same one.",
    responses={**ERRORS, 200: document("The tokens", "token")},
    openapi_extra={"requestBody": form("token")},
)  # fmt: skip
_forms.add_api_route(
    "/introspect", introspect, methods=["POST"], summary="Ask whether a token is active",
    description="RFC 7662. Dead, foreign and malformed tokens all answer `{\"active\": false}`.",
    responses={**ERRORS, 200: document("What is known of the token", "introspection")},
    openapi_extra={"requestBody": form("introspect")},
)  # fmt: skip
_forms.add_api_route(
    "/revoke", revoke, methods=["POST"], summary="Kill a token",
    description="RFC 7009. An access token dies alone, a refresh token with its whole session. 200 comes when it is "
    "durable; from then on no node says that the token is good.",
    responses={**ERRORS, 200: document("The token is dead, or never was alive", "empty")},
    openapi_extra={"requestBody": form("revoke")},
)  # fmt: skip
_forms.add_api_route(
    "/par", par, methods=["POST"], summary="Leave an authorization request", status_code=201,
    description="RFC 9126. Checked as `/authorize` would; the `request_uri` is good for one code, and for a browser "
    "that comes with it within a minute.",
    responses={**ERRORS, 201: document("Where the request is", "par")},
    openapi_extra={"requestBody": form("par")},
)  # fmt: skip
_browsers.add_api_route(
    "/authorize", authorize, methods=["GET"], summary="Sign in for an application", operation_id="authorize_get",
    description="RFC 6749 §4.1.1, OpenID Connect Core §3.1.2. For browsers: the answer goes to the redirect URI, or "
    "the person is asked to sign in or to agree first.",
    responses=FOR_BROWSERS, openapi_extra={"parameters": AUTHORIZATION_PARAMETERS},
)  # fmt: skip
_browsers.add_api_route(
    "/authorize", authorize, methods=["POST"], summary="The same, from a form", operation_id="authorize_post",
    description="303 to the same request by GET.",
    responses=FOR_BROWSERS, openapi_extra={"requestBody": form("authorize")},
)  # fmt: skip
for _method in ("GET", "POST"):
    _documents.add_api_route(
        "/userinfo", userinfo, methods=[_method], summary="Who signed in", operation_id=f"userinfo_{_method.lower()}",
        description="OpenID Connect Core §5.3. Needs an access token with the scope `openid`.",
        responses={200: document("The claims that the scopes open", "userinfo"), **BEARER_ONLY},
        openapi_extra={"security": [{"sign_in": ["openid"]}, {"bearer": []}]},
    )  # fmt: skip
for _path, _name in (
    ("/.well-known/oauth-authorization-server", "RFC 8414"),
    ("/.well-known/openid-configuration", "OpenID Connect Discovery"),
):
    _documents.add_api_route(
        _path, discovery, methods=["GET"], summary=f"Metadata ({_name})", operation_id=_path.rsplit("/", 1)[1],
        responses={200: document("The metadata", "metadata")},
    )  # fmt: skip
_documents.add_api_route(
    "/.well-known/jwks.json", jwks, methods=["GET"], summary="The public keys",
    description="RFC 7517 §5. Keep it as long as Cache-Control says; the next key is in it before it is used.",
    responses={200: document("The keys", "jwks"), 503: BEARER_ONLY[503]},
)  # fmt: skip
for _method, _path, _handler, _status, _summary in (
    ("POST", "/clients", registration.register, 201, "Register a client (RFC 7591)"),
    ("GET", "/clients/{client_id}", registration.read, 200, "Read one's own registration (RFC 7592)"),
    ("PUT", "/clients/{client_id}", registration.replace, 200, "Replace one's own registration"),
    ("DELETE", "/clients/{client_id}", registration.delete, 204, "Delete oneself as a client"),
):
    _registration.add_api_route(
        _path, _handler, methods=[_method], summary=_summary, status_code=_status, responses=BEARER_ONLY,
        operation_id=f"client_{_method.lower()}", description="404 unless `AUTHSERVER_CLIENT_REGISTRATION` is on.",
        openapi_extra=described_client(_method, has_id=_path != "/clients"),
    )  # fmt: skip
router.include_router(_registration)
router.include_router(_browsers)
router.include_router(_forms)
router.include_router(_documents)

ENDPOINTS: dict[tuple[str, str], Handler] = {
    (method, route.path): route.get_route_handler()
    for route in (*_forms.routes, *_documents.routes)
    if isinstance(route, APIRoute)
    for method in route.methods or ()
}
"""All of them by method and path, for the fast lane."""
