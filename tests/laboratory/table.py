"""What the runs came to, as a table: for a terminal, and for docs/reliability.md."""

import re
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.application import ROOT
from tests.laboratory import bound
from tests.laboratory.bound import Measured
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


def line(width: int, row: Sequence[str]) -> str:
    """Return one line for a terminal; the first cell has the width."""
    return f"{row[0]:<{width}}" + "".join(f"{cell:>17}" for cell in row[1:]).rstrip()


def markdown(results: Sequence[Result], bounds: Sequence[Measured]) -> str:
    """Return the tables with their date and commit."""
    requests = sum(len(result.history) for result in results)
    violations = sum(len(result.violations) for result in results)
    made = (
        f"`scripts/faults` on {datetime.now(UTC):%Y-%m-%d}, commit {_commit()}: "
        f"{len(results)} faults, {requests} requests, {violations} violations."
    )
    parts = [made]
    if results:
        parts.append(_table(HEADINGS, ((result.fault.what, *cells(result)) for result in results)))
    if bounds:
        parts.append("Revocations on one node, polled on the other as fast as it answers:")
        parts.append(_table(("meanwhile", *bound.HEADINGS), ((one.state.name, *one.cells()) for one in bounds)))
    return "\n\n".join(parts)


def write(text: str, page: Path = PAGE) -> None:
    """Put it into docs/reliability.md, between its marks."""
    before, after = _MARKS
    pattern = re.compile(f"(?<={re.escape(before)}\n).*?(?={re.escape(after)})", re.DOTALL)
    written, count = pattern.subn(lambda _: f"\n{text}\n\n", page.read_text())
    if count != 1:
        raise ValueError(f"{page} lacks its marks")
    page.write_text(written)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + (
        " with changes" if git("status", "--porcelain") else ""
    )
