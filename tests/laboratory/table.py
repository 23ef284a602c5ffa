"""What the runs came to, as a table: for a terminal, and for docs/reliability.md."""

import re
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.application import ROOT
from tests.laboratory.run import Result

HEADINGS = ("fault", "requests", "violations", "503s", "worst answer", "recovered after")
PAGE = ROOT / "docs" / "reliability.md"
_MARKS = ("<!-- scripts/faults writes from here -->", "<!-- to here -->")


def cells(result: Result) -> tuple[str, ...]:
    """Return a row's cells, the fault left out."""
    if result.not_run_because:
        return ("not run", result.not_run_because, "", "", "")
    recovery = result.recovery_seconds
    return (
        str(len(result.history)),
        str(len(result.violations)),
        str(result.unavailable),
        f"{result.worst_seconds:.2f} s",
        "never" if recovery is None else f"{recovery:.1f} s",
    )


def line(name: str, others: Iterable[str]) -> str:
    """Return one line for a terminal."""
    return f"{name:<28}" + "".join(f"{cell:>15}" for cell in others).rstrip()


def markdown(results: Sequence[Result], extra: Sequence[str] = ()) -> str:
    """Return the table with its date and commit, and lines to come after it."""
    rows = [f"| {result.fault.what} | " + " | ".join(cells(result)) + " |" for result in results]
    head = ["| " + " | ".join(HEADINGS) + " |", "| --- |" + " ---: |" * (len(HEADINGS) - 1)]
    requests = sum(len(result.history) for result in results)
    violations = sum(len(result.violations) for result in results)
    made = (
        f"`scripts/faults` on {datetime.now(UTC):%Y-%m-%d}, commit {_commit()}: "
        f"{len(results)} faults, {requests} requests, {violations} violations."
    )
    return "\n".join([made, "", *head, *rows, *(["", *extra] if extra else [])])


def write(text: str, page: Path = PAGE) -> None:
    """Put it into docs/reliability.md, between its marks."""
    before, after = _MARKS
    pattern = re.compile(f"(?<={re.escape(before)}\n).*?(?={re.escape(after)})", re.DOTALL)
    written, count = pattern.subn(lambda _: f"\n{text}\n\n", page.read_text())
    if count != 1:
        raise ValueError(f"{page} lacks its marks")
    page.write_text(written)


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + (
        " with changes" if git("status", "--porcelain") else ""
    )
