"""Where several worker processes count: each into files of its own, in a folder that any of them reads for all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the folder; prometheus_client's name."""


@contextmanager
def shared() -> Iterator[None]:
    """Let this process and those that it forks share a folder for the time of the block.

    prometheus_client looks for it once, when it is imported: so that, and `metrics`, only inside.
    """
    with tempfile.TemporaryDirectory(prefix="authserver-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[DIRECTORY] = folder
        yield


def are_shared() -> bool:
    """Tell whether other processes count too."""
    return bool(os.environ.get(DIRECTORY))


def clear() -> None:
    """Take out what this process has; before it forks, for it will not count, and nought is the least of all gauges."""
    for file in Path(os.environ[DIRECTORY]).iterdir():
        file.unlink()


def forget_process(pid: int) -> None:
    """Take a dead worker's gauges out; what it counted stays."""
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - not before `shared`

    mark_process_dead(pid)  # type: ignore[no-untyped-call]
