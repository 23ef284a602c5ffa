"""Reading a JSON body: an object, bounded in size and time, in UTF-8, each name once."""

import asyncio
import json
from typing import Any

from starlette.requests import Request

from authserver.errors import BadRequest, ContentTooLarge, UnsupportedMediaType

MAX_BYTES = 64 * 1024
READ_SECONDS = 10
"""A body that has not come by then does not come."""


async def read(request: Request) -> dict[str, Any]:
    """Return the object; UnsupportedMediaType, ContentTooLarge or BadRequest if there is none."""
    _check_media_type(request)
    try:
        async with asyncio.timeout(READ_SECONDS):
            raw = await _read_bounded(request)
    except TimeoutError:
        raise BadRequest("The body did not arrive in time.", {"Connection": "close"}) from None
    return _parsed(raw)


def _check_media_type(request: Request) -> None:
    media_type, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"')
    encoding = request.headers.get("content-encoding", "identity").lower()
    if media_type.strip() != "application/json" or charset not in {"", "utf-8"} or encoding != "identity":
        raise UnsupportedMediaType("Send application/json, in UTF-8 and not compressed.")


async def _read_bounded(request: Request) -> bytes:
    announced = request.headers.get("content-length", "")
    too_large = ContentTooLarge(f"Send at most {MAX_BYTES} bytes.", {"Connection": "close"})
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > MAX_BYTES:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise too_large
    return bytes(body)


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, a name twice, NaN, a number without end, too deep
        raise BadRequest("The body is not JSON (RFC 8259) in UTF-8 with each name once.") from None
    if not isinstance(body, dict):
        raise BadRequest("The body is not a JSON object.")
    return body


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) != len(pairs):
        raise ValueError("a name is repeated")
    return named


def _no_number(_text: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")
