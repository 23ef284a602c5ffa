"""What every command has in common: --json, the settings, the services, and one line on stderr when it is refused."""

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from authserver.cli import output
from authserver.cli.output import Answer
from authserver.errors import AuthserverError, EmailTaken, InvalidInput, StoreUnavailable, UsernameTaken

if TYPE_CHECKING:
    from authserver.settings import Settings

STORE_SECONDS = 10.0
"""A person waits longer for a store than a request does."""
REFUSED = 1

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


class UnusableSettings(AuthserverError):
    """The settings are not usable; the message says which."""


def command(work: Callable[..., Awaitable[Answer]]) -> Callable[..., None]:
    """Make a command of `async def work(services, …)`: its options are all others of `work`, and --json."""

    async def with_services(settings: "Settings", options: dict[str, Any]) -> Answer:
        from authserver.services import Services

        patient = settings.model_copy(update={"database_timeout_seconds": STORE_SECONDS})
        async with Services.open(patient) as services:
            return await work(services, **options)

    def run(**options: Any) -> Answer:
        return asyncio.run(with_services(load_settings(), options))

    _, *options = inspect.signature(work).parameters.values()
    return _command(run, work, options)


def plain_command(work: Callable[..., Answer]) -> Callable[..., None]:
    """Make a command of a function that needs no services, or other ones than most; it loads the settings itself."""
    return _command(work, work, [*inspect.signature(work).parameters.values()])


def load_settings() -> "Settings":
    """Read the settings, and send the log to stderr: stdout is for the answer."""
    from authserver.observability import logs

    settings = read_settings()
    level = "DEBUG" if settings.debug else "WARNING"
    logs.configure(settings.model_copy(update={"log_level": level}), stream="stderr")
    # A command that is refused says the same in its own line.
    logging.getLogger("authserver.db").setLevel(logging.ERROR)
    return settings


def read_settings() -> "Settings":
    """Read the settings; UnusableSettings says what is wrong with them."""
    from authserver import settings

    try:
        return settings.load()
    except settings.SettingsError as unusable:
        raise UnusableSettings(str(unusable)) from unusable


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what the domain refuses into a line on stderr and exit status 1; anything else is a bug, and shows."""
    try:
        yield
    except AuthserverError as refused:
        output.note(reason(refused))
        raise typer.Exit(REFUSED) from refused


def reason(refused: AuthserverError) -> str:
    """Say in one line why something is refused."""
    from authserver.engine import lacks_tables

    if isinstance(refused, InvalidInput):
        return " ".join(dict.fromkeys(fault.detail for fault in refused.faults))
    if isinstance(refused, StoreUnavailable) and lacks_tables(refused.__cause__):
        return "The database is not migrated to what this version needs: run `authserver db upgrade`."
    if isinstance(refused, UsernameTaken | EmailTaken):
        return f"{refused.title}."
    return str(refused)


def _command(
    run: Callable[..., Answer], described: Callable[..., Any], options: list[inspect.Parameter]
) -> Callable[..., None]:
    @functools.wraps(described)
    def started(*, as_json: bool, **given: Any) -> None:
        with refusals():
            answer = run(**given)
        output.show(answer, as_json)
        if answer.refused:
            output.note(answer.refused)
            raise typer.Exit(REFUSED)

    # Typer learns from the signature what to parse.
    as_json = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*options, as_json)]
    started.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    started.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return started
