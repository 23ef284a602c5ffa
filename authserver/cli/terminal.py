"""What a command asks the person at the terminal, or reads from a pipe where there is none."""

import sys
from typing import Annotated

import typer

from authserver.errors import BadRequest

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]
_MAX_BYTES = 16_384


def new_password(from_stdin: bool) -> str:
    """Read a new password: one line of stdin, or typed twice at a terminal, hidden."""
    if from_stdin:
        return _read_line()
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "needed where there is no terminal to type the password at", param_hint="--password-stdin"
        )
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def token() -> str:
    """Read a token: from stdin, or typed or pasted at a terminal, hidden."""
    if not sys.stdin.isatty():
        return _read_line().strip()
    return str(typer.prompt("Token", hide_input=True, err=True)).strip()


def confirm(question: str, yes: bool) -> None:
    """Ask before something is lost for good; a script is not asked. typer.Abort (exit status 1) if the answer is no."""
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True, err=True)


def _read_line() -> str:
    """Return stdin without the line end that a shell adds; spaces are part of a password."""
    data = sys.stdin.buffer.read(_MAX_BYTES + 1)
    try:
        text = data.decode()
    except UnicodeDecodeError as invalid:
        raise BadRequest("What stdin holds is not UTF-8.") from invalid
    if len(data) > _MAX_BYTES:
        raise BadRequest(f"What stdin holds is longer than {_MAX_BYTES} bytes.")
    return text.removesuffix("\n").removesuffix("\r")
