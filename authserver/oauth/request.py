"""Reading an OAuth request: a bounded form, each parameter once, and what the client offers as proof."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import parse_qsl, unquote_plus

from starlette.requests import ClientDisconnect, Request

from authserver.clients.authentication import Credentials
from authserver.oauth import errors
from authserver.oauth.errors import Refusal
from authserver.text import is_clean

MAX_BYTES = 16 * 1024
MAX_FIELDS = 100
MAY_REPEAT = frozenset({"resource"})
"""RFC 8707 §2; the values are joined by spaces, which no URI has."""
_FORM = "application/x-www-form-urlencoded"
_PRINTABLE_ASCII = bytes(range(0x20, 0x7F))
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="authserver", charset="UTF-8"'}

Form = dict[str, str]


@dataclass(slots=True)
class Head:
    """The headers that these endpoints look at, each as often as it was sent."""

    authorization: list[str] = field(default_factory=list)
    content_type: list[str] = field(default_factory=list)
    content_encoding: str = "identity"
    content_length: str = ""
    user_agent: str | None = None


def read_head(headers: Sequence[tuple[bytes, bytes]]) -> Head:
    """Return them from one pass over a request's headers, whose names are in lower case (ASGI)."""
    head = Head()
    for name, value in headers:
        if name == b"authorization":
            head.authorization.append(value.decode("latin-1"))
        elif name == b"content-type":
            head.content_type.append(value.decode("latin-1"))
        elif name == b"content-encoding":
            head.content_encoding = value.decode("latin-1").lower()
        elif name == b"content-length":
            head.content_length = value.decode("latin-1")
        elif name == b"user-agent":
            head.user_agent = value.decode("latin-1")
    return head


async def read_form(request: Request, head: Head) -> Form | Refusal:
    """Return the parameters, empty ones left out (RFC 6749 §3.2), or why the request is not read."""
    body = await read_form_bytes(request, head)
    return body if isinstance(body, Refusal) else parse_form(body)


async def read_form_bytes(request: Request, head: Head) -> bytes | Refusal:
    """Return the form as it came, at most `MAX_BYTES`, or why it is not read."""
    if not _is_form(head):
        return errors.NOT_A_FORM
    announced = head.content_length
    if announced.isascii() and announced.isdigit() and int(announced) > MAX_BYTES:
        return errors.TOO_LARGE
    try:
        body = await _read_bounded(request)  # in bounded time: serving/connection.py hangs up
    except ClientDisconnect:
        return errors.MALFORMED.because("the client went away")
    if body is None:
        return errors.TOO_LARGE
    return body


def parse_form(body: bytes) -> Form | Refusal:
    """Return the parameters of a body of at most `MAX_BYTES`."""
    is_plain = b"%" not in body and b"+" not in body and not body.translate(None, _PRINTABLE_ASCII)
    try:
        pairs = _plain_pairs(body) if is_plain else _encoded_pairs(body)
    except ValueError:  # not UTF-8, or too many fields
        return errors.MALFORMED
    form = dict(pairs)
    if len(form) != len(pairs):
        form, repeated = _joined(pairs)
        if not repeated <= MAY_REPEAT:
            return errors.REPEATED
    if not is_plain and not all(is_clean(name) and is_clean(value) for name, value in pairs):
        return errors.MALFORMED
    return {name: value for name, value in form.items() if value}


def _encoded_pairs(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(
        body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, encoding="utf-8", errors="strict"
    )


def _plain_pairs(body: bytes) -> list[tuple[str, str]]:
    """Return the same of a body in which nothing is encoded: a token and what it is."""
    parts = body.decode("ascii").split("&")
    if len(parts) > MAX_FIELDS:
        raise ValueError(len(parts))
    return [part.partition("=")[::2] for part in parts if part]


def _joined(pairs: list[tuple[str, str]]) -> tuple[Form, set[str]]:
    """Return each parameter with all its values, and the names of those that have several."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: " ".join(filter(None, given)) for name, given in values.items()}, {
        name for name, given in values.items() if len(given) > 1
    }


def read_credentials(head: Head, form: Form) -> Credentials | Refusal:
    """Return how the client proves itself: Basic, in the body, or not at all (RFC 6749 §2.3.1)."""
    headers = head.authorization
    client_id, secret = form.get("client_id"), form.get("client_secret")
    if not headers:
        if client_id is None:
            # Some HTTP clients (curl --anyauth, Java's) send credentials only to who asks for them (RFC 9110 §15.5.2).
            return challenged(errors.INVALID_CLIENT.because("no client authentication"))
        return Credentials(client_id, secret, "none" if secret is None else "client_secret_post")
    if len(headers) > 1 or secret is not None:
        return errors.TWO_METHODS
    basic = _parse_basic(headers[0])
    if basic is None:
        return challenged(errors.INVALID_CLIENT.because("the Authorization header is not Basic, or malformed"))
    if client_id is not None and client_id != basic[0]:
        return errors.TWO_METHODS.because("client_id differs from the header's")
    # Swagger UI and oidc-agent send a public client as Basic with an empty password: that is no proof, so no method.
    return Credentials(basic[0], basic[1] or None, "client_secret_basic" if basic[1] else "none")


def challenged(refusal: Refusal) -> Refusal:
    """Return the refusal for a client that used the Authorization header (RFC 6749 §5.2), or might.

    Not for one that is named in the body: a browser would ask the user of a single-page application for a password.
    """
    return Refusal(refusal.error, refusal.description, refusal.status, _CHALLENGE, refusal.reason)


def _is_form(head: Head) -> bool:
    # Whatever charset it names: it is read as UTF-8, and refused if it is not.
    media_types = [value.split(";")[0].strip().lower() for value in head.content_type]
    return media_types == [_FORM] and head.content_encoding == "identity"


async def _read_bounded(request: Request) -> bytes | None:
    """Return the body, or None as soon as it is larger than `MAX_BYTES`."""
    body = b""
    while True:  # past `request.stream()`, a generator, for what is nearly always one message
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        body += chunk
        if len(body) > MAX_BYTES:
            return None
        if not message.get("more_body", False):
            return body


@lru_cache(maxsize=256)  # a client sends the same header each time
def _parse_basic(header: str) -> tuple[str, str] | None:
    """Return client_id and secret, each form-decoded (RFC 6749 §2.3.1, appendix B), or None."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        decoded = unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except (binascii.Error, UnicodeError, ValueError):
        return None
    return decoded if colon and decoded[0] and all(is_clean(part) for part in decoded) else None
