"""Tries the protocol within full bounds and catches all mutants; `scripts/model` runs it."""

# ruff: noqa: T201 - a program that prints what it finds
import sys
import time

from tests.model.denylist import Model
from tests.model.explore import LIVENESS, SAFETY, explore
from tests.model.mutants import MUTANTS

BOUNDS = [Model(lease=1, faults=0, nodes=3), Model(lease=2, faults=1, nodes=2), Model(lease=1, faults=2, nodes=1)]


def main() -> int:
    """Print what holds and what is caught; return how many times it was otherwise."""
    wrong = 0
    for model in BOUNDS:
        started = time.monotonic()
        result = explore(model, (*SAFETY, LIVENESS))
        seconds = time.monotonic() - started
        verdict = f"{result.broken} is broken: {' → '.join(result.path)}" if result.broken else "holds"
        print(f"leases of {model.lease} ticks, {model.faults} faults, {model.nodes} nodes:", end=" ")
        print(f"{result.worlds} worlds, {seconds:.0f} s: {verdict}", flush=True)
        wrong += result.broken is not None
    for mutant in MUTANTS:
        result = mutant.catch()
        is_caught = result.broken == mutant.breaks
        verdict = f"caught by {result.broken}: {' → '.join(result.path)}" if is_caught else "NOT CAUGHT"
        print(f"{mutant.name}: {result.worlds} worlds, {verdict}", flush=True)
        wrong += not is_caught
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main()))
