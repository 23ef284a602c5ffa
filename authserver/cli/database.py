"""`authserver db`: the schema of the database, by Alembic."""

from typing import TYPE_CHECKING, Annotated

import typer

from authserver.cli import terminal
from authserver.cli.command import load_settings, plain_command
from authserver.cli.output import Answer

if TYPE_CHECKING:
    from authserver.settings import Settings

app = typer.Typer(help="The schema of the database.", no_args_is_help=True)


@app.command()
@plain_command
def upgrade(revision: Annotated[str, typer.Argument(metavar="[REV]", help="A revision, or +1.")] = "head") -> Answer:
    """Bring the database forward, to the newest revision unless another is given. Several may try at a time."""
    from authserver import migrations

    settings = load_settings()
    before = migrations.current(settings)
    migrations.upgrade(settings, revision)
    return _moved(settings, before)


@app.command(context_settings={"ignore_unknown_options": True})  # -1 is a revision
@plain_command
def downgrade(
    revision: Annotated[str, typer.Argument(metavar="REV", help="A revision, -1 or base.", show_default=False)],
    yes: terminal.Yes = False,
) -> Answer:
    """Take the database back. What the newer revisions added is lost."""
    from authserver import migrations

    settings = load_settings()
    before = migrations.current(settings)
    terminal.confirm(f"Take the database back from {before} to {revision}, and lose what was added since?", yes)
    migrations.downgrade(settings, revision)
    return _moved(settings, before)


@app.command()
@plain_command
def current() -> Answer:
    """Show the revision that the database is at, and the one that this version needs."""
    from authserver import migrations

    revision, head = migrations.current(load_settings()), migrations.head()
    sentence = f"The database is at {revision or 'no revision'}; this version needs {head}."
    return Answer({"revision": revision, "head": head, "up_to_date": revision == head}, sentence)


@app.command()
@plain_command
def check() -> Answer:
    """Compare the database with what this version expects; exit status 1 if they differ."""
    from authserver import migrations

    settings = load_settings()
    revision, head = migrations.current(settings), migrations.head()
    if revision != head:
        document: dict[str, object] = {"ok": False, "revision": revision, "head": head, "differences": []}
        where = f"at {revision}" if revision else "not migrated"
        refused = f"The database is {where}, this version needs {head}: run `authserver db upgrade`."
        return Answer(document, "Migrations are pending.", refused=refused)
    differences = migrations.check(settings)
    document = {"ok": not differences, "revision": revision, "head": head, "differences": differences}
    if differences:
        refused = f"The database differs from what this version expects in {len(differences)} places."
        return Answer(document, "\n".join(differences), refused=refused)
    return Answer(document, f"The database is at {revision} and is what this version expects.")


def _moved(settings: "Settings", before: str | None) -> Answer:
    from authserver import migrations

    after = migrations.current(settings)
    was = "as before" if after == before else f"was {before or 'no revision'}"
    return Answer({"before": before, "revision": after}, f"The database is at {after or 'no revision'} ({was}).")
