"""The servers themselves: one stands still, one has the wrong date."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from tests.laboratory.faults.fault import fault
from tests.laboratory.nodes import Laboratory

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
JUMPS = {"5-seconds-ahead": 5, "5-seconds-behind": -5, "an-hour-ahead": 3600, "an-hour-behind": -3600}
"""By how many seconds node A's date jumps. What measures time (monotonic) goes on as it was."""
_AGREE_SECONDS = 5
"""Clocks that differ by no more are what docs/operations.md asks for."""


@fault("node-stopped", "node A stands still (SIGSTOP), and goes on", stopped="A", locked_out="B")
async def stopped(lab: Laboratory) -> AsyncIterator[None]:
    lab.a.stop()
    yield
    lab.a.go_on()


async def clock(seconds: int, lab: Laboratory) -> AsyncIterator[None]:
    """The date of node A jumps, and back."""
    _offset(lab).write_text(f"{seconds:+}\n")
    yield
    _offset(lab).write_text("+0\n")


def _offset(lab: Laboratory) -> Path:
    return lab.directory / "clock-of-a"


def _with_faketime(lab: Laboratory) -> dict[str, str]:
    _offset(lab).write_text("+0\n")
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(_offset(lab)),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _why_not(lab: Laboratory) -> str:
    return "" if LIBRARY else "libfaketime is not installed"


for _name, _seconds in JUMPS.items():
    fault(
        f"clock-{_name}",
        f"the date of node A jumps: {_name.replace('-', ' ')}",
        environment=_with_faketime,
        do_clocks_agree=abs(_seconds) <= _AGREE_SECONDS,
        without_database="" if _seconds >= -_AGREE_SECONDS else "A",  # to it, the key that signs is not good yet
        why_not=_why_not,
    )(partial(clock, _seconds))
