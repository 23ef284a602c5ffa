"""`authserver serve` that kills itself at a named point: `python -m tests.faults.crashing POINT serve …`.

A point is a way through the code, one place after the other in the same task: `after pkg.module:Class.method, before
other:function`. At its last place the process gets SIGKILL, as from a power failure; `#2` there means the second time.
A place that is not there (any more) ends the program before it serves: nobody shall believe that a point was tested.
"""

import functools
import inspect
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.application import Program

_STEP = re.compile(r"(?P<when>before|after) (?P<place>[\w.]+:[\w.]+)(#(?P<times>\d+))?")
_passed: ContextVar[int] = ContextVar("passed", default=0)
"""So many places of the way this task has passed."""


class CrashingProgram(Program):
    """Starts that program instead of the server proper."""

    def __init__(self, point: str, directory: Path, settings: Mapping[str, Any], *arguments: str) -> None:
        super().__init__(directory, settings, *arguments, launcher=("-m", "tests.faults.crashing", point))


@dataclass(frozen=True)
class Step:
    """A place on the way: before a coroutine function begins or after it has returned."""

    when: str
    place: str
    times: int

    def owner(self) -> tuple[Any, str]:
        """Return the class or module that has the function, and its name; AttributeError if it is gone."""
        module, _, path = self.place.partition(":")
        *parents, name = path.split(".")
        owner = functools.reduce(getattr, parents, import_module(module))
        if not inspect.iscoroutinefunction(getattr(owner, name)):
            raise AttributeError(f"{self.place} is no coroutine function")
        return owner, name


def parse(point: str) -> list[Step]:
    """Read a point; ValueError for what is none."""
    steps = []
    for part in point.split(", "):
        found = _STEP.fullmatch(part)
        if found is None:
            raise ValueError(f"not a place to crash at: {part!r}")
        steps.append(Step(found["when"], found["place"], int(found["times"] or 1)))
    return steps


def arm(point: str) -> None:
    """Have this process die at the point."""
    steps = parse(point)
    for number, step in enumerate(steps):
        owner, name = step.owner()
        setattr(owner, name, _watched(getattr(owner, name), step, number, is_last=number == len(steps) - 1))


def _watched(function: Callable[..., Any], step: Step, number: int, *, is_last: bool) -> Callable[..., Any]:
    times = 0

    def passed() -> None:
        nonlocal times
        if _passed.get() != number:
            return
        times += 1
        if times >= step.times:
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
            _passed.set(number + 1)

    @functools.wraps(function)
    async def watched(*arguments: Any, **options: Any) -> Any:
        if step.when == "before":
            passed()
        result = await function(*arguments, **options)
        if step.when == "after":
            passed()
        return result

    return watched


if __name__ == "__main__":
    arm(sys.argv.pop(1))
    from authserver.cli import main

    main()
