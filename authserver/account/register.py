"""POST /register: anyone makes an account."""

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from authserver import own_account, problems, services
from authserver.account import body
from authserver.account.answers import UserAnswer, documented, user_response

router = APIRouter()


class RegisterBody(body.Body):
    """What a new user says about themselves."""

    username: str = Field(description="3 to 50 letters and digits of any script, with . _ or - between them.")
    email: str = Field(description="An e-mail address.", json_schema_extra={"format": "email"})
    password: str = Field(
        description="15 characters or more (PASSWORD_MIN_LENGTH), any Unicode; refused when it is easily guessed.",
        json_schema_extra={"format": "password"},
    )


@router.post(
    "/register",
    status_code=201,
    summary="Register a user",
    responses={
        **documented(201, "The new user; Location is where they see themselves", UserAnswer),
        **problems.described(400, 403, 409, 413, 415, 422, 429, 503),
    },
    openapi_extra=body.schema(
        RegisterBody,
        user={"username": "ada", "email": "ada@example.com", "password": "correct horse battery staple"},
    ),
)
async def register(request: Request) -> Response:
    """Add a user who can sign in at once. Names are taken in all their spellings: `Ada` and `ADA` are one."""
    parts = services.of(request)
    asked = await body.read(request, RegisterBody)
    ip = request.client.host if request.client else None
    user = await own_account.register(parts, **asked.model_dump(), ip=ip)
    return user_response(user, 201, {"Location": f"{parts.settings.issuer}/users/me"})
