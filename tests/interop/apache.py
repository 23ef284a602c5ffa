"""Runs an Apache of its own for a test, with the modules that the machine has."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.servers import LOOPBACK

PROGRAM = shutil.which("apache2") or shutil.which("httpd")
_PLACES = (Path("/usr/lib/apache2/modules"), Path("/usr/lib64/httpd/modules"))
_HEAD = """
ServerRoot {directory}
ServerName localhost
PidFile {directory}/pid
ErrorLog {directory}/error.log
DefaultRuntimeDir {directory}
Mutex file:{directory}
DocumentRoot {directory}/www
Listen {loopback}:{port}
"""


def modules(names: Sequence[str]) -> Path | None:
    """Return the directory of Apache's modules when all that are needed are there."""
    return next((place for place in _PLACES if all((place / f"mod_{name}.so").exists() for name in names)), None)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Make a directory that others may read: root's Apache hands requests to nobody."""
    made = Path(tempfile.mkdtemp(prefix="authserver-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def running(
    directory: Path, port: int, names: Sequence[str], configuration: str
) -> AsyncIterator[httpx.AsyncClient]:
    """Run Apache with these modules around the block; yields a client of it."""
    assert PROGRAM
    place = modules(names)
    lines = [f"LoadModule {name}_module {place}/mod_{name}.so" for name in names]
    lines += ["User nobody"] if os.geteuid() == 0 else []
    head = _HEAD.format(directory=directory, loopback=LOOPBACK, port=port)
    (directory / "httpd.conf").write_text("\n".join([head, *lines, configuration]))
    log = (directory / "out.log").open("wb")
    start = [PROGRAM, "-f", str(directory / "httpd.conf"), "-DFOREGROUND"]
    process = subprocess.Popen(start, stdout=log, stderr=log)  # noqa: ASYNC220 - takes no time
    try:
        async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}") as client:
            for _ in range(200):
                assert process.poll() is None, (directory / "out.log").read_text()
                try:
                    await client.get("/")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.wait(10)
        log.close()
