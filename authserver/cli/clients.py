"""`authserver clients`: applications and resource servers."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from authserver.cli import client_options as options
from authserver.cli import ending, output, terminal
from authserver.cli.command import command
from authserver.cli.output import Answer
from authserver.cli.password_report import password_report
from authserver.errors import BadRequest, Conflict, NotFound

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from authserver.clients.models import Client
    from authserver.services import Services

app = typer.Typer(help="Applications and resource servers.", no_args_is_help=True)
app.command("password-report")(password_report)

ClientId = Annotated[str, typer.Argument(metavar="CLIENT_ID", show_default=False)]
_COLUMNS = ("client_id", "name", "grants", "scopes", "public", "introspect", "active")
_ONCE = "The secret is shown this once."
_DAY_SECONDS = 86_400


@app.command()
@command
@options.with_columns
async def create(
    services: "Services",
    *,
    name: Annotated[str, typer.Option(help="For people.")],
    client_id: Annotated[str | None, typer.Option(help="Made by the server unless given.")] = None,
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
    jwks: options.KeyFile | None = None,
    **columns: Any,
) -> Answer:
    """Add a client and print its secret, once."""
    from sqlalchemy.exc import IntegrityError

    from authserver.clients import registration

    if public and auth_method not in (None, "none"):
        raise BadRequest("A public client, and no other, proves itself by none.")
    columns = options.given(columns)
    columns["client_id"] = client_id
    columns["auth_method"] = "none" if public else "private_key_jwt" if jwks and not auth_method else auth_method
    columns["jwks"] = options.key_set(jwks) if jwks else None
    try:
        async with services.db.write() as tx:
            client, secret = registration.create(tx, services.clients, registration.NewClient(name, **columns))
    except IntegrityError as taken:
        raise Conflict(f"There is a client {client_id} already.") from taken
    if not client.grants and not client.may_introspect:
        output.note("It has no grant: it can receive tokens of others, but gets none itself.")
    await _introduce_keys(services, client)
    return _with_secret(client, secret, f"Client {client.id} has been created.")


@app.command()
@command
@options.with_columns
async def update(
    services: "Services",
    client_id: ClientId,
    *,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    without: options.Without = None,
    **columns: Any,
) -> Answer:
    """Change what is given and leave the rest. A list that is given replaces the one before."""
    from authserver.clients import registration

    changes = options.given({"name": name, **columns}) | options.taken_away(without)
    if not changes:
        raise BadRequest("Nothing to change was given.")
    async with services.db.write() as tx:
        client = await locked(tx, client_id)
        registration.change(tx, client, changes)
    await _introduce_keys(services, client)
    return Answer(_described(client), f"Client {client_id} has been changed.")


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
async def set_keys(services: "Services", client_id: ClientId, jwks: options.KeyFile) -> Answer:
    """Replace the public keys of a client that signs. To change one without an outage, give both first."""
    from authserver.clients import registration

    keys = options.key_set(jwks)
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


async def _introduce_keys(services: "Services", client: "Client") -> None:
    """See to it that there will be a key for what the client wants signed."""
    if "EdDSA" in (client.id_token_alg, client.userinfo_alg):
        await services.keyring.load()
        await services.keyring.introduce("EdDSA")
        (key,) = [key for key in services.keyring.published() if key.algorithm == "EdDSA"][-1:]
        if services.keyring.state(key) == "announced":
            output.note(
                f"The first EdDSA key signs from {output.text(key.signs_from)} on; until then others refuse it."
            )


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
        "post_logout_redirect_uris": client.post_logout_redirect_uris or [],
        "backchannel_logout_uri": client.backchannel_logout_uri,
        "require_pkce": client.require_pkce,
        "require_pushed_requests": client.require_pushed_requests,
        "require_signed_requests": client.require_signed_requests,
        "trusted": client.is_trusted,
        "default_max_age": client.default_max_age,
        "id_token_alg": client.id_token_alg,
        "userinfo_alg": client.userinfo_alg,
        "uri": client.uri,
        "policy_uri": client.policy_uri,
        "tos_uri": client.tos_uri,
        "introspect": client.may_introspect,
        "active": client.is_active,
        "created_at": client.created_at,
        "updated_at": client.updated_at,
    }
