"""`scripts/faults`: all faults and the measured bound, or what is named, as tables; exit 1 if a promise was broken."""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from fnmatch import fnmatch
from pathlib import Path

from tests.laboratory import bound, table
from tests.laboratory.bound import Measured
from tests.laboratory.faults import FAULTS
from tests.laboratory.nodes import laboratory, serving
from tests.laboratory.run import Result, run

BOUND = "bound"
SHOWN = 5
"""So many violations of one fault are told in words."""


def main() -> int:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser("scripts/faults", description=__doc__)
    parser.add_argument("fault", nargs="*", help=f"names, or patterns like 'A-redis-*', or {BOUND}; default: all")
    parser.add_argument("--seconds", type=float, default=2.5, help="how long each fault lasts (%(default)s)")
    parser.add_argument("--count", type=int, default=10_000, help="revocations of the bound (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what is random in the load (%(default)s)")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("--logs", type=Path, help="a folder for the servers' logs, to be kept")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown as well")
    parser.add_argument("--write", action="store_true", help="put them into docs/reliability.md")
    asked = parser.parse_args()
    names = [name for name in (*FAULTS, BOUND) if _is_wanted(name, asked.fault)]
    if not names:
        parser.error("no fault of that name; see --list")
    if asked.list:
        _say(f"{name:<28}{FAULTS[name].what if name in FAULTS else bound.__doc__}" for name in names)
        return 0
    # Ctrl-C lets asyncio clean up; so must a polite kill, or the stores would stay: also in the background of a shell,
    # which has Ctrl-C ignored there.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with tempfile.TemporaryDirectory(prefix="authserver-laboratory-") as scratch:
        if asked.logs is not None:
            asked.logs.mkdir(parents=True, exist_ok=True)
        try:
            results, bounds = asyncio.run(_run(names, asked, asked.logs or Path(scratch)))
        except KeyboardInterrupt:
            return 130
    if asked.markdown:
        _say([table.markdown(results, bounds)])
    if asked.write:
        table.write(table.markdown(results, bounds))
    is_broken = any(result.violations for result in results) or any(one.violations for one in bounds)
    return 1 if is_broken else 0


async def _run(names: Sequence[str], asked: argparse.Namespace, logs: Path) -> tuple[list[Result], list[Measured]]:
    results: list[Result] = []
    bounds: list[Measured] = []
    faults = [FAULTS[name] for name in names if name != BOUND]
    if faults:
        _say([table.line(28, table.HEADINGS)])
        async with aclosing(run(faults, logs, seconds=asked.seconds, seed=asked.seed)) as running:
            async for result in running:
                results.append(result)
                _say([table.line(28, (result.fault.name, *table.cells(result)))])
                _say(f"    {violation}" for violation in result.violations[:SHOWN])
    if BOUND in names:
        _say([table.line(28, ("meanwhile", *bound.HEADINGS))])
        async with laboratory(logs) as stores, serving(stores, is_proxied=False) as lab:
            for state in bound.STATES:
                bounds.append(await bound.measure(lab, state, asked.count))
                _say([table.line(28, (state.name, *bounds[-1].cells()))])
                _say(f"    {violation}" for violation in bounds[-1].violations[:SHOWN])
    return results, bounds


def _is_wanted(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch(name, pattern) for pattern in patterns)


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
