"""scripts/environment: which Python it takes, and how it makes .venv where that one lacks pip."""

import platform
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


@pytest.mark.parametrize(("cost", "taken"), [(81, "python3"), (79, "python3.12")])
def test_a_later_one_is_taken_if_it_is_quicker_by_a_fifth(place: Path, cost: int, taken: str) -> None:
    for name, microseconds in (("python3", 100), ("python3.12", cost)):
        python = place / "bin" / name
        python.write_text(f"#!/bin/sh\necho fit {microseconds} pip.whl\n")
        python.chmod(0o755)
    assert chosen(place) == taken


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


PIP = """\
echo "$@" >>calls
case "$*" in
*" wheel "*) {building}; touch "$workshop/argon2.whl" ;;
esac
"""
"""What stands for .venv's Python: it notes what it is asked to do, and has a wheel made."""


def compiled(place: Path, *, building: str = "true", before: str = "", **variables: str) -> tuple[str, list[str]]:
    """Have argon2 compiled; return what is said, and what .venv's Python was asked to do."""
    dist_info = place / ".venv/lib/python3.11/site-packages/argon2_cffi_bindings-1.dist-info"
    dist_info.mkdir(parents=True)
    (dist_info / "WHEEL").write_text("Tag: cp310-abi3-manylinux_2_28_x86_64\n")
    (place / "requirements").mkdir()
    (place / "requirements/runtime.txt").write_text(
        "anyio==1 \\\n    --hash=sha256:1\n"
        "argon2-cffi-bindings==2 \\\n    --hash=sha256:2 \\\n    --hash=sha256:3\n"
        "asyncpg==4\n"
    )
    (place / ".venv/bin").mkdir()
    python = place / ".venv/bin/python"
    python.write_text("#!/bin/sh\nworkshop=.venv/argon2\n" + PIP.format(building=building))
    python.chmod(0o755)
    for tool in ("awk", "grep", "mkdir", "touch"):
        (place / "bin" / tool).symlink_to(f"/usr/bin/{tool}")
    done = run(place, f"can_compile() {{ true; }}\n{before}\ncompile_argon2\necho done", **variables)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    calls = place / "calls"
    return done.stderr, calls.read_text().splitlines() if calls.exists() else []


def test_argon2_is_compiled_in_its_locked_version(place: Path) -> None:
    said, calls = compiled(place)
    assert said == "Compiling argon2 for this processor: sign-ins take half to two thirds of the time …\n"
    assert (place / ".venv/argon2/this.txt").read_text().splitlines() == [
        "argon2-cffi-bindings==2 \\",
        "    --hash=sha256:2 \\",
        "    --hash=sha256:3",
    ]
    assert all("--require-hashes" in call for call in calls if " -r " in call)
    assert calls[-1].startswith("-m pip install")
    assert calls[-1].endswith("/.venv/argon2/argon2.whl")


@pytest.mark.parametrize("building", ["exit 1", "sleep 0; kill -ILL $$"])
def test_a_compilation_that_fails_leaves_the_ready_made_argon2(place: Path, building: str) -> None:
    said, calls = compiled(place, building=building)
    assert "and does not matter: the ready-made one serves." in said
    assert " wheel " in calls[-1]


@pytest.mark.parametrize(
    ("before", "variables"),
    [
        ("is_argon2_compiled() { true; }", {}),
        ("can_compile() { false; }", {}),
        ("", {"ARGON2_OPTIMISED": ""}),
    ],
)
def test_argon2_is_left_as_it_is(place: Path, before: str, variables: dict[str, str]) -> None:
    assert compiled(place, before=before, **variables) == ("", [])


@pytest.mark.parametrize(("compiler", "will_do"), [(None, False), ("exit 1", False), ("exit 0", True)])
def test_argon2_is_compiled_where_there_is_a_compiler_and_avx2(
    place: Path, compiler: str | None, will_do: bool
) -> None:
    (place / "bin/grep").symlink_to("/usr/bin/grep")
    put(place, "python", "")
    if compiler is not None:
        (place / "bin/cc").write_text(f"#!/bin/sh\n{compiler}\n")
        (place / "bin/cc").chmod(0o755)
    processor = Path("/proc/cpuinfo")
    has_avx2 = platform.machine() == "x86_64" and processor.exists() and " avx2 " in processor.read_text()
    answer = run(place, "VENV=.\nif can_compile; then echo yes; else echo no; fi").stdout
    assert answer == ("yes\n" if will_do and has_avx2 else "no\n")


def test_a_compiled_argon2_is_known_from_a_ready_made_one(place: Path) -> None:
    (place / "bin/grep").symlink_to("/usr/bin/grep")
    wheel = place / ".venv/lib/python3.11/site-packages/argon2_cffi_bindings-1.dist-info/WHEEL"
    wheel.parent.mkdir(parents=True)
    for tag, is_compiled in (("linux", "yes"), ("manylinux_2_28", "no"), ("musllinux_1_2", "no")):
        wheel.write_text(f"Tag: cp310-abi3-{tag}_x86_64\n")
        assert run(place, "if is_argon2_compiled; then echo yes; else echo no; fi").stdout == f"{is_compiled}\n"


def test_an_environment_is_at_home_in_one_directory_on_one_kind_of_processor(place: Path) -> None:
    for tool in ("cksum", "grep"):
        (place / "bin" / tool).symlink_to(f"/usr/bin/{tool}")
    for name in ("requirements/runtime.txt", "pyproject.toml", ".venv/bin/python"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("")
    (place / ".venv/bin/python").chmod(0o755)
    know = "set_name=runtime stamp=.venv/installed; instructions() { echo avx2; }\n"
    ask = "if is_installed; then echo yes; else echo no; fi"
    assert run(place, know + "{ locks; echo 'set runtime '; } >$stamp\n" + ask).stdout == "yes\n"
    assert run(place, know + "instructions() { echo avx512f; }\n" + ask).stdout == "no\n"
    moved = place.rename(place.with_name("moved"))
    assert run(moved, know + ask).stdout == "no\n"
