"""What we can do, for programs: RFC 8414 metadata and OpenID Connect Discovery; nothing is listed that is not so."""

from starlette.requests import Request
from starlette.responses import Response

from authserver import services
from authserver.clients.metadata import DEFAULT_SCOPES
from authserver.oauth import claims, client_jwt
from authserver.oauth.authorization.request import DISPLAYS, PROMPTS
from authserver.oauth.authorization.response import MODES
from authserver.oauth.grants import GRANTS
from authserver.oauth.jwks import cacheable
from authserver.sessions.browser import OFFLINE
from authserver.settings import Settings
from authserver.tokens import id_token

_CLIENT_AUTHENTICATION = ["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt"]


def metadata(settings: Settings) -> dict[str, object]:
    """Return the metadata document (RFC 8414 §2)."""
    issuer = settings.issuer
    registration = {} if settings.client_registration == "off" else {"registration_endpoint": f"{issuer}/clients"}
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "pushed_authorization_request_endpoint": f"{issuer}/par",
        "token_endpoint": f"{issuer}/token",
        "introspection_endpoint": f"{issuer}/introspect",
        "revocation_endpoint": f"{issuer}/revoke",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "end_session_endpoint": f"{issuer}/logout",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "scopes_supported": [*DEFAULT_SCOPES, OFFLINE],
        "response_types_supported": ["code"],
        "response_modes_supported": list(MODES),
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "prompt_values_supported": list(PROMPTS),
        "display_values_supported": list(DISPLAYS),
        "acr_values_supported": [id_token.ACR],
        "claims_parameter_supported": True,
        "request_parameter_supported": True,
        "request_object_signing_alg_values_supported": client_jwt.ALGORITHMS,
        "request_uri_parameter_supported": False,
        "require_pushed_authorization_requests": False,
        "require_signed_request_object": False,
        "grant_types_supported": sorted(GRANTS),
        "token_endpoint_auth_methods_supported": [*_CLIENT_AUTHENTICATION, "none"],
        "token_endpoint_auth_signing_alg_values_supported": client_jwt.ALGORITHMS,
        "introspection_endpoint_auth_methods_supported": _CLIENT_AUTHENTICATION,
        "introspection_endpoint_auth_signing_alg_values_supported": client_jwt.ALGORITHMS,
        "revocation_endpoint_auth_methods_supported": [*_CLIENT_AUTHENTICATION, "none"],
        "revocation_endpoint_auth_signing_alg_values_supported": client_jwt.ALGORITHMS,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(id_token.ALGORITHMS),
        "userinfo_signing_alg_values_supported": list(id_token.ALGORITHMS),
        "claims_supported": [*id_token.CLAIMS, *claims.NAMES],
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "service_documentation": f"{issuer}/errors",
        **registration,
    }


async def discovery(request: Request) -> Response:
    """Return the metadata document; both well-known addresses give the same one."""
    settings = services.of(request).settings
    return cacheable(request, metadata(settings), settings.jwks_max_age_seconds)
