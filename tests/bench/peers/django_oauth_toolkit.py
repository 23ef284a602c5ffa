"""Django OAuth Toolkit (django/) under gunicorn, on the same PostgreSQL.

Its workers are gunicorn's `gthread`: `sync` ones, the default, close a connection after each answer. Each of the four
threads keeps its connection to PostgreSQL.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.bench import processes
from tests.bench.load import CONNECTIONS, Load, chain, forms, http
from tests.bench.operations import KEPT_TOKENS, KINDS
from tests.bench.peers.peer import NoPeer, PeerOperation
from tests.bench.population import USERS
from tests.bench.servers import Stores, running
from tests.factories import PASSWORD
from tests.servers import LOOPBACK, free_port

NAME = "Django OAuth Toolkit"
NAMES = ("introspect", "refresh", "refresh-openid", "revoke", "client_credentials", "userinfo", "jwks", "password")
_SOURCES = Path(__file__).with_name("django")
_CLIENT = ("bench", "a secret of the benchmark, long enough")
_MACHINE = ("bench-machine", _CLIENT[1])
_USERS = [f"user-{number}" for number in range(USERS)]
_DATABASE = "django"
_THREADS = 4
_MOST_REVOCATIONS_A_SECOND = 2000
_INSTALL_SECONDS = 300


@dataclass(frozen=True)
class DjangoOAuthToolkit:
    """A running gunicorn."""

    directory: Path
    stores: Stores
    port: int
    supervisor: int

    def workers(self) -> Sequence[int]:
        """Return gunicorn's workers; it itself sleeps."""
        return processes.family(self.supervisor)[1:]

    def seeded(self, kind: str, count: int) -> list[str]:
        """Make so many tokens with its own models: `access`, `refresh`, `openid` (with ID token)."""
        tokens: list[str] = json.loads(_run(self.directory, "seed.py", kind, str(count)))
        return tokens

    def load(self, name: str, seconds: float, *, is_signed: bool) -> Load:
        """Return what is sent for an operation in so many seconds; it does not sign access tokens."""
        assert not is_signed
        match name:
            case "introspect":
                return forms("/o/introspect/", self.seeded("access", KEPT_TOKENS), _CLIENT)
            case "revoke":
                tokens = self.seeded("access", 1 + round(seconds * _MOST_REVOCATIONS_A_SECOND))
                return forms("/o/revoke_token/", tokens, _CLIENT, may_repeat=False)
            case "userinfo":
                tokens = self.seeded("access", KEPT_TOKENS)
                return Load([http("GET", "/o/userinfo/", bearer=token) for token in tokens])
            case "client_credentials":
                return Load([http("POST", "/o/token/", form={"grant_type": "client_credentials"}, basic=_MACHINE)])
            case "password":
                form = {"grant_type": "password", "password": PASSWORD}
                return Load([http("POST", "/o/token/", form=form | {"username": user}, basic=_CLIENT)
                             for user in _USERS])  # fmt: skip
            case "refresh" | "refresh-openid":
                tokens = self.seeded("openid" if name == "refresh-openid" else "refresh", CONNECTIONS * 8)
                return chain("/o/token/", tokens, _CLIENT)
            case _:
                return Load([http("GET", "/o/.well-known/jwks.json")])


@asynccontextmanager
async def django_oauth_toolkit(stores: Stores, count: int) -> AsyncIterator[list[PeerOperation]]:
    """Install it with its locked packages, run it with so many workers; NoPeer where they cannot be had."""
    directory = stores.directory / "django-oauth-toolkit"
    await asyncio.to_thread(_install, directory)
    await stores.postgres.new_database(_DATABASE)
    await asyncio.to_thread(_prepare, directory, stores)
    port = free_port()
    command = [str(directory / ".venv" / "bin" / "gunicorn"), "wsgi:application", "--chdir", str(directory),
               "--bind", f"{LOOPBACK}:{port}", "--workers", str(count), "--worker-class", "gthread",
               "--threads", str(_THREADS), "--keep-alive", "60", "--no-control-socket",
               "--log-level", "warning"]  # fmt: skip
    async with running(command, port, stores.directory) as supervisor:
        peer = DjangoOAuthToolkit(directory, stores, port, supervisor)
        yield [PeerOperation(f"django {name}", f"{NAME}: {KINDS[name].title}", name, peer) for name in NAMES]


def _install(directory: Path) -> None:
    shutil.copytree(_SOURCES, directory, ignore=shutil.ignore_patterns("__pycache__"))
    for command in (
        [sys.executable, "-m", "venv", "--without-pip", ".venv"],
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            ".venv/bin/python",
            "install",
            "--quiet",
            "--require-hashes",
            "--requirement",
            "requirements.txt",
        ],
    ):
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
        if done.returncode != 0:
            raise NoPeer(f"{NAME} cannot be installed: {done.stderr[-2000:]}")


def _prepare(directory: Path, stores: Stores) -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    given = {
        "database": {
            "NAME": _DATABASE,
            "USER": "postgres",
            "PASSWORD": stores.postgres._password,
            "HOST": LOOPBACK,
            "PORT": stores.postgres.port,
        },
        "key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    }
    (directory / "bench.json").write_text(json.dumps(given))
    people = {
        "clients": {"password": _CLIENT, "client-credentials": _MACHINE},
        "users": _USERS,
        "password": PASSWORD,
    }
    _run(directory, "seed.py", "prepare", given=json.dumps(people))


def _run(directory: Path, *arguments: str, given: str = "") -> str:
    done = subprocess.run(
        [directory / ".venv" / "bin" / "python", *arguments],
        cwd=directory, input=given, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout
