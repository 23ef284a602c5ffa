"""`scripts/faults`: all faults, or those that are named, as a table; exit 1 if a promise was broken."""

import argparse
import asyncio
import signal
import sys
import tempfile
from contextlib import aclosing
from fnmatch import fnmatch
from pathlib import Path

from tests.laboratory import table
from tests.laboratory.faults import FAULTS
from tests.laboratory.run import Result, run

SHOWN = 5
"""So many violations of one fault are told in words."""


def main() -> int:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser("scripts/faults", description=__doc__)
    parser.add_argument("fault", nargs="*", help="names, or patterns like 'A-redis-*'; default: all")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each fault lasts (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what is random in the load (%(default)s)")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("--logs", type=Path, help="a folder for the servers' logs, to be kept")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown as well")
    parser.add_argument("--write", action="store_true", help="put it into docs/reliability.md")
    asked = parser.parse_args()
    names = [name for name in FAULTS if not asked.fault or any(fnmatch(name, pattern) for pattern in asked.fault)]
    if asked.list:
        _say("\n".join(f"{name:<28}{FAULTS[name].what}" for name in names))
        return 0
    if not names:
        parser.error("no fault of that name; see --list")
    if asked.logs is not None:
        asked.logs.mkdir(parents=True, exist_ok=True)
    # Ctrl-C lets asyncio clean up; so must a polite kill, or the stores would stay.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        results = asyncio.run(_run(names, asked.seconds, asked.seed, asked.logs))
    except KeyboardInterrupt:
        return 130
    if asked.markdown:
        _say(table.markdown(results))
    if asked.write:
        table.write(table.markdown(results))
    return 1 if any(result.violations for result in results) else 0


async def _run(names: list[str], seconds: float, seed: int, logs: Path | None) -> list[Result]:
    results = []
    _say(table.line("fault", table.HEADINGS[1:]))
    with tempfile.TemporaryDirectory(prefix="authserver-laboratory-") as scratch:
        running = run([FAULTS[name] for name in names], logs or Path(scratch), seconds=seconds, seed=seed)
        async with aclosing(running):
            async for result in running:
                results.append(result)
                _say(table.line(result.fault.name, table.cells(result)))
                for violation in result.violations[:SHOWN]:
                    _say(f"    {violation}")
    return results


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
