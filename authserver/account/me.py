"""/users/me: users see, change and delete their own account, and change their password."""

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from authserver import bearer, own_account, problems, services
from authserver.account import body
from authserver.account.answers import BEARER, UserAnswer, documented, done, user_response
from authserver.sessions.models import UserSession
from authserver.users import accounts

router = APIRouter()


class ChangeBody(body.Body):
    """What is to be another; what is left out stays."""

    username: str = Field("", description="A new username.")
    email: str = Field("", description="A new e-mail address.", json_schema_extra={"format": "email"})


class PasswordBody(body.Body):
    """The old password and the new one."""

    current_password: str = Field(json_schema_extra={"format": "password"})
    new_password: str = Field(
        description="15 characters or more (PASSWORD_MIN_LENGTH), any Unicode; refused when it is easily guessed.",
        json_schema_extra={"format": "password"},
    )


@router.get(
    "/users/me",
    summary="See your account",
    responses={**documented(200, "The user", UserAnswer), **problems.described(400, 401, 503)},
    openapi_extra={"security": BEARER},
)
async def see(request: Request) -> Response:
    """Return the user that the access token speaks for."""
    caller = await bearer.authenticate(request)
    return user_response(caller.user)


@router.patch(
    "/users/me",
    summary="Change your username or e-mail address",
    responses={
        **documented(200, "The user as they are now", UserAnswer),
        **problems.described(400, 401, 409, 413, 415, 422, 503),
    },
    openapi_extra={"security": BEARER, **body.schema(ChangeBody, email={"email": "lovelace@example.com"})},
)
async def change(request: Request) -> Response:
    """Change what is given. Access tokens keep saying the old username until they expire."""
    caller = await bearer.authenticate(request)
    asked = await body.read(request, ChangeBody)
    user = await accounts.rename(
        services.of(request).db, caller.user.id, ip=_ip(request), **asked.model_dump(exclude_unset=True)
    )
    if user is None:
        raise await bearer.of_nobody(request, caller.claims)
    return user_response(user)


@router.delete(
    "/users/me",
    status_code=204,
    summary="Delete your account",
    responses={
        **documented(204, "The account is gone, and no token of it is good any more"),
        **problems.described(400, 401, 503),
    },
    openapi_extra={"security": BEARER},
)
async def delete(request: Request) -> Response:
    """Delete the account and end all its sessions, this one too. There is no way back."""
    caller = await bearer.authenticate(request)
    parts = services.of(request)
    if not await own_account.delete(parts, caller.user.id, ip=_ip(request)):
        # Somebody was faster, and may not have told everybody yet.
        await parts.denylist.make_known(caller.claims.jti, caller.claims.session_id)
    return done()


@router.post(
    "/users/me/password",
    status_code=204,
    summary="Change your password",
    responses={
        **documented(204, "The new password is the password; all other sessions have ended"),
        **problems.described(400, 401, 413, 415, 422, 429, 503),
    },
    openapi_extra={
        "security": BEARER,
        **body.schema(
            PasswordBody,
            change={
                "current_password": "correct horse battery staple",
                "new_password": "seven quiet owls read the news",
            },
        ),
    },
)
async def change_password(request: Request) -> Response:
    """Prove the current password and set a new one. Every other session ends; this one goes on."""
    caller = await bearer.authenticate(request)
    asked = await body.read(request, PasswordBody)
    parts = services.of(request)
    await own_account.change_password(
        parts,
        caller.user,
        current=asked.current_password,
        new=asked.new_password,
        ip=_ip(request),
        ended=UserSession.id != caller.session_id,
    )
    return done()


def _ip(request: Request) -> str | None:
    return request.client.host if request.client else None
