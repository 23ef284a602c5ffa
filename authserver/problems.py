"""What the JSON endpoints answer when they do not do what they were asked: RFC 9457, one form for all.

Nothing that was submitted is repeated, whatever FastAPI's own answers do. docs/errors.md has a heading for each slug.
"""

import logging
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from authserver import services
from authserver.errors import (
    BadRequest,
    Busy,
    ContentTooLarge,
    Fault,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    Problem,
    StoreUnavailable,
    TooManyAttempts,
    UnsupportedMediaType,
)
from authserver.observability import metrics

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_MAX_INSTANCE = 256
_FOR_STATUS: dict[int, type[Problem]] = {
    kind.status: kind for kind in (BadRequest, NotFound, MethodNotAllowed, ContentTooLarge, UnsupportedMediaType)
}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem (RFC 9457)",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "What it is; the address explains it."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence for people."},
        "instance": {"type": "string", "description": "The path of the request."},
        "request_id": {"type": "string", "description": "To be found in the server's log."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer (RFC 6901) into the body."},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}

_DESCRIPTIONS = {
    400: "The request cannot be read",
    401: "No access token, or one that is not good (any more)",
    403: "Not allowed",
    404: "Not found",
    409: "The username or e-mail address is taken",
    413: "The body is larger than 64 KiB",
    415: "The body is not JSON",
    422: "The input is not acceptable; `errors` says what to change",
    429: "Too many attempts; see Retry-After",
    503: "A store is down or the server is full; see Retry-After",
}


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what /openapi.json says about these error answers."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _DESCRIPTIONS[status], "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Have an application translate everything that the domain and FastAPI raise, but HTTPException and bugs."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(TooManyAttempts, _too_many)
    app.add_exception_handler(Busy, _unavailable)
    app.add_exception_handler(StoreUnavailable, _unavailable)
    app.add_exception_handler(RequestValidationError, _invalid)


def response(request: Request, problem: Problem) -> Response:
    """Return the answer for a problem."""
    faults = problem.faults if isinstance(problem, InvalidInput) else []
    return _answer(
        request, problem.status, problem.slug, problem.title, problem.detail, headers=problem.headers, faults=faults
    )


def http_error(request: Request, error: HTTPException) -> Response:
    """Translate what the framework refuses: an unknown path, a wrong method."""
    kind = _FOR_STATUS.get(error.status_code, BadRequest if error.status_code < 500 else Problem)
    details = {404: "There is nothing at this address.", 405: "Use one of the methods in the Allow header."}
    headers = {"Allow": ", ".join(methods(request))} if error.status_code == 405 else dict(error.headers or {})
    return response(request, kind(details.get(error.status_code, f"{kind.title}."), headers))


def bug(request: Request, error: Exception) -> Response:
    """Answer for a mistake of ours; the log tells what it was, the answer does not."""
    log.debug("bug_answered", extra={"kind": type(error).__name__})
    return response(request, Problem("The server made a mistake. The log has it under the request_id."))


def methods(request: Request) -> list[str]:
    """Return all methods of an address (RFC 9110 §15.5.6); the framework names those of the first route it found."""

    def serves(method: str) -> bool:
        asked = {**request.scope, "method": "GET" if method == "HEAD" else method}
        return any(route.matches(asked)[0] is Match.FULL for route in request.app.routes)

    return [method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") if serves(method)]


async def _problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return response(request, problem)


async def _too_many(request: Request, error: Exception) -> Response:
    assert isinstance(error, TooManyAttempts)
    metrics.THROTTLED.labels(error.what).inc()
    log.warning("throttled", extra={"what": error.what, "retry_after": error.retry_after})
    return _answer(
        request, 429, "too-many-requests", "Too many attempts", "Try again after the time in Retry-After.",
        headers={"Retry-After": str(error.retry_after)},
    )  # fmt: skip


async def _unavailable(request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreUnavailable | Busy)
    log.warning("temporarily_unavailable", extra={"reason": str(error)})
    return _answer(
        request, 503, "temporarily-unavailable", "Temporarily unavailable",
        "The server cannot answer at the moment; nothing is wrong with the request. Try again.",
        headers={"Retry-After": str(error.retry_after)},
    )  # fmt: skip


async def _invalid(request: Request, error: Exception) -> Response:
    """What FastAPI itself finds wrong with a parameter: where, never what it was."""
    assert isinstance(error, RequestValidationError)
    return response(request, InvalidInput([Fault("", "A parameter is missing or not of the right type.")]))


def _answer(
    request: Request,
    status: int,
    slug: str,
    title: str,
    detail: str,
    *,
    headers: dict[str, str],
    faults: list[Fault] | tuple[()] = (),
) -> Response:
    body: dict[str, Any] = {
        "type": f"{services.of(request).settings.issuer}/errors#{slug}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": quote(request.url.path[:_MAX_INSTANCE], errors="replace"),
    }
    request_id = request.scope.get("state", {}).get("request_id")
    if request_id:
        body["request_id"] = request_id
    if faults:
        body["errors"] = [{"pointer": fault.pointer, "detail": fault.detail} for fault in faults]
    return Response(orjson.dumps(body), status, {**headers, "Cache-Control": "no-store"}, media_type=MEDIA_TYPE)
