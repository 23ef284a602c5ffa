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

_AUTHORIZATION: Schema = {
    "response_type": {"type": "string", "enum": ["code"]},
    "redirect_uri": {"type": "string", "default": "", "description": "One that the client has registered."},
    "scope": {"type": "string", "default": "", "description": "`openid` for an ID token."},
    "state": {"type": "string", "default": "", "description": "Comes back with the answer."},
    "nonce": {"type": "string", "default": "", "description": "Comes back in the ID token."},
    "code_challenge": {"type": "string", "default": "", "description": "RFC 7636."},
    "code_challenge_method": {"type": "string", "default": "", "description": "`S256`."},
    "response_mode": {"type": "string", "default": "", "description": "`query`, `fragment` or `form_post`."},
    "prompt": {"type": "string", "default": "", "description": "`none`, or `login`, `consent`, `select_account`."},
    "max_age": {"type": "string", "default": "", "description": "Seconds since the user has signed in."},
    "login_hint": {"type": "string", "default": "", "description": "Filled into the sign-in page."},
    "id_token_hint": {"type": "string", "default": "", "description": "About whom the answer must be."},
    "ui_locales": {"type": "string", "default": "", "description": "Languages, the best first."},
    "acr_values": {"type": "string", "default": "", "description": "How to sign in, as wishes."},
    "claims": {"type": "string", "default": "", "description": "JSON: claims by name (OpenID Connect Core §5.5)."},
    "display": {"type": "string", "default": "", "description": "`page`, `popup`, `touch` or `wap`."},
    "resource": {"type": "string", "default": "", "description": "Whom the access token is for; may be repeated."},
    "request": {"type": "string", "default": "", "description": "All of this as a signed JWT (RFC 9101)."},
}
AUTHORIZATION_PARAMETERS = [
    {"name": name, "in": "query", "required": name == "client_id", "schema": {"type": "string"}}
    for name in ("client_id", *_AUTHORIZATION, "request_uri")
]
_FORMS: dict[str, Schema] = {
    "authorize": {
        "type": "object",
        "required": ["client_id"],
        "properties": {"client_id": _CLIENT["client_id"], **_AUTHORIZATION},
    },
    "par": {"type": "object", "required": ["response_type"], "properties": {**_AUTHORIZATION, **_CLIENT}},
    "token": {
        "type": "object",
        "required": ["grant_type"],
        "properties": {
            "grant_type": {"type": "string", "enum": sorted(GRANTS)},
            "username": {"type": "string", "default": "", "description": "password: a username or an e-mail address."},
            "password": {"type": "string", "format": "password", "default": "", "description": "password."},
            "refresh_token": {"type": "string", "default": "", "description": "refresh_token."},
            "code": {"type": "string", "default": "", "description": "authorization_code."},
            "redirect_uri": {"type": "string", "default": "", "description": "authorization_code: as in the request."},
            "code_verifier": {"type": "string", "default": "", "description": "authorization_code: RFC 7636."},
            "resource": {"type": "string", "default": "", "description": "RFC 8707; may be repeated."},
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
_REQUEST = {
    "response_type": "code",
    "client_id": "app",
    "redirect_uri": "https://app.example/callback",
    "scope": "openid profile",
    "state": "af0ifjsldkj",
    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "code_challenge_method": "S256",
}
_FORM_EXAMPLES: dict[str, Schema] = {
    "authorize": {"code": {"summary": "Sign in", "value": _REQUEST}},
    "par": {"code": {"summary": "Sign in", "value": _REQUEST}},
    "token": {
        "authorization_code": {
            "summary": "Trade a code",
            "value": {
                "grant_type": "authorization_code",
                "code": "authserver_ac_…",
                "redirect_uri": "https://app.example/callback",
                "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            },
        },
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
    "par": (
        {
            "type": "object",
            "required": ["request_uri", "expires_in"],
            "properties": {"request_uri": _STRING, "expires_in": {"type": "integer", "description": "Seconds."}},
        },
        {"request_uri": "urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c", "expires_in": 60},
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

_PAGE: Schema = {"content": {"text/html": {"schema": _STRING}}}
FOR_BROWSERS: dict[int | str, Schema] = {
    200: {"description": "`form_post`: a page that posts the answer to the redirect URI", **_PAGE},
    303: {"description": "To the redirect URI with a code or an error, or to our own pages"},
    400: {"description": "No client or redirect URI that an answer could go to: a page that says so", **_PAGE},
    503: {"description": "A store is down; see Retry-After", **_PAGE},
}
