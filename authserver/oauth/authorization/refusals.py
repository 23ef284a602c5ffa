"""What the client hears from /authorize: one table, as in oauth/errors.py (RFC 6749 §4.1.2.1, OIDC Core §3.1.2.6)."""

from authserver.oauth.errors import Refusal

ACCESS_DENIED = Refusal("access_denied", "The user has refused.")
CONSENT_REQUIRED = Refusal("consent_required", "The user must be asked for consent.")
INVALID_REQUEST_OBJECT = Refusal("invalid_request_object", "The request object is not valid.")
LOGIN_REQUIRED = Refusal("login_required", "The user must sign in.")
REGISTRATION_NOT_SUPPORTED = Refusal("registration_not_supported", "The parameter registration is not supported.")
REQUEST_URI_NOT_SUPPORTED = Refusal("request_uri_not_supported", "Use a request_uri that /par has given.")
UNAUTHORIZED_CLIENT = Refusal("unauthorized_client", "The client may not use authorization codes.")
UNMET_AUTHENTICATION = Refusal("unmet_authentication_requirements", "There is no such way to sign in.")
UNSUPPORTED_RESPONSE_TYPE = Refusal("unsupported_response_type", "The only response_type is code.")


def invalid_request(description: str) -> Refusal:
    """Return the refusal of a request that makes no sense, or not to us."""
    return Refusal("invalid_request", description)
