"""The instruments of scripts/bench still work: one tiny run of each kind of load, and what is made of the figures."""

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from authserver.settings import Settings
from tests.application import ROOT, Program
from tests.bench import contest, load, pace, report
from tests.bench.contest import Sample
from tests.bench.operations import KINDS, driven
from tests.bench.picture import Dots, picture
from tests.bench.population import Population, populated
from tests.bench.report import Outcome
from tests.bench.servers import Node

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed (apt install wrk)")


@pytest.fixture
async def node(serve: Callable[..., Awaitable[Program]], settings: Settings) -> Node:
    program = await serve("--workers", "2")
    return Node(program, Settings(_env_file=None, **(settings.model_dump() | {"issuer": program.url})))


@pytest.fixture
async def population(node: Node) -> AsyncIterator[Population]:
    async with populated(node.settings, sessions=20) as population:
        yield population


@needs_wrk
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_an_operation_is_measured(node: Node, population: Population) -> None:
    assert len(node.workers()) == 2
    assert node.program.process.pid not in node.workers()
    for name in ("introspect", "refresh"):
        sent = await KINDS[name].prepare(population, 1)
        assert KINDS[name].is_good(load.ask(node.port, sent.first())), name
        few = replace(sent, requests=sent.requests[:9])  # a chain that does not grow again ends with refusals
        sample = await driven(node.port, few.rest(), 1, node.workers(), None, connections=4)
        assert (sample.failures, sample.notes) == (0, []), name
        assert sample.per_second > 0, name
        assert 0 < sample.server_us < 1_000_000, name
    plan = pace.Plan(node.port, (await KINDS["introspect"].prepare(population, 1)).requests, 20, 1, connections=4)
    async with pace.generators(1) as pool:
        paced = await pace.follow(pool, plan)
    assert pace.ends(paced.answers) == f"{len(paced.answers)} × 200"
    assert len(paced.answers) >= 10


def test_the_median_of_the_rounds_counts() -> None:
    samples = [Sample(per_second=n, p50_ms=n, p99_ms=n, server_us=n, failures=1, notes=["odd"]) for n in (3, 1, 200)]
    assert contest.median(samples) == Sample(3, 3, 3, 3, failures=3, notes=["odd"])


def test_an_outcome_takes_its_place_in_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- bench speed -->\nold\n<!-- end of bench speed -->\nafter\n")
    monkeypatch.setattr(report, "_PAGES", (page,))
    drawn = picture("µs", [Dots("ours", "#000", [("introspect <live>", 120.0), ("password", 14_000.0)])])
    table = report.table(("", "µs"), [("introspect", "120"), ("password grant", "14,000")])
    for _ in range(2):
        report.write("speed", Outcome(table, picture=drawn))
    written = page.read_text()
    assert written.startswith("before\n<!-- bench speed -->")
    assert written.endswith("<!-- end of bench speed -->\nafter\n")
    assert "old" not in written
    assert written.count("| password grant | 14,000 |") == 1
    assert "introspect &lt;live&gt;" in (tmp_path / "performance-speed.svg").read_text()


def test_an_unknown_name_is_refused_before_anything_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "introspekt"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "there is no introspekt" in done.stderr
