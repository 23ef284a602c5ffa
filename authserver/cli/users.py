"""`authserver users`: accounts. USER is a username, an e-mail address or an id."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from authserver.cli import ending, terminal
from authserver.cli.command import command
from authserver.cli.output import Answer
from authserver.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from authserver.services import Services
    from authserver.users.models import User

app = typer.Typer(help="Accounts. USER is a username, an e-mail address or an id.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="USER", show_default=False)]
_COLUMNS = ("id", "username", "email", "is_active", "is_superuser", "created_at")
_PAGE = 500


@app.command()
@command
async def create(
    services: "Services",
    username: Annotated[str, typer.Option()],
    email: Annotated[str, typer.Option()],
    superuser: Annotated[bool, typer.Option("--superuser", help="May administer the server.")] = False,
    password_stdin: terminal.PasswordStdin = False,
) -> Answer:
    """Add a user. The password is typed at the terminal or read from stdin."""
    from authserver.users import registration

    password = terminal.new_password(password_stdin)
    new = registration.validated(services.settings, username=username, email=email, password=password)
    user = await registration.register(services.db, services.hasher, new, is_superuser=superuser)
    return Answer(_described(user), f"User {user.username} has been created; their id is {user.id}.")


@app.command("list")
@command
async def list_all(
    services: "Services", limit: Annotated[int | None, typer.Option(min=1, help="The first so many only.")] = None
) -> Answer:
    """List users by name."""
    from authserver.users import accounts

    found: list[dict[str, Any]] = []
    after = ""
    while limit is None or len(found) < limit:
        size = _PAGE if limit is None else min(_PAGE, limit - len(found))
        async with services.db.read() as tx:
            page = await accounts.page(tx, after=after, limit=size)
        if not page:
            break
        found += map(_described, page)
        after = page[-1].username_key
    return Answer(found, columns=_COLUMNS)


@app.command()
@command
async def show(services: "Services", user: Name) -> Answer:
    """Show a user."""
    from authserver.sessions.models import UserSession

    async with services.db.read() as tx:
        found = await find(tx, user)
        alive = await services.sessions.count_alive(tx, UserSession.user_id == found.id)
    return Answer({**_described(found), "sessions": alive})


@app.command()
@command
async def disable(services: "Services", user: Name) -> Answer:
    """Disable a user and end their sessions."""
    from authserver.sessions.models import UserSession
    from authserver.users import accounts

    async with services.db.read() as tx:
        which = UserSession.user_id == (await find(tx, user)).id
    ended = await ending.end(services, which, because="account disabled")
    async with services.denylist.revoking() as tx:
        found = await _locked(tx, user)
        accounts.set_active(tx, found, is_active=False)
        ended += await ending.end_rest(services, tx, which, because="account disabled")
    return _changed(found, "is disabled", ended)


@app.command()
@command
async def enable(services: "Services", user: Name) -> Answer:
    """Enable a user again."""
    from authserver.users import accounts

    async with services.db.write() as tx:
        found = await _locked(tx, user)
        accounts.set_active(tx, found, is_active=True)
    return Answer(_described(found), f"User {found.username} is enabled.")


@app.command()
@command
async def set_password(services: "Services", user: Name, password_stdin: terminal.PasswordStdin = False) -> Answer:
    """Give a user a new password and end their sessions."""
    from authserver.sessions.models import UserSession
    from authserver.users import accounts

    async with services.db.read() as tx:
        found = await find(tx, user)
    password = terminal.new_password(password_stdin)
    accounts.check_new_password(services.settings, found, password)
    hashed = await services.hasher.hash(password)
    which = UserSession.user_id == found.id
    ended = await ending.end(services, which, because="password changed")
    async with services.denylist.revoking() as tx:
        found = await _locked(tx, str(found.id))
        await accounts.set_password(tx, found, hashed)
        ended += await ending.end_rest(services, tx, which, because="password changed")
    return _changed(found, "has a new password", ended)


@app.command()
@command
async def delete(services: "Services", user: Name, yes: terminal.Yes = False) -> Answer:
    """Delete a user and end their sessions."""
    from authserver.sessions.models import UserSession
    from authserver.users import accounts

    async with services.db.read() as tx:
        found = await find(tx, user)
    terminal.confirm(f"Delete user {found.username} ({found.email}) for good?", yes)
    which = UserSession.user_id == found.id
    ended = await ending.end(services, which, because="account deleted")
    async with services.denylist.revoking() as tx:
        found = await _locked(tx, str(found.id))
        ended += await ending.end_rest(services, tx, which, because="account deleted")
        await accounts.delete(tx, found)
    return Answer(
        {"id": found.id, "username": found.username, "deleted": True, "sessions_ended": ended},
        f"User {found.username} is deleted; {ended} sessions ended.",
    )


async def find(tx: "AsyncSession", name: str) -> "User":
    """Return the user with a username, e-mail address or id; NotFound."""
    from authserver.text import is_clean
    from authserver.users import accounts

    user = await accounts.find(tx, name) if is_clean(name) else None
    if user is None:
        raise NotFound(f"There is no user {name}.")
    return user


async def _locked(tx: "AsyncSession", name: str) -> "User":
    """Return the user, whom no sign-in can pass until the transaction ends; NotFound."""
    from authserver.users import accounts

    user = await accounts.locked(tx, (await find(tx, name)).id)
    if user is None:
        raise NotFound(f"There is no user {name}.")
    return user


def _changed(user: "User", what: str, ended: int) -> Answer:
    document = {**_described(user), "sessions_ended": ended}
    return Answer(document, f"User {user.username} {what}; {ended} sessions ended.")


def _described(user: "User") -> dict[str, Any]:
    return {name: getattr(user, name) for name in (*_COLUMNS, "updated_at")}
