"""How quickly it starts, how much memory it takes, how large it is."""

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tests.application import ROOT, Program, environment
from tests.bench import load, report
from tests.bench.load import http
from tests.bench.operations import KINDS, Operation
from tests.bench.population import populated
from tests.bench.processes import family, resident_mib, taken_mib, used_by
from tests.bench.report import Options, Outcome
from tests.bench.servers import Stores, both_stores, is_listening, production, serving
from tests.bench.site import Site

_LONGER = 4
"""Each of three operations is driven so many times --seconds before memory is read: a minute by default in all."""
_HEAVIEST = 15


async def start(options: Options) -> Outcome:
    """Measure all three."""
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(both_stores())
        settings = await production(stores, "start")
        options.say("starting it again and again …")
        await _seconds_to_answer(stores, settings, options.workers)  # the first time makes the key
        took = [
            [await _seconds_to_answer(stores, settings, workers) for workers in (1, options.workers)]
            for _ in range(options.rounds)
        ]
        one, several = (
            [median(figures) for figures in zip(*column, strict=True)] for column in zip(*took, strict=True)
        )
        options.say("loading it …")
        served, signed_in = await _memory_after_load(stores, settings, options)
    wheel, installed = await asyncio.to_thread(_wheel_mib), _installed_mib()
    figures = [
        ("first good answer, one process", f"{one[0]:.2f} s", "≤ 1.5 s"),
        ("  processor time until then", f"{one[1]:.2f} s", ""),
        (f"first good answer, {options.workers} workers", f"{several[0]:.2f} s", "≤ 1.5 s"),
        ("  processor time until then", f"{several[1]:.2f} s", ""),
        (
            f"memory after {2 * _LONGER * options.seconds:.0f} s of introspections and refreshes: all, by worker",
            f"{served.taken:.0f} MiB",
            "≤ 90 MiB",
        ),
        ("  resident a worker, pages that they share counted in each", f"{served.resident:.0f} MiB", ""),
        (
            f"  and after {_LONGER * options.seconds:.0f} s of sign-ins, with 19 MiB for each that hashes",
            f"{signed_in.taken:.0f} MiB",
            "≤ 109 MiB",
        ),
        ("wheel", f"{wheel:.2f} MiB", ""),
        ("installed with its dependencies", f"{installed:.0f} MiB", ""),
    ]
    imports = await asyncio.to_thread(_heaviest_imports, settings)
    text = "\n\n".join(
        [
            report.table(("", "measured", "target"), figures),
            "The heaviest imports of a worker (`-X importtime`, with what they import themselves):",
            report.table(("import", "ms"), [(name, f"{took:.0f}") for name, took in imports]),
        ]
    )
    return Outcome(text, {"figures": {name: value for name, value, _ in figures}, "imports": dict(imports)})


async def _seconds_to_answer(stores: Stores, settings: dict[str, Any], workers: int) -> tuple[float, float]:
    """Start `authserver serve`; return when the keys are served, and the processor seconds of all its processes."""
    began = time.monotonic()
    program = Program(stores.directory, settings, "--workers", str(workers))
    try:
        while time.monotonic() < began + 60:
            if is_listening(program.port):
                status, _ = await asyncio.to_thread(load.ask, program.port, http("GET", "/.well-known/jwks.json"))
                if status == 200:
                    return time.monotonic() - began, used_by(family(program.process.pid))
            await asyncio.sleep(0.005)
        raise RuntimeError(f"the server did not start: {program.errors.read_text()}")
    finally:
        await program.stop()


class _Memory(NamedTuple):
    """MiB a worker."""

    resident: float
    """In it, with all that it shares."""
    taken: float
    """By all processes together, divided by the number of workers."""


async def _memory_after_load(stores: Stores, settings: dict[str, Any], options: Options) -> tuple[_Memory, _Memory]:
    """Return what is taken after introspections and refreshes, and what is after sign-ins too."""
    async with (
        serving(stores, settings, workers=options.workers) as node,
        populated(node.settings) as population,
    ):

        async def after(*names: str) -> _Memory:
            for name in names:
                await Operation(name, KINDS[name], Site(stores, node, population)).measure(_LONGER * options.seconds)
            workers = node.workers()
            everybody = family(node.program.process.pid)
            return _Memory(resident_mib(workers) / len(workers), taken_mib(everybody) / len(workers))

        return await after("introspect", "refresh"), await after("password")


def _wheel_mib() -> float:
    with tempfile.TemporaryDirectory() as directory:
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
                 "--wheel-dir", directory, str(ROOT)]  # fmt: skip
        subprocess.run(build, check=True, capture_output=True)
        return sum(wheel.stat().st_size for wheel in Path(directory).glob("*.whl")) / 2**20


def _installed_mib() -> float:
    """Return the size of what requirements/runtime.txt installs here, without caches, and of the package."""
    names = re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements" / "runtime.txt").read_text(), re.MULTILINE)
    size = sum(path.stat().st_size for path in (ROOT / "authserver").rglob("*") if "__pycache__" not in path.parts)
    for name in names:
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:  # for another platform
            continue
        paths = [Path(str(file.locate())) for file in files if "__pycache__" not in file.parts]
        size += sum(path.stat().st_size for path in paths if path.exists())
    return size / 2**20


def _heaviest_imports(settings: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the imports of the application that take longest, in milliseconds, packages only."""
    own = {f"AUTHSERVER_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-X", "importtime", "-c", "from authserver.app import create_app; create_app()"]
    done = subprocess.run(command, env=environment(own), cwd="/", check=True, capture_output=True, text=True)
    found = re.findall(r"^import time:\s+\d+ \|\s+(\d+) \| +([\w.]+)$", done.stderr, re.MULTILINE)
    took = {name: int(microseconds) / 1000 for microseconds, name in found if name.count(".") <= 1}
    return sorted(took.items(), key=lambda item: -item[1])[:_HEAVIEST]
