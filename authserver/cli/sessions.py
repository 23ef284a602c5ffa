"""`authserver sessions`: who is signed in, and signing them out."""

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from authserver.cli import clients, ending, users
from authserver.cli.command import command
from authserver.cli.output import Answer

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncSession

    from authserver.services import Services
    from authserver.sessions.models import UserSession

app = typer.Typer(help="Sign-ins: each is one session, however often it is refreshed.", no_args_is_help=True)

OfUser = Annotated[str | None, typer.Option("--user", help="Username, e-mail address or id.")]
OfClient = Annotated[str | None, typer.Option("--client", help="A client_id.")]
TheOne = Annotated[UUID | None, typer.Option("--session", help="The session's id: the `sid` of its tokens.")]
_COLUMNS = ("id", "username", "client_id", "scope", "ip", "created_at", "last_used_at", "expires_at")
_PAGE = 500


@app.command("list")
@command
async def list_alive(
    services: "Services",
    user: OfUser = None,
    client: OfClient = None,
    session: TheOne = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The newest so many only.")] = None,
) -> Answer:
    """List the living sessions, newest first."""
    from sqlalchemy import select

    from authserver.users.models import User

    async with services.db.read() as tx:
        which = await _which(tx, user, client, session)
        found = await services.sessions.alive(tx, *which, limit=limit)
        users_of = [*{each.user_id for each in found}]
        names: dict[UUID, str] = {}
        for start in range(0, len(users_of), _PAGE):
            some = User.id.in_(users_of[start : start + _PAGE])
            rows = await tx.execute(select(User.id, User.username).where(some))
            names |= {row.id: row.username for row in rows}
    return Answer([_described(each, names.get(each.user_id)) for each in found], columns=_COLUMNS)


@app.command()
@command
async def revoke(services: "Services", user: OfUser = None, client: OfClient = None, session: TheOne = None) -> Answer:
    """End sessions with all their tokens: those that meet every one of the given conditions."""
    from authserver import audit

    if user is None and client is None and session is None:
        raise typer.BadParameter("at least one is needed", param_hint="--user, --client, --session")
    async with services.db.read() as tx:
        which = await _which(tx, user, client, session)
        of_user = (await users.find(tx, user)).id if user is not None else None
    revoked = await ending.end(services, *which, because="revoked by operator")
    async with services.denylist.revoking() as tx:
        if client is not None and user is None and session is None:
            await services.sessions.end_own(tx, await clients.locked(tx, client))
        audit.record(tx, "sessions_revoked", user_id=of_user, client_id=client, session_id=session, sessions=revoked)
    return Answer({"revoked": revoked}, f"{revoked} sessions ended.")


async def _which(
    tx: "AsyncSession", user: str | None, client: str | None, session: UUID | None
) -> "list[ColumnElement[bool]]":
    from authserver.sessions.models import UserSession

    which: list[ColumnElement[bool]] = []
    if user is not None:
        which.append(UserSession.user_id == (await users.find(tx, user)).id)
    if client is not None:
        which.append(UserSession.client_id == (await clients.find(tx, client)).id)
    if session is not None:
        which.append(UserSession.id == session)
    return which


def _described(session: "UserSession", username: str | None) -> dict[str, Any]:
    return {
        "id": session.id,
        "user_id": session.user_id,
        "username": username,
        "client_id": session.client_id,
        "scope": session.scope,
        "grant": session.grant,
        "ip": session.ip,
        "user_agent": session.user_agent,
        "created_at": session.created_at,
        "last_used_at": session.last_used_at,
        "expires_at": session.expires_at,
    }
