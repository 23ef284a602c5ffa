"""`authserver serve`."""

import asyncio
import logging
from typing import TYPE_CHECKING, Annotated

import typer

from authserver.cli.command import read_settings, refusals
from authserver.errors import AuthserverError

if TYPE_CHECKING:
    from authserver.settings import Settings


class NotMigrated(AuthserverError):
    """The database lacks what this version needs."""


def serve(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: the setting WORKERS.")] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when the code changes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Its log on stdout is JSON anyway.")] = False,  # noqa: ARG001
) -> None:
    """Serve until SIGTERM or Ctrl-C, finish what is in flight, exit 0."""
    with refusals():
        settings = read_settings()
        _check_migrated(settings)
    from authserver import serving

    status = serving.run(settings, host, port, settings.workers if workers is None else workers, reload)
    raise typer.Exit(status)


def _check_migrated(settings: "Settings") -> None:
    """Refuse a database that must be upgraded first; one that cannot be reached may come back later."""
    from authserver import migrations
    from authserver.observability import logs

    logs.configure(settings)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if not asyncio.run(_is_reachable(settings)):
        return
    revision = migrations.current(settings)
    if migrations.is_behind(revision):
        where = f"at revision {revision}" if revision else "not migrated"
        raise NotMigrated(
            f"The database is {where}, this version needs {migrations.head()}: run `authserver db upgrade`."
        )


async def _is_reachable(settings: "Settings") -> bool:
    from authserver.db import FAILURES, Database

    db = Database(settings)
    try:
        await db.ping()
    except FAILURES:
        return False
    finally:
        await db.close()
    return True
