"""glewlwyd, from Debian's package, with a configuration and an SQLite database of its own.

It is one process with a thread a connection. Its access tokens are signed (ES256); a refresh brings no ID token;
passwords are hashed with PBKDF2. The database is in its process, and so in its processor time. A write-ahead log is
switched on: with SQLite's own default each statement waits for the disk several times.
"""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey

from authserver.keys.pairs import ES256
from tests.bench import load, processes
from tests.bench.load import CONNECTIONS, Load, chain, forms, http
from tests.bench.operations import KEPT_TOKENS, KINDS
from tests.bench.peers.peer import NoPeer, PeerOperation
from tests.bench.servers import Stores, running
from tests.factories import PASSWORD
from tests.servers import LOOPBACK, free_port

NAME = "glewlwyd"
NAMES = ("introspect", "refresh", "revoke", "client_credentials", "userinfo", "jwks", "password")
_SIGNED = ("refresh", "client_credentials", "password")
_CLIENT = ("bench", "a secret of the benchmark, long enough")
_ADMINISTRATOR = {"username": "admin", "password": "password"}  # of the package's empty database
_USERS = [f"user-{number}" for number in range(20)]
_SCOPE = "openid profile email"
_GRANTS = ["password", "refresh_token", "client_credentials"]
_MOST_REVOCATIONS_A_SECOND = 800


@dataclass(frozen=True)
class Glewlwyd:
    """A running glewlwyd."""

    port: int
    process: int
    stores: Stores | None = None
    _kept: list[str] = field(default_factory=list)

    def workers(self) -> Sequence[int]:
        """Return its one process."""
        return processes.family(self.process)

    def load(self, name: str, seconds: float, *, is_signed: bool) -> Load:
        """Return what is sent for an operation in so many seconds; it signs all access tokens."""
        assert is_signed == (name in _SIGNED)
        match name:
            case "introspect":
                return forms("/api/oidc/introspect", self._live(), _CLIENT)
            case "revoke":
                tokens = self._access_tokens(1 + round(seconds * _MOST_REVOCATIONS_A_SECOND))
                return forms("/api/oidc/revoke", tokens, _CLIENT, may_repeat=False)
            case "userinfo":
                return Load([http("GET", "/api/oidc/userinfo", bearer=token) for token in self._live()])
            case "client_credentials":
                form = {"grant_type": "client_credentials", "scope": _SCOPE}
                return Load([http("POST", "/api/oidc/token", form=form, basic=_CLIENT)])
            case "password":
                return Load([_password_grant(user, "profile email") for user in _USERS])
            case "refresh":
                # More than the connections use at once; each costs a hash.
                tokens = self._refresh_tokens(CONNECTIONS * 2)
                return chain("/api/oidc/token", tokens, _CLIENT)
            case _:
                return Load([http("GET", "/api/oidc/jwks")])

    def _live(self) -> list[str]:
        """Return the same live access tokens each time."""
        if not self._kept:
            self._kept.extend(self._access_tokens(KEPT_TOKENS))
        return self._kept

    def _refresh_tokens(self, count: int) -> list[str]:
        """Sign in so many times, one after another: of several at once it answers some with 500."""
        return [
            str(_granted(load.ask(self.port, _password_grant(_USERS[number % len(_USERS)], _SCOPE)))["refresh_token"])
            for number in range(count)
        ]

    def _access_tokens(self, count: int) -> list[str]:
        """Refresh one session until there are so many: quicker than passwords."""
        [token] = self._refresh_tokens(1)
        made: list[str] = []
        while len(made) < count:
            answer = _granted(load.ask(self.port, _refresh(token)))
            token = answer["refresh_token"]
            made.append(str(answer["access_token"]))
        return made


@asynccontextmanager
async def glewlwyd(stores: Stores, _: int) -> AsyncIterator[list[PeerOperation]]:
    """Run it with an empty database, and describe client and users to it; NoPeer where it is not installed."""
    program = shutil.which("glewlwyd")
    if program is None:
        raise NoPeer("glewlwyd is missing (apt install glewlwyd)")
    directory = stores.directory / "glewlwyd"
    directory.mkdir()
    port = free_port()
    configuration = await asyncio.to_thread(_configure, directory, Path(program), port)
    async with running([program, "--config-file", str(configuration)], port, stores.directory) as process:
        await asyncio.to_thread(_prepare, port)
        peer = Glewlwyd(port, process)
        yield [
            PeerOperation(f"glewlwyd {name}", f"{NAME}: {KINDS[name].title}", name, peer, is_signed=name in _SIGNED)
            for name in NAMES
        ]


def _configure(directory: Path, program: Path, port: int) -> Path:
    """Make its database as its package does, and its configuration."""
    installed = program.resolve().parents[1]
    tables = installed / "share" / "dbconfig-common" / "data" / "glewlwyd" / "install" / "sqlite3"
    if not tables.exists():
        raise NoPeer("glewlwyd is there without the tables of Debian's package")
    database = directory / "glewlwyd.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(tables.read_text())
    modules = installed / "lib" / "glewlwyd"
    configuration = directory / "glewlwyd.conf"
    configuration.write_text(
        f"""port={port}
bind_address="{LOOPBACK}"
external_url="http://auth.example"
api_prefix="api"
cookie_domain="auth.example"
log_mode="console"
log_level="WARNING"
user_module_path="{modules / "user"}"
client_module_path="{modules / "client"}"
user_auth_scheme_module_path="{modules / "scheme"}"
plugin_module_path="{modules / "plugin"}"
hash_algorithm="SHA512"
database={{ type="sqlite3"; path="{database}"; }};
"""
    )
    return configuration


def _prepare(port: int) -> None:
    """Have its administrator set up scopes, users, the client, and its OpenID Connect plugin."""
    connection = HTTPConnection(LOOPBACK, port, timeout=10)
    cookie = ""

    def post(path: str, **document: Any) -> None:
        nonlocal cookie
        headers = {"Content-Type": "application/json", "Cookie": cookie}
        connection.request("POST", f"/api/{path}", json.dumps(document), headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200:
            raise RuntimeError(f"glewlwyd, {path}: {answer.status} {body}")
        cookie = cookie or str(answer.getheader("Set-Cookie")).partition(";")[0]

    with closing(connection):
        post("auth/", **_ADMINISTRATOR)
        scopes = _SCOPE.split()
        for scope in scopes[1:]:  # it has `openid`
            post("scope/", name=scope, display_name=scope, password_required=True, scheme={})
        for user in _USERS:
            post("user/?source=database", username=user, name=user, email=f"{user}@example.com", password=PASSWORD,
                 enabled=True, scope=scopes)  # fmt: skip
        name, secret = _CLIENT
        post("client/?source=database", client_id=name, name=name, client_secret=secret, confidential=True,
             enabled=True, scope=scopes, redirect_uri=["https://app.example/callback"], authorization_type=_GRANTS,
             token_endpoint_auth_method=["client_secret_basic"])  # fmt: skip
        post("mod/plugin/", module="oidc", name="oidc", display_name="oidc", enabled=True, parameters=_plugin())


def _plugin() -> dict[str, object]:
    key = ECKey.generate_key("P-256", parameters={"alg": ES256, "use": "sig", "kid": "bench"})
    return {
        "iss": "http://auth.example",
        "jwks-private": json.dumps({"keys": [key.as_dict(private=True)]}),
        "jwks-show": True,
        "default-kid": "bench",
        "subject-type": "public",
        "access-token-duration": 3600,
        "refresh-token-duration": 86_400,
        "code-duration": 600,
        "refresh-token-one-use": "always",
        "allow-non-oidc": True,
        "auth-type-password-enabled": True,
        "auth-type-client-enabled": True,
        "auth-type-refresh-enabled": True,
        "name-claim": "on-demand",
        "name-claim-scope": ["profile"],
        "email-claim": "on-demand",
        "email-claim-scope": ["email"],
        "introspection-revocation-allowed": True,
        "introspection-revocation-allow-target-client": True,
    }


def _password_grant(user: str, scope: str) -> bytes:
    form = {"grant_type": "password", "username": user, "password": PASSWORD, "scope": scope}
    return http("POST", "/api/oidc/token", form=form, basic=_CLIENT)


def _refresh(token: str) -> bytes:
    form = {"refresh_token": token, "grant_type": "refresh_token"}
    return http("POST", "/api/oidc/token", form=form, basic=_CLIENT)


def _granted(answer: tuple[int, Any]) -> dict[str, Any]:
    status, document = answer
    if status != 200:
        raise RuntimeError(f"glewlwyd gave no token: {status} {document}")
    assert isinstance(document, dict)
    return document
