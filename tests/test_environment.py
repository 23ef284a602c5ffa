"""scripts/environment: which Python it takes, and how it makes .venv where that one lacks pip."""

import shlex
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from shutil import copy

import pytest

from tests.application import ROOT

SLOW = "PYTHONTRACEMALLOC=1"
"""Python takes several times as long while it traces its memory."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with scripts/environment, and bin, which will be all of the PATH beside the system's tools."""
    (tmp_path / "bin").mkdir()
    for tool in ("cat", "dirname", "rm", "uname"):
        (tmp_path / "bin" / tool).symlink_to(f"/bin/{tool}")
    (tmp_path / "scripts").mkdir()
    copy(ROOT / "scripts/environment", tmp_path / "scripts")
    return tmp_path


@pytest.fixture
def wheel(place: Path) -> Path:
    """Pip's wheel where a Python has it that came from python.org: in ensurepip/_bundled."""
    pip = distribution("pip")
    path = place / "with/ensurepip/_bundled" / f"pip-{pip.version}-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    (place / "with/ensurepip/__init__.py").touch()
    with zipfile.ZipFile(path, "w") as archive:
        for file in pip.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                archive.write(str(file.locate()), file)
    return path


def put(place: Path, name: str, setting: str, packages: str | None = None) -> None:
    """Put a Python into bin that runs with this setting, and finds these packages before its own."""
    python = place / "bin" / name
    path = "" if packages is None else f"PYTHONPATH={shlex.quote(str(place / packages))}"
    python.write_text(f'#!/bin/sh\n{setting} {path} exec {shlex.quote(sys._base_executable)} "$@"\n')  # type: ignore[attr-defined]
    python.chmod(0o755)


def without_pip(place: Path) -> None:
    """Make the package that hides ensurepip, as Debian does without python3-venv."""
    (place / "without").mkdir()
    (place / "without/ensurepip.py").write_text("raise ImportError\n")


def run(place: Path, command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the shell after scripts/environment, without the system's own Python to choose from."""
    return subprocess.run(
        ["/bin/sh", "-euc", f". scripts/environment\nSYSTEM_PYTHON=\n{command}", "./scripts/serve"],
        cwd=place, env={"PATH": str(place / "bin"), **variables}, text=True, capture_output=True, check=False,
    )  # fmt: skip


def chosen(place: Path, **variables: str) -> str:
    """Return the name of the Python that is taken."""
    done = run(place, 'find_python; echo "$python"', **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_quicker_python_is_taken(place: Path, wheel: Path) -> None:
    put(place, "python3", SLOW, "with")
    put(place, "python3.12", "", "with")
    assert chosen(place) == "python3.12"


def test_of_two_alike_the_first_is_taken(place: Path, wheel: Path) -> None:
    put(place, "python3", "", "with")
    put(place, "python3.12", "", "with")
    assert chosen(place) == "python3"


def test_the_one_that_is_named_is_taken_however_slow(place: Path, wheel: Path) -> None:
    put(place, "python3", "", "with")
    put(place, "my python", SLOW, "with")
    named = str(place / "bin/my python")
    assert chosen(place, PYTHON=named) == named


def test_a_python_without_pip_gets_anothers(place: Path, wheel: Path) -> None:
    without_pip(place)
    put(place, "python3", SLOW, "with")
    put(place, "python3.12", "", "without")
    made = run(place, "make_venv")
    assert made.returncode == 0, made.stderr
    assert made.stderr.startswith("Making .venv with Python ")
    pip = subprocess.run([place / ".venv/bin/pip", "--version"], capture_output=True, text=True, check=True).stdout
    assert pip.startswith(f"pip {distribution('pip').version} from {place}/.venv/")


def test_without_any_pip_it_says_what_to_install(place: Path) -> None:
    without_pip(place)
    put(place, "python3", "", "without")
    refused = run(place, "find_python", PYTHON="python3")
    assert refused.returncode == 1
    assert "python3 has no pip for a venv (on Debian and Ubuntu: apt install python3-venv)" in refused.stderr
    assert "PYTHON=/path/to/python3.12 ./scripts/serve" in refused.stderr


@pytest.mark.parametrize(
    ("program", "says"),
    [("echo unfit /opt/python3.9 is Python 3.9", "/opt/python3.9 is Python 3.9"), ("exit 1", "None was found.")],
)
def test_what_will_not_do_is_named(place: Path, program: str, says: str) -> None:
    python = place / "bin/python"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    refused = run(place, "find_python", PYTHON=str(python))
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[:2] == ["authserver needs Python 3.11, 3.12 or 3.13 with venv.", f"  {says}"]
