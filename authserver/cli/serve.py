"""`authserver serve`."""

import asyncio
import gc
import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from authserver.cli import output
from authserver.cli.command import read_settings, refusals

if TYPE_CHECKING:
    from authserver.settings import Settings
log = logging.getLogger(__name__)


def serve(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: the setting WORKERS.")] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when the code changes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Its log on stdout is JSON anyway.")] = False,  # noqa: ARG001
) -> None:
    """Serve until SIGTERM or Ctrl-C, finish what is in flight, exit 0."""
    gc.disable()  # until all is there (serving.server): what is imported stays
    from authserver import serving
    from authserver.observability import metric_files

    with refusals():
        settings = read_settings()
        count = 1 if reload else workers or settings.workers
        with metric_files.shared() if count > 1 else nullcontext():
            _note_if_not_migrated(settings)
            status = serving.run(settings, host, port, count, reload)
    raise typer.Exit(status)


def _note_if_not_migrated(settings: "Settings") -> None:
    """Say that the database must be upgraded: until then, as while it cannot be reached, the server is not ready."""
    from authserver import schema
    from authserver.engine import FAILURES
    from authserver.observability import logs

    logs.configure(settings)
    try:
        revision = asyncio.run(_revision(settings))
    except FAILURES:
        return
    if schema.is_behind(revision):
        where = f"at revision {revision}" if revision else "not migrated"
        reason = f"The database is {where}, this version needs {schema.REVISION}: run `authserver db upgrade`."
        log.critical("database_not_migrated", extra={"reason": reason})
        output.note(reason)


async def _revision(settings: "Settings") -> str | None:
    from authserver.db import Database

    db = Database(settings)
    try:
        return await db.revision()
    finally:
        await db.close()
