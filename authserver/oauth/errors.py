"""What an OAuth client is told: one table of fixed sentences; the reason goes to the log (RFC 6749 §5.2)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import orjson
from starlette.responses import Response

from authserver.errors import AuthserverError, Busy, StoreUnavailable, TooManyAttempts
from authserver.observability import metrics

log = logging.getLogger(__name__)

_NEVER_STORED = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), (b"pragma", b"no-cache")]


class ReadyResponse(Response):
    """A response of bytes and encoded headers, which Starlette's own would put together anew each time (5 µs)."""

    def __init__(self, body: bytes, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.body, self.status_code, self.background = body, status, None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), *headers]


@dataclass(frozen=True)
class Refusal:
    """An answer, not a failure: it is returned, so that the transaction it was decided in commits."""

    error: str
    description: str
    status: int = 400
    headers: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    """For the log only."""

    def because(self, reason: str) -> "Refusal":
        """Return the same answer with a reason for the log."""
        return replace(self, reason=reason)

    def response(self) -> Response:
        """Return it as the client sees it."""
        log.info("oauth_refused", extra={"error": self.error, "reason": self.reason or self.description})
        return json_response({"error": self.error, "error_description": self.description}, self.status, self.headers)


INVALID_CLIENT = Refusal("invalid_client", "Client authentication failed.", 401)
INVALID_GRANT_PASSWORD = Refusal("invalid_grant", "The username or password is not right.")
INVALID_GRANT_REFRESH = Refusal("invalid_grant", "The refresh token is not valid (any more).")
INVALID_GRANT_FOREIGN = Refusal("invalid_grant", "The token was not issued to this client.")
INVALID_GRANT_CODE = Refusal("invalid_grant", "The authorization code is not valid (any more).")
INVALID_SCOPE = Refusal("invalid_scope", "A requested scope is malformed or beyond what is allowed.")
INVALID_TARGET = Refusal("invalid_target", "A requested resource is not one that the client has tokens for.")
UNAUTHORIZED_CLIENT = Refusal("unauthorized_client", "The client may not use this grant type.")
UNSUPPORTED_GRANT_TYPE = Refusal("unsupported_grant_type", "The server has no such grant type.")
INVALID_REDIRECT_URI = Refusal("invalid_redirect_uri", "A redirect URI is missing, or is not one that we send to.")
INVALID_CLIENT_METADATA = Refusal("invalid_client_metadata", "A field has a value that we do not register.")
METHOD_NOT_ALLOWED = Refusal("invalid_request", "Use POST.", 405, {"Allow": "POST"})
NOT_A_FORM = Refusal("invalid_request", "Send application/x-www-form-urlencoded, not compressed.")
TOO_LARGE = Refusal("invalid_request", "The request is larger than 16 KiB.", 413, {"Connection": "close"})
MALFORMED = Refusal("invalid_request", "The request is not well-formed.")
REPEATED = Refusal("invalid_request", "A parameter is repeated.")
TWO_METHODS = Refusal("invalid_request", "More than one way of client authentication was used.")


def missing(parameter: str) -> Refusal:
    """Return the refusal for a parameter that must be there."""
    return Refusal("invalid_request", f"The parameter {parameter} is missing.")


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return JSON that nobody may keep (RFC 6749 §5.1)."""
    more = [(name.lower().encode(), value.encode()) for name, value in headers.items()] if headers else []
    return ReadyResponse(orjson.dumps(content), status, [*_NEVER_STORED, *more])


def failure_response(failure: AuthserverError) -> Response:
    """Translate what the domain raises: 429 for too many attempts, 503 for a store or a queue, with Retry-After."""
    if isinstance(failure, TooManyAttempts):
        metrics.THROTTLED.labels(failure.what).inc()
        status, sentence = 429, "Too many attempts; try again later."
    elif isinstance(failure, Busy | StoreUnavailable):
        status, sentence = 503, "The server cannot answer at the moment; try again."
    else:
        raise failure
    log.warning("oauth_unavailable", extra={"status": status, "reason": str(failure)})
    headers = {"Retry-After": str(failure.retry_after)}
    return json_response({"error": "temporarily_unavailable", "error_description": sentence}, status, headers)


def http_error_response(status: int, headers: dict[str, str] | None = None) -> Response:
    """Give what the framework refuses (a wrong method, a bug's 500) the OAuth form as well."""
    if status == 405:
        return METHOD_NOT_ALLOWED.response()
    error = "server_error" if status >= 500 else "invalid_request"
    sentence = "The server made a mistake." if status >= 500 else MALFORMED.description
    return json_response({"error": error, "error_description": sentence}, status, headers)
