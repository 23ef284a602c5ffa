"""What a JSON body holds: fields of exactly these types; what is wrong is said without repeating it."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from authserver import json_body
from authserver.errors import Fault, InvalidInput
from authserver.text import is_clean

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
    document = await json_body.read(request)
    try:
        return model.model_validate(document)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidInput([_fault(error) for error in errors[:_MAX_FAULTS]]) from None


def schema(model: type[Body], **examples: dict[str, Any]) -> dict[str, Any]:
    """Return the `requestBody` of /openapi.json, with an example under each name."""
    named = {name: {"value": value} for name, value in examples.items()}
    content = {"application/json": {"schema": model.model_json_schema(), "examples": named}}
    return {"requestBody": {"required": True, "content": content}}


def _fault(error: Any) -> Fault:
    where = [str(part) for part in error["loc"]]
    sentence = _SENTENCES.get(error["type"], "This is not of the right type.")
    if not all(len(part) <= _MAX_NAME and is_clean(part) for part in where):
        return Fault("", sentence)  # a made-up name is not worth repeating
    return Fault("".join("/" + part.replace("~", "~0").replace("/", "~1") for part in where), sentence)
