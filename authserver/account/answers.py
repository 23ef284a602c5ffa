"""What the account endpoints tell about users and their sessions."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from authserver.users.models import User

NO_STORE = {"Cache-Control": "no-store"}
BEARER: list[dict[str, list[str]]] = [{"sign_in": []}, {"bearer": []}]
"""The ways in, for /openapi.json."""
_USER_EXAMPLE: dict[str, Any] = {
    "id": "0b0c4a52-4ed9-4f57-9c3f-0d7a3ff9a001",
    "username": "ada",
    "email": "ada@example.com",
    "is_active": True,
    "is_superuser": False,
    "created_at": "2025-01-31T12:00:00Z",
    "updated_at": "2025-01-31T12:00:00Z",
}


class UserAnswer(BaseModel):
    """A user, as they see themselves."""

    model_config = ConfigDict(from_attributes=True, title="User", json_schema_extra={"example": _USER_EXAMPLE})

    id: UUID
    username: str
    email: str
    is_active: bool
    is_superuser: bool
    created_at: datetime
    updated_at: datetime


class SessionAnswer(BaseModel):
    """One sign-in."""

    model_config = ConfigDict(title="Session")

    id: UUID
    client_id: str
    client_name: str
    scope: str
    grant: str
    ip: str | None
    user_agent: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    current: bool
    """The one that the access token of this request comes from."""


class SessionsAnswer(BaseModel):
    """The living sign-ins, newest first."""

    model_config = ConfigDict(title="Sessions")

    sessions: list[SessionAnswer]


def user_response(user: User, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a user as JSON that nobody may keep."""
    return json_response(UserAnswer.model_validate(user), status, headers)


def json_response(answer: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return JSON that nobody may keep."""
    return Response(answer.model_dump_json(), status, {**NO_STORE, **(headers or {})}, media_type="application/json")


def done() -> Response:
    """Return 204."""
    return Response(status_code=204, headers=NO_STORE)


def documented(status: int, description: str, model: type[BaseModel] | None = None) -> dict[int | str, dict[str, Any]]:
    """Return what /openapi.json says about the answer when all goes well."""
    return {status: {"description": description} | ({"model": model} if model else {})}
