"""A PostgreSQL on a disk of its own, so small that it can be filled: a tmpfs, which root may mount."""

import shutil
import subprocess
from typing import Self

from tests.servers import Postgres

SIZE_MIB = 256


class SmallDiskPostgres(Postgres):
    """PostgreSQL in a directory that holds `SIZE_MIB`, where that is allowed; else `reason` says why not."""

    def __init__(self) -> None:
        super().__init__()
        self.reason = ""
        """Empty: the disk can be filled."""
        self._filler = self.directory / "filler"

    def __enter__(self) -> Self:
        self.reason = _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(self.directory))
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        self.kill()
        if not self.reason:
            _run("umount", "--lazy", str(self.directory))
        super().__exit__()

    def is_running(self) -> bool:
        """Tell whether it is still there."""
        return self._process is not None and self._process.poll() is None

    def fill(self) -> None:
        """Leave no room on the disk."""
        with self._filler.open("wb") as filler:
            try:
                while filler.write(bytes(1 << 20)):
                    filler.flush()
            except OSError:
                return

    def empty(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)


def _run(program: str, *arguments: str) -> str:
    """Run it; return why it failed, in one line."""
    if shutil.which(program) is None:
        return f"there is no {program}"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().partition("\n")[0]
