"""What a run comes to: tables that read well on a terminal and are Markdown, and where they go in the documentation."""

import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.application import ROOT
from tests.bench.contest import Contestant, Sample, median

_PAGES = (ROOT / "docs" / "performance.md", ROOT / "docs" / "capacity.md")
_BUSY_GENERATOR = 0.9
_HEAD = ("", "per second", "p50 ms", "p99 ms", "CPU µs", "stores µs", "failed")


@dataclass(frozen=True)
class Options:
    """What the command line says for every instrument."""

    seconds: float
    rounds: int
    workers: int
    say: Callable[[str], None]
    """Tells the person who waits what is going on."""


@dataclass(frozen=True)
class Outcome:
    """What an instrument found: for people, for programs, and perhaps to look at."""

    text: str
    document: dict[str, object] = field(default_factory=dict)
    picture: str | None = None
    """SVG."""


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table; all columns but the first are figures."""
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]

    def row(line: Sequence[str]) -> str:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([row(head), f"| {' | '.join(rule)} |", *map(row, lines)])


def samples_table(contestants: Sequence[Contestant], samples: Mapping[str, Sequence[Sample]]) -> str:
    """Return the medians of what was measured, and what one must know to read them."""
    medians = {one.title: median(samples[one.name]) for one in contestants}
    lines = [
        (title, f"{one.per_second:,.0f}", f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{one.server_us:,.0f}",
         "" if one.stores_us is None else f"{one.stores_us:,.0f}", str(one.failures))
        for title, one in medians.items()
    ]  # fmt: skip
    return "\n\n".join([table(_HEAD, lines), *_remarks(medians)])


def _remarks(medians: Mapping[str, Sample]) -> list[str]:
    said = [f"{title}: {note}." for title, one in medians.items() for note in one.notes]
    shares = {title: one.generator_share for title, one in medians.items() if one.generator_share is not None}
    if shares:
        said.append(f"The generator (wrk) used {min(shares.values()):.0%} to {max(shares.values()):.0%} of one core.")
    said += [
        f"{title}: the generator was the bottleneck." for title, share in shares.items() if share > _BUSY_GENERATOR
    ]
    return said


def origin() -> str:
    """Say of which commit, when and where: one line."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    status = [*git, "status", "--porcelain", "--", ":!docs"]  # where the outcomes go
    changed = subprocess.run(status, capture_output=True, text=True, check=False)
    name = commit.stdout.strip() or "unknown"
    return (f"Commit {name}{' with changes' if changed.stdout else ''}, {datetime.now(UTC):%Y-%m-%d}, {_processor()}, "
            f"Python {platform.python_version()}, {platform.system()} {platform.release()}.")  # fmt: skip


def _processor() -> str:
    """Say how many cores of what, with the generation: clouds give many the same name."""
    try:
        said = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    except OSError:
        said = {}
    name = said.get("model name") or platform.processor() or platform.machine()
    generation = f" (family {said['cpu family']}, model {said['model']})" if "cpu family" in said else ""
    return f"{os.cpu_count()} cores of {name}{generation}"


def write(name: str, outcome: Outcome) -> None:
    """Put an outcome into its place in the documentation, and its picture beside the page."""
    begin, end = f"<!-- bench {name} -->", f"<!-- end of bench {name} -->"
    [page] = [page for page in _PAGES if begin in page.read_text()]
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    text = f"{origin()}\n\n{outcome.text}"
    if outcome.picture:
        picture = page.with_name(f"{page.stem}-{name}.svg")
        picture.write_text(outcome.picture)
        text = f"![Processor time of each operation]({picture.name})\n\n{text}"
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
