"""`scripts/bench`: which instrument runs, and what it prints."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.capacity import capacity
from tests.bench.flat import flat
from tests.bench.load import NoGenerator
from tests.bench.nodes import nodes
from tests.bench.operations import KINDS, WrongAnswer
from tests.bench.overload import overload
from tests.bench.peers.beside import peers
from tests.bench.peers.peer import NoPeer
from tests.bench.report import Options, Outcome
from tests.bench.speed import speed
from tests.bench.start import start
from tests.bench.storm import storm

INSTRUMENTS: dict[str, Callable[[Options], Coroutine[Any, Any, Outcome]]] = {
    "speed": speed,
    "storm": storm,
    "overload": overload,
    "flat": flat,
    "start": start,
    "nodes": nodes,
    "peers": peers,
    "capacity": capacity,
}


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure authserver: single operations, or one instrument. Without a name: speed, all operations.",
        epilog=f"Operations: {', '.join(KINDS)}. Instruments: {', '.join(INSTRUMENTS)}.",
    )
    parser.add_argument("what", nargs="*", help="operations, or one instrument")
    parser.add_argument("--seconds", type=float, default=5, help="for each operation in each round (5)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the medians are reported (3)")
    parser.add_argument("--workers", type=int, default=2, help="processes of each server (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--write", action="store_true", help="put the outcome into the documentation")
    arguments = parser.parse_args()
    name, *others = arguments.what or ["speed"]
    if unknown := {name, *others} - KINDS.keys() - (set() if others else INSTRUMENTS.keys()):
        parser.error(f"there is no {', '.join(sorted(unknown))}; see --help")
    options = Options(arguments.seconds, arguments.rounds, arguments.workers, _say)
    try:
        work = INSTRUMENTS[name](options) if name in INSTRUMENTS else speed(options, arguments.what)
        outcome = asyncio.run(work)
    except (NoGenerator, NoPeer, WrongAnswer) as failure:
        _say(f"scripts/bench: {failure}")
        return 1
    sys.stdout.write(f"{report.origin()}\n\n{outcome.text}\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({"origin": report.origin(), **outcome.document}, indent=1) + "\n")
    if arguments.write:
        report.write(name if name in INSTRUMENTS else "speed", outcome)
    return 0


def _say(line: str) -> None:
    """Tell the person who waits."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
