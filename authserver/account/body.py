"""Reading a JSON body: bounded in size and time, UTF-8, each name once; what is wrong is said without repeating it."""

import asyncio
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from authserver.errors import BadRequest, ContentTooLarge, Fault, InvalidInput, UnsupportedMediaType
from authserver.text import is_clean

MAX_BYTES = 64 * 1024
READ_SECONDS = 10
"""A body that has not come by then does not come."""
_MAX_FAULTS = 10
_MAX_NAME = 64

_SENTENCES = {
    "missing": "This is needed.",
    "extra_forbidden": "There is no such field; leave it out.",
    "string_type": "Give a text.",
    "string_sub_type": "Give a text.",
    "string_unicode": "Give a text of Unicode characters.",
}


class Body(BaseModel):
    """What a body may hold: fields of exactly these types, no others."""

    model_config = ConfigDict(strict=True, extra="forbid")


Model = TypeVar("Model", bound=Body)


async def read(request: Request, model: type[Model]) -> Model:
    """Return the body; UnsupportedMediaType, ContentTooLarge, BadRequest or InvalidInput if that cannot be."""
    _check_media_type(request)
    try:
        async with asyncio.timeout(READ_SECONDS):
            raw = await _read_bounded(request)
    except TimeoutError:
        raise BadRequest("The body did not arrive in time.", {"Connection": "close"}) from None
    try:
        return model.model_validate(_parsed(raw))
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidInput([_fault(error) for error in errors[:_MAX_FAULTS]]) from None


def schema(model: type[Body], **examples: dict[str, Any]) -> dict[str, Any]:
    """Return the `requestBody` of /openapi.json, with an example under each name."""
    named = {name: {"value": value} for name, value in examples.items()}
    content = {"application/json": {"schema": model.model_json_schema(), "examples": named}}
    return {"requestBody": {"required": True, "content": content}}


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


def _fault(error: Any) -> Fault:
    where = [str(part) for part in error["loc"]]
    sentence = _SENTENCES.get(error["type"], "This is not of the right type.")
    if not all(len(part) <= _MAX_NAME and is_clean(part) for part in where):
        return Fault("", sentence)  # a made-up name is not worth repeating
    return Fault("".join("/" + part.replace("~", "~0").replace("/", "~1") for part in where), sentence)
