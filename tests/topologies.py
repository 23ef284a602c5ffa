"""Several Valkeys together: a master with a replica and three sentinels, a cluster, and TLS before any of them."""

import asyncio
import inspect
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.connection import Connection
from redis.crc import key_slot
from redis.exceptions import RedisError
from typing_extensions import override

from tests.servers import LOOPBACK, START_SECONDS, Server, Valkey, free_port

SERVICE = "the-masters-name"
REDIS_PASSWORD = "p@ss/word?#:"
WRITTEN_PASSWORD = "p%40ss%2Fword%3F%23%3A"


def hosts(*servers: Server) -> str:
    """Write their addresses as an URL does."""
    return ",".join(f"{LOOPBACK}:{server.port}" for server in servers)


def tell(server: Server, *command: str | int, password: str | None = None) -> Any:
    """Run a command; RedisError if it is refused."""
    connection: Any = Connection(  # type: ignore[no-untyped-call]
        host=LOOPBACK, port=server.port, password=password, decode_responses=True, protocol=2
    )
    try:
        connection.send_command(*command)
        return connection.read_response()
    finally:
        connection.disconnect()


def wait_until(holds: Callable[[], Any]) -> None:
    """Wait until it holds; a refusal is a no."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if holds():
                return
        except RedisError:
            pass
        assert time.monotonic() < deadline, "did not come to pass"
        time.sleep(0.05)


class Sentinel(Valkey):
    """A sentinel; what it is told and finds out, it keeps in its configuration file."""

    def __init__(self, master_port: int, quorum: int, password: str = "", master_password: str = "") -> None:
        super().__init__()
        (self.directory / "sentinel.conf").write_text(
            f"port {self.port}\nbind {LOOPBACK}\ndir {self.directory}\n"
            f"sentinel monitor {SERVICE} {LOOPBACK} {master_port} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 2000\n"
            + (f'requirepass "{password}"\nsentinel sentinel-pass "{password}"\n' if password else "")
            + (f'sentinel auth-pass {SERVICE} "{master_password}"\n' if master_password else "")
        )

    @override
    def _arguments(self) -> list[str]:
        return [str(self.directory / "sentinel.conf"), "--sentinel"]


class Watched:
    """A master, its replica, and three sentinels; all want a password, the sentinels another one."""

    def __init__(self) -> None:
        self.master = Valkey(requirepass=REDIS_PASSWORD, masterauth=REDIS_PASSWORD)
        self.replica = Valkey(
            requirepass=REDIS_PASSWORD,
            masterauth=REDIS_PASSWORD,
            replicaof=f"{LOOPBACK} {self.master.port}",
            repl_diskless_sync_delay="0",
        )
        self.sentinels = [Sentinel(self.master.port, 2, "another", REDIS_PASSWORD) for _ in range(3)]
        self.url = (
            f"redis+sentinel://:{WRITTEN_PASSWORD}@{hosts(*self.sentinels)}/{SERVICE}/3?sentinel_password=another"
        )

    @property
    def servers(self) -> list[Valkey]:
        """All five, in the order in which they start."""
        return [self.master, self.replica, *self.sentinels]

    def form(self) -> None:
        """Wait until the sentinels know each other and the replica."""
        wait_until(
            lambda: "master_link_status:up" in str(tell(self.replica, "INFO REPLICATION", password=REDIS_PASSWORD))
        )
        for sentinel in self.sentinels:
            wait_until(lambda sentinel=sentinel: self._knows_all(sentinel))  # type: ignore[misc]

    @staticmethod
    def _knows_all(sentinel: Sentinel) -> bool:
        master = tell(sentinel, "SENTINEL MASTER", SERVICE, password="another")
        replicas = tell(sentinel, "SENTINEL REPLICAS", SERVICE, password="another")
        others = dict(zip(master[::2], master[1::2], strict=True))["num-other-sentinels"]
        flags = [dict(zip(each[::2], each[1::2], strict=True))["flags"] for each in replicas]
        return others == "2" and flags == ["slave"]


class Cluster:
    """Three masters that share the slots; the one that has a certain slot may have a replica."""

    def __init__(self, key: str, has_replica: bool = False, **options: str) -> None:
        self.slot = key_slot(key.encode())
        self.nodes = [self._node(**options) for _ in range(3)]
        self.master = self.nodes[self.slot * 3 // 16384]
        self.other = next(node for node in self.nodes if node is not self.master)
        self.replica = self._node(**options) if has_replica else None
        self.servers = [*self.nodes, *([self.replica] if self.replica else [])]
        self.url = f"redis+cluster://{hosts(*self.nodes)}"

    @staticmethod
    def _node(**options: str) -> Valkey:
        bus = str(free_port())
        return Valkey(1, cluster_enabled="yes", cluster_port=bus, cluster_node_timeout="1000",
                      repl_diskless_sync_delay="0", **options)  # fmt: skip

    def form(self) -> None:
        """Let them meet and share out the slots; wait until all know all."""
        bounds = [0, *(-(-16384 * third // 3) for third in (1, 2, 3))]
        for number, node in enumerate(self.nodes):
            tell(node, "CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        first = self.nodes[0]
        for node in self.servers[1:]:
            tell(first, "CLUSTER MEET", LOOPBACK, node.port, node._options["cluster_port"])
        for node in self.servers:
            wait_until(lambda node=node: self._knows_all(node))  # type: ignore[misc]
        if self.replica:
            tell(self.replica, "CLUSTER REPLICATE", tell(self.master, "CLUSTER MYID"))
            wait_until(lambda: "master_link_status:up" in str(tell(self.replica, "INFO REPLICATION")))  # type: ignore[arg-type]
            for node in self.nodes:
                wait_until(lambda node=node: "slave" in str(tell(node, "CLUSTER NODES")))  # type: ignore[misc]

    def _knows_all(self, node: Valkey) -> bool:
        known = str(tell(node, "CLUSTER INFO"))
        return "cluster_state:ok" in known and f"cluster_known_nodes:{len(self.servers)}" in known

    def begin_move(self) -> None:
        """Open the slot for its way to the other node."""
        tell(self.other, "CLUSTER SETSLOT", self.slot, "IMPORTING", tell(self.master, "CLUSTER MYID"))
        tell(self.master, "CLUSTER SETSLOT", self.slot, "MIGRATING", tell(self.other, "CLUSTER MYID"))

    def move_keys(self) -> None:
        """Move all keys of the slot, with what is in them."""
        while keys := tell(self.master, "CLUSTER GETKEYSINSLOT", self.slot, 100):
            tell(self.master, "MIGRATE", LOOPBACK, self.other.port, "", 0, 1000, "KEYS", *keys)

    def end_move(self) -> None:
        """Give the slot to the other node."""
        for node in (self.other, self.master, *self.nodes):
            tell(node, "CLUSTER SETSLOT", self.slot, "NODE", tell(self.other, "CLUSTER MYID"))


class Certificates:
    """A certificate authority of its own and a server's certificate for 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self.authority, self.server, self.key = (directory / name for name in ("ca.pem", "server.pem", "key.pem"))
        authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An authority of the tests")])
        server = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A server of the tests")])
        # All that Python 3.13 wants (VERIFY_X509_STRICT).
        may_sign = dict.fromkeys(inspect.signature(x509.KeyUsage).parameters, False) | {"key_cert_sign": True}
        of_authority = x509.BasicConstraints(ca=True, path_length=None), x509.KeyUsage(**may_sign)
        of_server = (x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))]),)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
        for path, subject, key, extensions in (
            (self.authority, authority, authority_key, of_authority),
            (self.server, server, server_key, of_server),
        ):
            now = datetime.now(UTC)
            builder = (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(authority)
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - timedelta(hours=1))
                .not_valid_after(now + timedelta(hours=1))
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .add_extension(identifier, critical=False)
            )
            for extension in extensions:
                builder = builder.add_extension(extension, critical=True)
            made = builder.sign(authority_key, hashes.SHA256())
            path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            server_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    @asynccontextmanager
    async def tls(self, port: int, server: Server) -> AsyncIterator[None]:
        """Speak TLS at a port for a server that cannot (the wheel's Valkey is built without it)."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.server, self.key)

        async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            plain_reader, plain_writer = await asyncio.open_connection(LOOPBACK, server.port)
            ways = [asyncio.create_task(copy(reader, plain_writer)), asyncio.create_task(copy(plain_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            plain_writer.close()
            writer.close()

        front = await asyncio.start_server(serve, LOOPBACK, port, ssl=context)
        try:
            yield
        finally:
            front.close()
