"""`authserver clients`: applications and resource servers."""

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from authserver.cli import ending, output, terminal
from authserver.cli.command import command
from authserver.cli.output import Answer
from authserver.errors import BadRequest, Conflict, NotFound

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from authserver.clients.models import Client
    from authserver.services import Services

app = typer.Typer(help="Applications and resource servers.", no_args_is_help=True)

ClientId = Annotated[str, typer.Argument(metavar="CLIENT_ID", show_default=False)]
KeyFile = Annotated[
    Path, typer.Option("--jwks", exists=True, dir_okay=False, help="A file with its public keys (JWK set).")
]
_COLUMNS = ("client_id", "name", "grants", "scopes", "public", "introspect", "active")
_ONCE = "The secret is shown this once."
_DAY_SECONDS = 86_400


@app.command()
@command
async def create(
    services: "Services",
    *,
    name: Annotated[str, typer.Option(help="For people.")],
    grant: Annotated[list[str] | None, typer.Option(help="password or refresh_token; may be repeated.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Default: openid, profile and email.")] = None,
    redirect_uri: Annotated[list[str] | None, typer.Option(help="Where browsers may be sent back to.")] = None,
    audience: Annotated[list[str] | None, typer.Option(help="A resource server that its tokens are for.")] = None,
    public: Annotated[
        bool, typer.Option("--public", help="It cannot keep a secret: an app on people's devices.")
    ] = False,
    auth_method: Annotated[
        str | None,
        typer.Option(
            help="The one way in which it proves itself: client_secret_basic, client_secret_post, client_secret_jwt, "
            "private_key_jwt or none. Not given: by its secret, in Basic or in the body."
        ),
    ] = None,
    jwks: KeyFile | None = None,
    introspect: Annotated[bool, typer.Option("--introspect", help="It may ask about every access token.")] = False,
    client_id: Annotated[str | None, typer.Option(help="Made by the server unless given.")] = None,
) -> Answer:
    """Add a client and print its secret, once."""
    from sqlalchemy.exc import IntegrityError

    from authserver.clients import registration

    new = registration.NewClient(
        name=name,
        grants=_words(grant),
        scopes=_words(scope) or registration.DEFAULT_SCOPES,
        redirect_uris=redirect_uri or (),
        audience=audience or (),
        is_public=public or auth_method == "none",
        auth_method="private_key_jwt" if jwks and auth_method is None else auth_method,
        jwks=_keys(jwks) if jwks else None,
        may_introspect=introspect,
        client_id=client_id,
    )
    try:
        async with services.db.write() as tx:
            client, secret = registration.create(tx, services.clients, new)
    except IntegrityError as taken:
        raise Conflict(f"There is a client {client_id} already.") from taken
    if not client.grants and not introspect:
        output.note("It has no grant: it can receive tokens of others, but gets none itself.")
    return _with_secret(client, secret, f"Client {client.id} has been created.")


@app.command("list")
@command
async def list_all(services: "Services") -> Answer:
    """List all clients."""
    from authserver.clients import registration

    async with services.db.read() as tx:
        return Answer([_described(client) for client in await registration.list_all(tx)], columns=_COLUMNS)


@app.command()
@command
async def show(services: "Services", client_id: ClientId) -> Answer:
    """Show a client."""
    from authserver.sessions.models import UserSession

    async with services.db.read() as tx:
        client = await find(tx, client_id)
        alive = await services.sessions.count_alive(tx, UserSession.client_id == client_id)
    return Answer({**_described(client), "sessions": alive})


@app.command()
@command
async def rotate_secret(
    services: "Services",
    client_id: ClientId,
    keep_old: Annotated[
        int, typer.Option(min=0, max=90 * _DAY_SECONDS, help="Seconds for which the secret before stays good.")
    ] = 0,
) -> Answer:
    """Give a client a new secret and print it, once. The old one is worth nothing from now on, or after --keep-old."""
    from authserver.clients import registration

    async with services.db.write() as tx:
        client = await locked(tx, client_id)
        secret = await registration.rotate_secret(tx, services.clients, client, keep_old=timedelta(seconds=keep_old))
    told = f"Client {client_id} has a new secret."
    if client.old_secret_until:
        told += f" The one before is good until {output.text(client.old_secret_until)}."
    return _with_secret(client, secret, told)


@app.command()
@command
async def set_keys(services: "Services", client_id: ClientId, jwks: KeyFile) -> Answer:
    """Replace the public keys of a client that signs with its own. To change one without an outage, give both first."""
    from authserver.clients import registration

    keys = _keys(jwks)
    async with services.db.write() as tx:
        client = await locked(tx, client_id)
        registration.set_keys(tx, client, keys)
    return Answer(_described(client), f"Client {client_id} has new keys.")


@app.command()
@command
async def disable(services: "Services", client_id: ClientId) -> Answer:
    """Disable a client and end its sessions."""
    from authserver.clients import registration
    from authserver.sessions.models import UserSession

    async with services.db.read() as tx:
        await find(tx, client_id)
    which = UserSession.client_id == client_id
    ended = await ending.end(services, which, because="client disabled")
    async with services.denylist.revoking() as tx:
        client = await locked(tx, client_id)
        registration.set_active(tx, client, is_active=False)
        await services.sessions.end_own(tx, client)
        ended += await ending.end_rest(services, tx, which, because="client disabled")
    return Answer(
        {**_described(client), "sessions_ended": ended}, f"Client {client_id} is disabled; {ended} sessions ended."
    )


@app.command()
@command
async def enable(services: "Services", client_id: ClientId) -> Answer:
    """Enable a client again."""
    from authserver.clients import registration

    async with services.db.write() as tx:
        client = await locked(tx, client_id)
        registration.set_active(tx, client, is_active=True)
    return Answer(_described(client), f"Client {client_id} is enabled.")


@app.command()
@command
async def delete(services: "Services", client_id: ClientId, yes: terminal.Yes = False) -> Answer:
    """Delete a client and end its sessions."""
    from authserver.clients import registration
    from authserver.sessions.models import UserSession

    async with services.db.read() as tx:
        name = (await find(tx, client_id)).name
    terminal.confirm(f"Delete client {client_id} ({output.printable(name)}) for good?", yes)
    which = UserSession.client_id == client_id
    ended = await ending.end(services, which, because="client deleted")
    async with services.denylist.revoking() as tx:
        client = await locked(tx, client_id)
        ended += await ending.end_rest(services, tx, which, because="client deleted")
        await services.sessions.end_own(tx, client)
        await registration.delete(tx, client)
    return Answer(
        {"client_id": client_id, "deleted": True, "sessions_ended": ended},
        f"Client {client_id} is deleted; {ended} sessions ended.",
    )


async def find(tx: "AsyncSession", client_id: str) -> "Client":
    """Return the client of a client_id; NotFound."""
    from authserver.clients import registration

    return _known(await registration.find(tx, client_id), client_id)


async def locked(tx: "AsyncSession", client_id: str) -> "Client":
    """Return the client of a client_id, locked until the transaction ends; NotFound."""
    from authserver.clients import registration

    return _known(await registration.locked(tx, client_id), client_id)


def _known(client: "Client | None", client_id: str) -> "Client":
    if client is None:
        raise NotFound(f"There is no client {client_id}.")
    return client


def _words(values: list[str] | None) -> list[str]:
    """Take `--scope "openid email"` as `--scope openid --scope email`: that is how OAuth writes lists."""
    return [word for value in values or () for word in value.split()]


def _keys(file: Path) -> object:
    """Read a key set; a key alone is a set of one."""
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as invalid:
        raise BadRequest(f"{file.name} is not JSON.") from invalid
    return {"keys": [document]} if isinstance(document, dict) and "kty" in document else document


def _with_secret(client: "Client", secret: str | None, sentence: str) -> Answer:
    document = {"client_id": client.id, "client_secret": secret, **_described(client)}
    lines = [sentence, f"client_id      {client.id}"]
    if secret is not None:
        lines += [f"client_secret  {secret}", _ONCE]
    return Answer(document, "\n".join(lines))


def _described(client: "Client") -> dict[str, Any]:
    return {
        "client_id": client.id,
        "name": client.name,
        "grants": client.grants,
        "scopes": client.scopes,
        "redirect_uris": client.redirect_uris,
        "audience": client.audience,
        "public": client.is_public,
        "auth_methods": client.auth_methods,
        "live_secrets": int(client.secret_hash is not None) + int(client.old_secret_is_good),
        "old_secret_until": client.old_secret_until if client.old_secret_is_good else None,
        "keys": [key.get("kid", key["kty"]) for key in client.jwks["keys"]] if client.jwks else [],
        "introspect": client.may_introspect,
        "active": client.is_active,
        "created_at": client.created_at,
        "updated_at": client.updated_at,
    }
