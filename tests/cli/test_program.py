"""The whole program as a process of its own, through pipes and at a terminal."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import authserver
from tests.application import environment
from tests.factories import PASSWORD
from tests.stores import Backend, Stores

pytestmark = pytest.mark.slow
Start = Callable[..., subprocess.CompletedProcess[str]]
SECONDS = 60.0
NAMES = ("--username", "ada", "--email", "ada@example.com")
ONCE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")


@pytest.fixture
async def own_settings(databases: Stores, backend: Backend) -> dict[str, str]:
    """Return the environment of a program with a database of its own."""
    settings = {"DATABASE_URL": await databases.new_database(backend), "REDIS_URL": databases.redis_url(backend)}
    return environment({f"AUTHSERVER_{name}": value for name, value in settings.items()})


@pytest.fixture
def start(own_settings: dict[str, str], tmp_path: Path) -> Start:
    """Run the program to its end: `start("users", "list", stdin="")`."""

    def start(*arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "authserver", *arguments],
            input=stdin, env=own_settings | more, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip

    return start


@ONCE
def test_the_first_day_of_an_installation(start: Start) -> None:
    def run(*arguments: str, stdin: str = "") -> Any:
        done = start(*arguments, "--json", stdin=stdin)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        return json.loads(done.stdout)

    assert run("db", "upgrade")["revision"]
    assert run("users", "create", *NAMES, "--password-stdin", stdin=PASSWORD)["username"] == "ada"
    assert run("clients", "create", "--name", "App", "--grant", "password")["client_secret"]
    assert {key["state"] for key in run("keys", "rotate")} == {"announced"}
    assert run("doctor")["ok"] is True


@ONCE
def test_exit_statuses(start: Start) -> None:
    done = start("--version")
    assert (done.returncode, done.stdout) == (0, f"authserver {authserver.__version__}\n")
    refused = start("users", "show", "nobody", "--json")
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", "There is no user nobody.\n")
    unusable = start("users", "list", AUTHSERVER_NONSENSE="1")
    assert (unusable.returncode, unusable.stderr) == (1, "unknown setting: AUTHSERVER_NONSENSE\n")
    port = start("serve", "--port", "nonsense")
    assert (port.returncode, port.stdout) == (2, "")


@ONCE
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_no_character_breaks_the_output(start: Start, encoding: str) -> None:
    made = start("clients", "create", "--name", "Łódź", "--json", PYTHONIOENCODING=encoding)
    assert json.loads(made.stdout)["name"] == "Łódź"
    done = start("clients", "list", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("Łódź" if encoding == "utf-8" else "\\u0141\\xf3d\\u017a") in done.stdout


@ONCE
def test_help_imports_nothing_heavy(start: Start, own_settings: dict[str, str], tmp_path: Path) -> None:
    """What makes `--help` quick, said in a way that does not depend on the machine."""
    code = "import sys; from authserver.cli.program import app; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=own_settings, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "typer" in loaded
    assert not loaded & {"alembic", "argon2", "cryptography", "fastapi", "joserfc", "pydantic", "redis", "sqlalchemy"}


class Terminal:
    """A program at a terminal: `expect` what it prints, `say` what a person types."""

    def __init__(self, arguments: list[str], environment: dict[str, str], directory: Path) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "authserver", *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment | {"COLUMNS": "200", "TERM": "xterm"},
            cwd=directory, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.screen = ""

    def say(self, line: str) -> None:
        os.write(self._ours, f"{line}\n".encode())

    def expect(self, text: str) -> None:
        """Wait for a text after what has been expected before."""
        deadline = time.monotonic() + SECONDS
        while text not in self.screen:
            assert time.monotonic() < deadline, self.screen
            self._read()
        self.screen = self.screen.partition(text)[2]

    def end(self) -> int:
        """Read the rest and return the exit status."""
        deadline = time.monotonic() + SECONDS
        while self._read() or self.process.poll() is None:
            assert time.monotonic() < deadline, self.screen
        return self.process.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _read(self) -> bool:
        if not select.select([self._ours], [], [], 0.1)[0]:
            return False
        try:
            data = os.read(self._ours, 4096)
        except OSError:  # Linux: nobody has the other end open
            return False
        self.screen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode())
        return bool(data)


@pytest.fixture
def terminal(own_settings: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Terminal]:
    """Start the program at a terminal."""

    def start(*arguments: str) -> Terminal:
        terminal = Terminal([*arguments], own_settings, tmp_path)
        request.addfinalizer(terminal.close)
        return terminal

    return start


@ONCE
def test_at_a_terminal_a_password_is_typed_twice_and_not_shown(terminal: Callable[..., Terminal], start: Start) -> None:
    screen = terminal("users", "create", *NAMES)
    screen.expect("Password: ")
    screen.say(PASSWORD)
    screen.expect("Repeat for confirmation: ")
    screen.say(PASSWORD)
    assert screen.end() == 0
    assert "User ada has been created" in screen.screen
    assert PASSWORD not in screen.screen
    assert start("users", "show", "ada").returncode == 0


@ONCE
def test_at_a_terminal_deleting_asks_first(terminal: Callable[..., Terminal], start: Start) -> None:
    start("users", "create", *NAMES, "--password-stdin", stdin=PASSWORD)
    asked = terminal("users", "delete", "ada")
    asked.expect("Delete user ada (ada@example.com) for good? [y/N]: ")
    asked.say("n")
    assert asked.end() == 1
    listed = terminal("users", "list")
    assert listed.end() == 0
    assert re.search(r"ada +ada@example.com +yes +no", listed.screen)
    shown = terminal("users", "show", "ada")
    assert shown.end() == 0
    assert re.search(r"username +ada", shown.screen)
    asked = terminal("users", "delete", "ada")
    asked.expect("[y/N]: ")
    asked.say("y")
    assert asked.end() == 0
    assert "User ada is deleted; 0 sessions ended." in asked.screen


@ONCE
def test_at_a_terminal_a_token_is_pasted_and_not_shown(terminal: Callable[..., Terminal]) -> None:
    screen = terminal("token", "explain")
    screen.expect("Token: ")
    screen.say("rubbish.that.nobody-sees")
    assert screen.end() == 0
    assert "Something unknown" in screen.screen
    assert "nobody-sees" not in screen.screen
