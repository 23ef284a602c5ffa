"""What processes use: processor time, and memory."""

import asyncio
import platform
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import psutil

_LOOK_SECONDS = 0.1
_MOST_LOOKS = 50
_IDLE_SHARE = 0.1
"""Of a core."""


def processor_seconds(process: int) -> float:
    """Return what a process has used so far, all its threads together."""
    if platform.system() == "Linux":
        return time.clock_gettime(~process << 3 | 2)  # clock_getcpuclockid(3), which Python lacks; psutil counts 10 ms
    used = psutil.Process(process).cpu_times()
    return float(used.user + used.system)


def used_by(processes: Iterable[int]) -> float:
    """Return the processor seconds that some processes have used so far; one that is gone counts nothing."""
    seconds = 0.0
    for process in processes:
        try:
            seconds += processor_seconds(process)
        except (OSError, psutil.NoSuchProcess):
            continue
    return seconds


async def idle(processes: Sequence[int]) -> None:
    """Wait, 5 s at most, until they hardly do anything: what is left would be in the way of whoever comes next."""
    for _ in range(_MOST_LOOKS):
        before = used_by(processes)
        await asyncio.sleep(_LOOK_SECONDS)
        if used_by(processes) - before < _IDLE_SHARE * _LOOK_SECONDS:
            return


def workers(supervisor: int) -> list[int]:
    """Return the processes that answer requests: the children, or itself."""
    children = psutil.Process(supervisor).children()
    return [child.pid for child in children if "resource_tracker" not in " ".join(child.cmdline())] or [supervisor]


def family(parent: int) -> list[int]:
    """Return a process and all its descendants."""
    return [parent, *(child.pid for child in psutil.Process(parent).children(recursive=True))]


def resident_mib(processes: Iterable[int]) -> float:
    """Return the resident memory of some processes together, in MiB; a page that several have counts for each."""
    return sum(psutil.Process(process).memory_info().rss for process in processes) / 2**20


def taken_mib(processes: Iterable[int]) -> float:
    """Return the memory that some processes take together, in MiB; a page that several have counts once (PSS)."""
    return sum(psutil.Process(process).memory_full_info().pss for process in processes) / 2**20


@asynccontextmanager
async def peak_mib(processes: Sequence[int]) -> AsyncIterator[list[float]]:
    """Watch the resident memory of some processes; the list's one member is the most that they had together."""
    peak = [resident_mib(processes)]

    async def watch() -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            peak[0] = max(peak[0], resident_mib(processes))

    watching = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        watching.cancel()
