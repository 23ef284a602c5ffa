"""node-oidc-provider (node/server.mjs). It has no password grant, and what it revokes is gone from Redis, no more."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import processes
from tests.bench.load import CONNECTIONS, Load, chain, forms, http
from tests.bench.operations import KEPT_TOKENS, KINDS
from tests.bench.peers.peer import NoPeer, PeerOperation
from tests.bench.servers import Stores, running
from tests.servers import free_port

NAME = "node-oidc-provider"
NAMES = ("introspect", "refresh", "refresh-openid", "revoke", "client_credentials", "userinfo", "jwks")
_SIGNED = ("refresh", "client_credentials")
"""These are also measured with a signed access token for an answer, as all of ours are."""
_RESOURCE = "https://api.example"
_SOURCES = Path(__file__).with_name("node")
_CLIENT = ("bench", "a secret of the benchmark, long enough")
_REDIS_DATABASE = 40
_MOST_REVOCATIONS_A_SECOND = 10_000
_INSTALL_SECONDS = 300


@dataclass(frozen=True)
class NodeOidcProvider:
    """A running node-oidc-provider."""

    directory: Path
    stores: Stores
    port: int
    primary: int

    def workers(self) -> Sequence[int]:
        """Return its forks; the primary sleeps."""
        return processes.family(self.primary)[1:]

    def seeded(self, kind: str, count: int) -> list[str]:
        """Make so many tokens with its own models: `access`, `refresh`, `openid` (with ID token), `signed`."""
        redis = self.stores.valkey.url(_REDIS_DATABASE)
        command = [_program("node"), "server.mjs", "seed", redis, kind, str(count)]
        done = subprocess.run(command, cwd=self.directory, check=True, capture_output=True, text=True)
        tokens: list[str] = json.loads(done.stdout)
        return tokens

    def load(self, name: str, seconds: float, *, is_signed: bool) -> Load:
        """Return what is sent for an operation in so many seconds."""
        resource = {"resource": _RESOURCE} if is_signed else {}
        match name:
            case "introspect":
                return forms("/token/introspection", self.seeded("access", KEPT_TOKENS), _CLIENT)
            case "revoke":
                tokens = self.seeded("access", 1 + round(seconds * _MOST_REVOCATIONS_A_SECOND))
                return forms("/token/revocation", tokens, _CLIENT, may_repeat=False)
            case "userinfo":
                return Load([http("GET", "/me", bearer=token) for token in self.seeded("access", KEPT_TOKENS)])
            case "client_credentials":
                form = {"grant_type": "client_credentials", **resource}
                return Load([http("POST", "/token", form=form, basic=_CLIENT)])
            case "refresh" | "refresh-openid":
                kind = "openid" if name == "refresh-openid" else "signed" if is_signed else "refresh"
                tokens = self.seeded(kind, CONNECTIONS * 8)
                return chain("/token", tokens, _CLIENT, **resource)
            case _:
                return Load([http("GET", "/jwks")])


@asynccontextmanager
async def node_oidc_provider(stores: Stores, count: int) -> AsyncIterator[list[PeerOperation]]:
    """Install it with its locked packages, run it with so many processes; NoPeer where there is no Node.js."""
    directory = stores.directory / "node-oidc-provider"
    await asyncio.to_thread(_install, directory)
    port = free_port()
    command = [_program("node"), str(directory / "server.mjs"), "serve", str(port), stores.valkey.url(_REDIS_DATABASE),
               str(count)]  # fmt: skip
    async with running(command, port, stores.directory) as primary:
        peer = NodeOidcProvider(directory, stores, port, primary)
        theirs = []
        for name in NAMES:
            title = f"{NAME}: {KINDS[name].title}"
            theirs.append(PeerOperation(f"node {name}", title, name, peer))
            if name in _SIGNED:
                signed = f"{title}, signed"
                theirs.append(PeerOperation(f"node {name} signed", signed, name, peer, is_signed=True))
        yield theirs


def _install(directory: Path) -> None:
    shutil.copytree(_SOURCES, directory, ignore=shutil.ignore_patterns("node_modules"))
    command = [
        _program("npm"),
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-progress",
        "--prefer-offline",
    ]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise NoPeer(f"npm ci failed: {done.stderr[-2000:]}")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NoPeer(f"{name} is missing (Node.js 20 or later)")
    return found
