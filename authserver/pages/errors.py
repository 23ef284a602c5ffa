"""Whatever goes wrong where people are is a page in their words, with a number by which the log has it."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from authserver import problems
from authserver.errors import Busy, Forbidden, ShownToPerson, StoreUnavailable, TooManyAttempts
from authserver.observability import metrics
from authserver.pages import page

log = logging.getLogger(__name__)


def response(request: Request, error: Exception) -> Response:
    """Return the page for what was raised."""
    code, status, headers = "bug", 500, {}
    match error:
        case ShownToPerson():
            code, status = error.error, 400
            log.info("shown_to_person", extra={"error": error.error, "reason": str(error)})
        case TooManyAttempts():
            code, status, headers = "too_many", 429, {"Retry-After": str(error.retry_after)}
            metrics.THROTTLED.labels(error.what).inc()
            log.warning("throttled", extra={"what": error.what, "retry_after": error.retry_after})
        case StoreUnavailable() | Busy():
            code, status, headers = "unavailable", 503, {"Retry-After": str(error.retry_after)}
            log.warning("temporarily_unavailable", extra={"reason": str(error)})
        case Forbidden():
            code, status = "signup_closed", 403
        case HTTPException():
            status, headers = error.status_code, dict(error.headers or {})
            code = "not_found" if status == 404 else "malformed_request"
            if status == 405:
                headers = {"Allow": ", ".join(problems.methods(request))}
    return _page(request, code, status, headers)


def _page(request: Request, code: str, status: int, headers: dict[str, str]) -> Response:
    texts = page.language_of(request)
    if not texts.knows(f"error.{code}"):
        code = "malformed_request"
    wait = int(headers.get("Retry-After", "0"))
    request_id = request.scope.get("state", {}).get("request_id", "")
    return page.show(
        request,
        "error.html",
        status,
        headers=headers,
        code=code,
        minutes=-(-wait // 60) if wait > 1 else 0,
        request_id=request_id,
    )
