"""/users/me/sessions: where users are signed in, and how they sign out there."""

from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from authserver import bearer, own_account, problems, services
from authserver.account.answers import BEARER, SessionAnswer, SessionsAnswer, documented, done, json_response
from authserver.errors import NotFound

router = APIRouter()

_SESSION_ID = {"name": "session_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}


@router.get(
    "/users/me/sessions",
    summary="List your sessions",
    responses={
        **documented(200, "The living sessions, newest first", SessionsAnswer),
        **problems.described(400, 401, 503),
    },
    openapi_extra={"security": BEARER},
)
async def see_all(request: Request) -> Response:
    """Return where you are signed in: one entry for each sign-in, however often it was refreshed."""
    caller = await bearer.authenticate(request)
    parts = services.of(request)
    answers = [
        SessionAnswer(
            id=session.id,
            client_id=session.client_id,
            client_name=client_name,
            scope=session.scope,
            grant=session.grant,
            ip=session.ip,
            user_agent=session.user_agent,
            created_at=session.created_at,
            last_used_at=session.last_used_at,
            expires_at=session.expires_at,
            current=session.id == caller.session_id,
        )
        for session, client_name in await own_account.sign_ins(parts, caller.user.id)
    ]
    return json_response(SessionsAnswer(sessions=answers))


@router.delete(
    "/users/me/sessions",
    status_code=204,
    summary="Sign out everywhere",
    responses={**documented(204, "No token of yours is good any more"), **problems.described(400, 401, 503)},
    openapi_extra={"security": BEARER},
)
async def end_all(request: Request) -> Response:
    """End all your sessions, this one too."""
    caller = await bearer.authenticate(request)
    parts = services.of(request)
    if not await own_account.sign_out_everywhere(parts, caller.user.id):
        raise await bearer.of_nobody(request, caller.claims)
    return done()


@router.delete(
    "/users/me/sessions/{session_id}",
    status_code=204,
    summary="Sign out of one session",
    responses={
        **documented(204, "No token of that session is good any more"),
        **problems.described(400, 401, 404, 503),
    },
    openapi_extra={"security": BEARER, "parameters": [_SESSION_ID]},
)
async def end_one(request: Request) -> Response:
    """End one of your living sessions; 404 for any other."""
    caller = await bearer.authenticate(request)
    parts = services.of(request)
    unknown = NotFound("You have no such session.")
    try:
        session_id = UUID(request.path_params["session_id"])
    except ValueError:
        raise unknown from None
    if not await own_account.end_sign_in(parts, caller.user.id, session_id):
        raise unknown
    return done()
