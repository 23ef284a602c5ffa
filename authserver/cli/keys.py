"""`authserver keys`: the keys that sign tokens."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from authserver.cli import output
from authserver.cli.command import command
from authserver.cli.output import Answer

if TYPE_CHECKING:
    from authserver.keys.keyring import Keyring
    from authserver.keys.pairs import Key
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
    alg: Annotated[
        Literal["ES256", "RS256", "EdDSA"] | None, typer.Option(help="Only the keys of this algorithm. Default: all.")
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="A key leaked: the old keys and every token of theirs die at once.")
    ] = False,
) -> Answer:
    """Make new keys. They sign when everybody has heard of them; the old ones verify until their last token is over."""
    keyring = services.keyring
    await keyring.load()
    if not keyring.is_loaded and not now:
        output.note(
            "No key can be read with this SECRET_KEY, so nothing is signed until then; --now would sign at once."
        )
    kids = [await keyring.rotate(algorithm, at_once=now) for algorithm in ([alg] if alg else keyring.algorithms())]
    made = [_described(keyring, key) for key in _in_order(keyring.published()) if key.kid in kids]
    return Answer(made, columns=_COLUMNS)


async def load(services: "Services") -> "list[Key]":
    """Read the keys; makes none, unlike a server that starts."""
    from sqlalchemy import select

    from authserver.keys.models import SigningKey

    async with services.db.read() as tx:
        if await tx.scalar(select(SigningKey.kid).limit(1)) is None:
            return []
    await services.keyring.load()
    return _in_order(services.keyring.published())


def _in_order(keys: "list[Key]") -> "list[Key]":
    return sorted(keys, key=lambda key: (key.algorithm, key.signs_from))


def _described(keyring: "Keyring", key: "Key") -> dict[str, Any]:
    return {
        "kid": key.kid,
        "alg": key.algorithm,
        "state": keyring.state(key) if key.private else "unreadable",
        "created_at": key.created_at,
        "signs_from": key.signs_from,
        "verifies_until": key.verifies_until,
    }
