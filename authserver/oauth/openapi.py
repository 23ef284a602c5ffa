"""How the OAuth endpoints describe themselves in /openapi.json: forms, answers, errors, examples."""

from typing import Any

from authserver.oauth.grants import GRANTS

Schema = dict[str, Any]

_JWT = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiI5In0.c2ln"
_REFRESH = "authserver_rt_8f3kZ…"
_CLIENT = {
    "client_id": {"type": "string", "default": "", "description": "Here, or as the user name of HTTP Basic."},
    "client_secret": {
        "type": "string",
        "format": "password",
        "default": "",
        "description": "Here, or as the password of HTTP Basic; public clients have none.",
    },
    "client_assertion_type": {
        "type": "string",
        "default": "",
        "description": "`urn:ietf:params:oauth:client-assertion-type:jwt-bearer`, with a client_assertion.",
    },
    "client_assertion": {
        "type": "string",
        "default": "",
        "description": "A signed JWT in place of a secret (RFC 7523): private_key_jwt, client_secret_jwt.",
    },
}
_TOKEN = {"type": "string", "description": "An access token or a refresh token."}
_HINT = {
    "type": "string",
    "default": "",
    "description": "`access_token` or `refresh_token`; not needed, and any other value is ignored.",
}

_FORMS: dict[str, Schema] = {
    "token": {
        "type": "object",
        "required": ["grant_type"],
        "properties": {
            "grant_type": {"type": "string", "enum": sorted(GRANTS)},
            "username": {"type": "string", "default": "", "description": "password: a username or an e-mail address."},
            "password": {"type": "string", "format": "password", "default": "", "description": "password."},
            "refresh_token": {"type": "string", "default": "", "description": "refresh_token."},
            "scope": {
                "type": "string",
                "default": "",
                "description": "Space-separated; without it: all that the client may have.",
            },
            **_CLIENT,
        },
    },
    "introspect": {
        "type": "object",
        "required": ["token"],
        "properties": {"token": _TOKEN, "token_type_hint": _HINT, **_CLIENT},
    },
    "revoke": {
        "type": "object",
        "required": ["token"],
        "properties": {"token": _TOKEN, "token_type_hint": _HINT, **_CLIENT},
    },
}
_FORM_EXAMPLES: dict[str, Schema] = {
    "token": {
        "password": {
            "summary": "Sign in",
            "value": {
                "grant_type": "password",
                "username": "ada",
                "password": "correct horse battery staple",
                "scope": "openid profile",
            },
        },
        "refresh_token": {
            "summary": "Refresh",
            "value": {"grant_type": "refresh_token", "refresh_token": _REFRESH},
        },
        "client_credentials": {
            "summary": "Act for oneself",
            "value": {"grant_type": "client_credentials", "scope": "reports:read"},
        },
    },
    "introspect": {"token": {"summary": "An access token", "value": {"token": _JWT}}},
    "revoke": {"token": {"summary": "Sign out", "value": {"token": _REFRESH}}},
}

_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_ANSWERS: dict[str, tuple[Schema, Schema]] = {
    "token": (
        {
            "type": "object",
            "required": ["access_token", "token_type", "expires_in", "scope"],
            "properties": {
                "access_token": _STRING,
                "token_type": {"type": "string", "enum": ["Bearer"]},
                "expires_in": {"type": "integer", "description": "Seconds."},
                "scope": _STRING,
                "refresh_token": _STRING,
            },
        },
        {
            "access_token": _JWT,
            "token_type": "Bearer",
            "expires_in": 600,
            "scope": "openid profile",
            "refresh_token": _REFRESH,
        },
    ),
    "introspection": (
        {
            "type": "object",
            "required": ["active"],
            "properties": {
                "active": {"type": "boolean"},
                **dict.fromkeys(("iss", "sub", "jti", "client_id", "scope", "username", "sid"), _STRING),
                "aud": {"type": "array", "items": _STRING},
                **dict.fromkeys(("exp", "iat", "nbf"), _INTEGER),
                "token_type": _STRING,
            },
        },
        {"active": True, "sub": "0b0c…", "client_id": "app", "scope": "openid profile", "username": "ada"},
    ),
    "empty": ({"type": "object"}, {}),
    "userinfo": (
        {"type": "object", "required": ["sub"], "properties": {"sub": _STRING}},
        {"sub": "0b0c…", "preferred_username": "ada", "email": "ada@example.com", "email_verified": False},
    ),
    "metadata": ({"type": "object", "required": ["issuer", "token_endpoint"]}, {"issuer": "https://auth.example.com"}),
    "jwks": (
        {
            "type": "object",
            "required": ["keys"],
            "properties": {"keys": {"type": "array", "items": {"type": "object"}}},
        },
        {"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "…", "x": "…", "y": "…"}]},
    ),
}

_ERROR_SCHEMA: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": _STRING, "error_description": _STRING},
}


def form(name: str) -> Schema:
    """Return the requestBody of a form endpoint."""
    content = {"schema": _FORMS[name], "examples": _FORM_EXAMPLES[name]}
    return {"required": True, "content": {"application/x-www-form-urlencoded": content}}


def document(description: str, name: str) -> Schema:
    """Return the description of a JSON answer."""
    schema, example = _ANSWERS[name]
    return {"description": description, "content": {"application/json": {"schema": schema, "example": example}}}


def _error(description: str, error: str) -> Schema:
    content = {"schema": _ERROR_SCHEMA, "example": {"error": error, "error_description": "…"}}
    return {"description": description, "content": {"application/json": content}}


ERRORS: dict[int | str, Schema] = {
    400: _error("Refused; `error` says why (RFC 6749 §5.2)", "invalid_request"),
    401: _error("Client authentication failed", "invalid_client"),
    413: _error("The body is larger than 16 KiB", "invalid_request"),
    429: _error("Throttled; see Retry-After", "temporarily_unavailable"),
    503: _error("A store is down or the server is full; see Retry-After", "temporarily_unavailable"),
}

_PROBLEM: Schema = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
BEARER_ONLY: dict[int | str, Schema] = {
    400: {"description": "The Authorization header cannot be read", **_PROBLEM},
    401: {"description": "No access token, or one that is not good (any more)", **_PROBLEM},
    403: {"description": "The access token lacks the scope", **_PROBLEM},
    503: {"description": "A store is down; see Retry-After", **_PROBLEM},
}
