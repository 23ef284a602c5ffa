"""The outermost middleware: who asks (really), under which request id, what the answer was and how long it took.

Pure ASGI: BaseHTTPMiddleware costs time and leaks database connections when a request is cancelled.
"""

import asyncio
import ipaddress
import logging
import random
import re
from functools import lru_cache
from inspect import isawaitable
from time import perf_counter
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from authserver import patience
from authserver.observability import logs, metrics
from authserver.observability.logs import request_fields
from authserver.settings import Settings

log = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499
"""nginx's number for a client that did not wait for the answer; never sent."""
UNMATCHED = "unmatched"
_ROUTE = "authserver.route"
_MAX_PATH = 256
_MAX_NOTE = 128
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
]
_HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000")


def note(*, client_id: str | None = None, user_id: str | None = None, session_id: str | None = None) -> None:
    """Add to this request's log lines whom it is about; a later call adds to an earlier one."""
    fields = request_fields.get()
    if fields is not None:
        for name, value in (("client_id", client_id), ("user_id", user_id), ("session_id", session_id)):
            if value is not None:
                fields[name] = value[:_MAX_NOTE]


def name_route(scope: Scope, name: str) -> None:
    """Say what an answer is counted under that no route gives."""
    scope[_ROUTE] = name


class Requests:
    """Wraps the whole application. A path is `scope["path"]`, the client `scope["client"]`, both safe to use inside."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._headers = list(_SECURITY_HEADERS)
        if urlsplit(settings.issuer).scheme == "https":
            self._headers.append(_HTTPS_ONLY)
        # uvicorn has its own switched off (serving), for it believes anybody on 127.0.0.1.
        proxies = settings.trusted_proxies
        self._read_proxy_headers = ProxyHeadersMiddleware(_nothing, proxies) if proxies else None  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through and note what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = perf_counter()
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # a copy: the server looks at its own to leave the body out
        client = scope["client"] = await self._true_client(scope)
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        fields = {
            "request_id": request_id,
            "ip": client and client[0],
            "client_id": None,
            "user_id": None,
            "session_id": None,
        }
        request_fields.set(fields)
        patience.begin_request()
        answer = _Answer(receive, send, [*self._headers, (b"x-request-id", request_id.encode())], method == "HEAD")
        try:
            await self._answer(scope, answer)
        finally:
            seconds = perf_counter() - started_at
            route = _route(scope)
            metrics.count_request(route, method, answer.status, seconds)
            line = {
                "method": method[:16],
                "path": scope["path"][:_MAX_PATH],
                "route": route,
                "status": answer.status,
                "duration_ms": round(seconds * 1000, 3),
            }
            logs.request(log, line)
            fields.clear()  # connections and tasks opened meanwhile keep this context; their later lines are not ours

    async def _answer(self, scope: Scope, answer: "_Answer") -> None:
        try:
            await self._app(scope, answer.receive, answer.send)
        except ClientDisconnect:
            answer.abandon()
        except asyncio.CancelledError:
            answer.abandon()
            raise
        except Exception as bug:
            log.exception("unhandled_exception")
            if not answer.has_begun:
                response = await _bug_response(scope, bug)
                await response(scope, answer.receive, answer.send)

    async def _true_client(self, scope: Scope) -> tuple[str, int] | None:
        """Return the true address, canonically spelt; the peer's when a proxy says nothing usable."""
        client: tuple[str, int] | None = scope.get("client")
        if client is None:
            return None
        peer = (_canonical(client[0]) or client[0], client[1])
        if self._read_proxy_headers is None:
            return peer
        scope["client"] = peer
        await self._read_proxy_headers(scope, _nobody, _nobody)  # type: ignore[arg-type]
        address = _canonical(scope["client"][0])
        return (address, scope["client"][1]) if address else peer


class _Answer:
    """Passes messages on and remembers what they said."""

    __slots__ = ("_headers", "_is_complete", "_is_head", "_receive", "_send", "has_begun", "status")

    def __init__(self, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]], is_head: bool) -> None:
        self._receive = receive
        self._send = send
        self._headers = headers
        self._is_head = is_head
        self.has_begun = self._is_complete = False
        self.status = 500

    def abandon(self) -> None:
        """Note that the client does not wait for the answer, unless it has all of it."""
        if not self._is_complete:
            self.status = CLIENT_CLOSED_REQUEST

    async def receive(self) -> Message:
        """Pass on a message from the client."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.abandon()
        return message

    async def send(self, message: Message) -> None:
        """Pass on a message to the client, with our headers, and without a body if it was a HEAD request."""
        if message["type"] == "http.response.start":
            self.has_begun = True
            if self.status != CLIENT_CLOSED_REQUEST:
                self.status = message["status"]
            headers = list(message.get("headers", ()))
            present = {name for name, _ in headers}
            headers += [header for header in self._headers if header[0] not in present]
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self._is_complete = not message.get("more_body", False)
            if self._is_head:
                message = {**message, "body": b""}
        await self._send(message)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return f"{random.getrandbits(128):032x}"


def _route(scope: Scope) -> str:
    """Return the template of the address, such as `/users/me/sessions/{id}`: as many values as there are routes.

    It is rebuilt from the path, because FastAPI's `scope["route"].path` lacks the prefix of an included router.
    """
    if _ROUTE in scope:
        return str(scope[_ROUTE])
    if "endpoint" not in scope:
        return UNMATCHED
    if scope.get("app_root_path") is not None:  # a mounted application, whatever is asked of it
        return str(scope["root_path"])
    rest, template = str(scope["path"]), ""
    for name, value in reversed(scope.get("path_params", {}).items()):
        rest, found, after = rest.rpartition(f"/{value}")
        if not found or (after and not after.startswith("/")):
            return UNMATCHED
        template = f"/{{{name}}}{after}{template}"
    return rest + template


@lru_cache(maxsize=4096)
def _canonical(host: str) -> str | None:
    """Return the one spelling of an IP address, or None if it is none; IPv4 inside IPv6 becomes IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:  # any text may follow the %
            return None
        address = address.ipv4_mapped or address
    return str(address)


async def _bug_response(scope: Scope, bug: Exception) -> Response:
    """Ask the application for its answer to a bug: the handler that it has registered for Exception."""
    application = scope.get("app")
    handler = application.exception_handlers.get(Exception) if application else None
    if handler is None:
        return PlainTextResponse("Internal Server Error", 500)
    response: Response = handler(Request(scope), bug)
    return await response if isawaitable(response) else response


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Take the place of an application: only the scope is of interest."""


async def _nobody(*_: object) -> None:
    """Take the place of a connection."""
