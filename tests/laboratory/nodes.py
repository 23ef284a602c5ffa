"""The laboratory's house: two servers, a PostgreSQL and two Redis of its own, and a proxy on every edge."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from authserver import migrations
from authserver.clients import registration
from authserver.services import Services
from authserver.settings import Settings
from tests.application import Program
from tests.factories import App
from tests.laboratory.checker import Violation
from tests.laboratory.proxy import Proxy
from tests.servers import Postgres, Valkey

ISSUER = "http://127.0.0.1"
CHEAP_HASHES: dict[str, Any] = {"argon2_memory_kib": 8, "argon2_time_cost": 1}
"""The load is not to be hashing."""
PATIENCE_SECONDS = 5.0
"""Of the laboratory's clients: longer than any answer may take."""
RECOVERY_SECONDS = 30.0
"""Nobody waits longer for a node to recover."""


@dataclass
class Node:
    """One server, its edges, and the client that speaks to it."""

    name: str
    program: Program
    to_postgres: Proxy
    to_redis: Proxy
    http: httpx.AsyncClient

    def stop(self) -> None:
        """Have it do nothing, with all its connections open."""
        self.program.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a stop."""
        self.program.process.send_signal(signal.SIGCONT)

    async def is_well(self) -> bool:
        """Tell whether it says so itself: ready with nothing missing, and the copy in Redis trusted."""
        try:
            ready, metrics = await asyncio.gather(self.http.get("/health/ready"), self.http.get("/metrics"))
        except httpx.TransportError:
            return False
        return bool(ready.json()["status"] == "ok") and "\nauthserver_denylist_trusted 1.0" in metrics.text


@dataclass
class Laboratory:
    """All of it. A fault breaks parts of it, and mends them."""

    directory: Path
    postgres: Postgres
    redis: Valkey
    spare: Valkey
    """A second Redis, for failovers."""
    app: App
    nodes: list[Node] = field(default_factory=list)
    found: list[Violation] = field(default_factory=list)
    """By those who ask and judge in one."""

    @property
    def a(self) -> Node:
        """The first node."""
        return self.nodes[0]

    @property
    def b(self) -> Node:
        """The second node; the first one if it is alone."""
        return self.nodes[-1]

    def edge(self, node: str, store: str) -> Proxy:
        """Return the edge between a node, by letter, and `postgres` or `redis`."""
        of_node = next(one for one in self.nodes if one.name == node)
        return of_node.to_postgres if store == "postgres" else of_node.to_redis

    def edges(self, store: str) -> list[Proxy]:
        """Return every node's edge to `postgres` or `redis`."""
        return [self.edge(node.name, store) for node in self.nodes]

    @asynccontextmanager
    async def admin(self, server: Valkey | None = None, database: int = 0) -> AsyncIterator[Redis]:
        """Speak to a Redis past all proxies."""
        async with Redis.from_url((server or self.redis).url(database), decode_responses=True) as redis:
            yield redis

    async def recovered(self) -> float | None:
        """Wait until all nodes are well by themselves; return the seconds, None if it takes too long."""
        began = monotonic()
        while not all(await asyncio.gather(*(node.is_well() for node in self.nodes))):
            if monotonic() > began + RECOVERY_SECONDS:
                return None
            await asyncio.sleep(0.05)
        return monotonic() - began


@asynccontextmanager
async def laboratory(directory: Path, postgres: Postgres | None = None) -> AsyncIterator[Laboratory]:
    """Start the stores, migrate, and register a client; `nodes` adds the servers."""
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(postgres or Postgres())
        # A replica need not wait for others that may want the same.
        redis, spare = (stack.enter_context(Valkey(repl_diskless_sync_delay="0")) for _ in range(2))
        settings = Settings(_env_file=None, database_url=postgres.url(), **CHEAP_HASHES)
        await asyncio.to_thread(migrations.upgrade, settings)
        await _keep_what_is_committed(settings)
        async with Services.open(settings) as services, services.db.write() as tx:
            new = registration.NewClient("laboratory", grants=["password", "refresh_token"], scopes=["openid"])
            client, secret = registration.create(tx, services.clients, new)
        yield Laboratory(directory, postgres, redis, spare, App(client.id, secret))


@asynccontextmanager
async def serving(
    lab: Laboratory,
    names: str = "AB",
    *,
    launcher: Sequence[str] = ("-m", "authserver"),
    more_for_a: Mapping[str, str] | None = None,
    is_proxied: bool = True,
    **changes: Any,
) -> AsyncIterator[Laboratory]:
    """Run a server for each letter on the laboratory's stores.

    `more_for_a` is added to the environment of the first one. Not `is_proxied`: the proxies, which cost time, are there
    and not used.
    """
    nodes: list[Node] = []
    async with AsyncExitStack() as stack:
        for name in names:
            to_postgres = await stack.enter_async_context(Proxy(lab.postgres.port))
            to_redis = await stack.enter_async_context(Proxy(lab.redis.port))
            ports = (to_postgres.port, to_redis.port) if is_proxied else (lab.postgres.port, lab.redis.port)
            database_url = make_url(lab.postgres.url()).set(port=ports[0])
            settings = {
                "issuer": ISSUER,
                "database_url": database_url.render_as_string(hide_password=False),
                "redis_url": f"redis://127.0.0.1:{ports[1]}/0",
                "throttle_enabled": False,
                **CHEAP_HASHES,
                **changes,
            }
            program = Program(lab.directory, settings, launcher=launcher, more=more_for_a if name == names[0] else None)
            stack.callback(program.kill)
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
            http = httpx.AsyncClient(base_url=program.url, timeout=PATIENCE_SECONDS, limits=limits)
            nodes.append(Node(name, program, to_postgres, to_redis, await stack.enter_async_context(http)))
        for node in nodes:
            await node.program.ready()
        served = replace(lab, nodes=nodes)
        if await served.recovered() is None:
            raise RuntimeError("the nodes do not get well")
        yield served


async def _keep_what_is_committed(settings: Settings) -> None:
    """Have commits wait for the journal, which tests/servers.py has switched off: PostgreSQL is going to be killed."""
    engine = create_async_engine(settings.database_url.get_secret_value(), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("ALTER DATABASE postgres SET synchronous_commit = on"))
    await engine.dispose()
