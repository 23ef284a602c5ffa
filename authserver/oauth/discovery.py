"""What we can do, for programs: RFC 8414 metadata and OpenID Connect Discovery; nothing is listed that is not so."""

from starlette.requests import Request
from starlette.responses import Response

from authserver import services
from authserver.clients.metadata import DEFAULT_SCOPES
from authserver.oauth import client_assertion
from authserver.oauth.grants import GRANTS
from authserver.oauth.jwks import cacheable
from authserver.settings import Settings

_CLIENT_AUTHENTICATION = ["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt"]


def metadata(settings: Settings) -> dict[str, object]:
    """Return the metadata document (RFC 8414 §2)."""
    issuer = settings.issuer
    return {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/token",
        "introspection_endpoint": f"{issuer}/introspect",
        "revocation_endpoint": f"{issuer}/revoke",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "scopes_supported": list(DEFAULT_SCOPES),
        "response_types_supported": [],
        "grant_types_supported": sorted(GRANTS),
        "token_endpoint_auth_methods_supported": [*_CLIENT_AUTHENTICATION, "none"],
        "token_endpoint_auth_signing_alg_values_supported": client_assertion.ALGORITHMS,
        "introspection_endpoint_auth_methods_supported": _CLIENT_AUTHENTICATION,
        "introspection_endpoint_auth_signing_alg_values_supported": client_assertion.ALGORITHMS,
        "revocation_endpoint_auth_methods_supported": [*_CLIENT_AUTHENTICATION, "none"],
        "revocation_endpoint_auth_signing_alg_values_supported": client_assertion.ALGORITHMS,
        "subject_types_supported": ["public"],
        "claims_supported": ["sub", "preferred_username", "updated_at", "email", "email_verified"],
        "service_documentation": f"{issuer}/errors",
    }


async def discovery(request: Request) -> Response:
    """Return the metadata document; both well-known addresses give the same one."""
    settings = services.of(request).settings
    return cacheable(request, metadata(settings), settings.jwks_max_age_seconds)
