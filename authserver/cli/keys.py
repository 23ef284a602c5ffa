"""`authserver keys`: the keys that sign tokens."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from authserver.cli import output
from authserver.cli.command import command
from authserver.cli.output import Answer

if TYPE_CHECKING:
    from authserver.keys.keyring import Key, Keyring
    from authserver.services import Services

app = typer.Typer(help="The keys that sign tokens.", no_args_is_help=True)

_COLUMNS = ("kid", "alg", "state", "created_at", "signs_from", "verifies_until")


@app.command("list")
@command
async def list_all(services: "Services") -> Answer:
    """List the keys: announced, signing or verifying; unreadable if SECRET_KEY has changed."""
    found = await load(services)
    return Answer([_described(services.keyring, key) for key in found], columns=_COLUMNS)


@app.command()
@command
async def rotate(
    services: "Services",
    now: Annotated[
        bool, typer.Option("--now", help="A key leaked: the old keys and every access token die at once.")
    ] = False,
) -> Answer:
    """Make a new key. It signs when everybody has heard of it; the old one verifies until its last token is over."""
    from authserver import audit

    keyring = services.keyring
    await keyring.load()
    if not keyring.is_loaded and not now:
        output.note(
            "No key can be read with this SECRET_KEY, so nothing is signed until then; --now would sign at once."
        )
    kid = await keyring.rotate(at_once=now)
    async with services.db.write() as tx:
        audit.record(tx, "signing_key_rotated", kid=kid, at_once=now)
    made = next(_described(keyring, key) for key in keyring.published() if key.kid == kid)
    return Answer(made, f"Key {kid} has been made; it signs from {output.text(made['signs_from'])}.")


async def load(services: "Services") -> "list[Key]":
    """Read the keys; makes none, unlike a server that starts."""
    from sqlalchemy import select

    from authserver.keys.models import SigningKey

    async with services.db.read() as tx:
        if await tx.scalar(select(SigningKey.kid).limit(1)) is None:
            return []
    await services.keyring.load()
    return sorted(services.keyring.published(), key=lambda key: key.signs_from)


def _described(keyring: "Keyring", key: "Key") -> dict[str, Any]:
    return {
        "kid": key.kid,
        "alg": key.public_jwk["alg"],
        "state": keyring.state(key) if key.private else "unreadable",
        "created_at": key.created_at,
        "signs_from": key.signs_from,
        "verifies_until": key.verifies_until,
    }
