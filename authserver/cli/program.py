"""`authserver`: all commands. Each imports what it works with only when it runs, so `--help` is quick."""

import sys
from typing import Annotated

import typer

import authserver
from authserver.cli import clients, database, doctor, keys, prune, serve, sessions, tokens, users

app = typer.Typer(
    help="An OAuth 2.0 and OpenID Connect token server. Settings come from AUTHSERVER_… and .env.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks show the values of variables
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve.serve)
app.add_typer(database.app, name="db")
app.add_typer(users.app, name="users")
app.add_typer(clients.app, name="clients")
app.add_typer(sessions.app, name="sessions")
app.add_typer(keys.app, name="keys")
app.add_typer(tokens.app, name="token")
app.command("prune")(prune.prune)
app.command("doctor")(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"authserver {authserver.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command that the arguments name: exit 0 done, 1 refused (stderr says why), 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character must not end a command half-way.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app()
