"""What a command says: its answer on stdout, as one JSON document or for people; everything else on stderr."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@dataclass(frozen=True)
class Answer:
    """What a command has found or done."""

    document: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    """For --json; dates and UUIDs may be in it."""
    text: str | None = None
    """For people; without it they get a table."""
    rows: Sequence[Mapping[str, Any]] | None = None
    """Of the table, if they are not the document itself."""
    columns: Sequence[str] = ()
    """What the table shows of each row; all if empty."""
    refused: str | None = None
    """Why the command ends with exit status 1 although it has an answer."""


def show(answer: Answer, as_json: bool) -> None:
    """Print the answer on stdout."""
    if as_json:
        sys.stdout.write(json.dumps(answer.document, default=text, indent=2, allow_nan=False) + "\n")
    elif answer.text is not None:
        sys.stdout.write(answer.text + "\n")
    else:
        shown = answer.document if answer.rows is None else answer.rows
        if isinstance(shown, Mapping):
            _show_record(shown)
        else:
            _show_rows(shown, answer.columns)


def note(message: str) -> None:
    """Print one line on stderr."""
    sys.stderr.write(printable(message) + "\n")


def printable(raw: str) -> str:
    """Make a text harmless for a terminal: strangers choose names and browsers choose theirs."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in raw)


def text(value: object) -> str:
    """Write a date as RFC 3339, UTC, to the second."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, UUID | str | int | float):
        return str(value)
    raise TypeError(f"{type(value).__name__} is neither text nor a number nor a date")


class Counter:
    """Counts what is done of a long work, in a line on stderr if that is a terminal."""

    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress = progress
        self._task = task

    def add(self, done: int) -> None:
        """Count so many more."""
        self._progress.advance(self._task, done)


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Counter]:
    """Show how far a long work is; without a total, only how much is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield Counter(progress, progress.add_task(what, total=total))


def _show_record(record: Mapping[str, Any]) -> None:
    rows = [(name, _cell(value)) for name, value in record.items()]
    if not sys.stdout.isatty():
        sys.stdout.writelines(f"{name}\t{value}\n" for name, value in rows)
        return
    _show_table(None, rows)


def _show_rows(documents: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    names = list(columns or dict.fromkeys(name for document in documents for name in document))
    rows = [[_cell(document.get(name)) for name in names] for document in documents]
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(row) + "\n" for row in [names, *rows])
        return
    _show_table(names, rows)


def _show_table(names: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE if names else None, show_header=names is not None, pad_edge=False)
    for name in names or ("", ""):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(_cell, value)) or "-"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_cell(item)}" for name, item in value.items()) or "-"
    return printable(text(value))
