"""PgBouncer in transaction mode between the server and PostgreSQL: a connection belongs to nobody between two."""

import shutil
import socket
import subprocess

from sqlalchemy.engine import make_url

from tests.servers import LOOPBACK, Server, _user

_CONFIGURATION = """
[databases]
* = host={host} port={port} user={user} password={password}

[pgbouncer]
listen_addr = {host}
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 1000
default_pool_size = {pool_size}
"""


class PgBouncer(Server):
    """The pooler, as Debian ships it and with its own defaults, before the PostgreSQL of a SQLAlchemy URL."""

    def __init__(self, database_url: str, *, pool_size: int = 20) -> None:
        super().__init__()
        self._behind = make_url(database_url)
        self._pool_size = pool_size

    @staticmethod
    def program() -> str | None:
        """Return where it is installed; Debian's place for it is in root's path only."""
        return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

    def url(self, database: str) -> str:
        """Return SQLAlchemy's URL of a database behind it."""
        behind = self._behind.set(host=LOOPBACK, port=self.port, database=database)
        return behind.render_as_string(hide_password=False)

    def _launch(self, log: int) -> subprocess.Popen[bytes]:
        program, behind = self.program(), self._behind
        assert program
        path = self.directory / "pgbouncer.ini"
        configuration = _CONFIGURATION.format(
            host=LOOPBACK, port=behind.port, user=behind.username, password=behind.password,
            own_port=self.port, pool_size=self._pool_size,
        )  # fmt: skip
        path.write_text(configuration)
        user = _user()
        if user:
            shutil.chown(self.directory, user)
            shutil.chown(path, user)
        return subprocess.Popen(
            [program, path], stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=user, start_new_session=True
        )

    def _answers(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=1).close()
        except OSError:
            return False
        return True
