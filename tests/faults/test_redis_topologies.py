"""One Redis, one with sentinels, a cluster: each is used, and none of them makes an answer false when it fails.

Two nodes on one PostgreSQL are asked about live and revoked tokens all the time, and revoke more of them, while masters
die, slots move and replicas are promoted.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from authserver import patience, throttle
from authserver.cli import doctor
from authserver.clients import registration
from authserver.errors import TooManyAttempts
from authserver.redis_master import TAG
from authserver.services import Services
from authserver.settings import Settings
from authserver.tokens import copy
from tests.application import ISSUER, client_of, running
from tests.factories import PASSWORD, App, basic
from tests.faults import test_stores_down
from tests.servers import LOOPBACK, Valkey, free_port
from tests.stores import Stores
from tests.topologies import (
    REDIS_PASSWORD,
    SERVICE,
    WRITTEN_PASSWORD,
    Certificates,
    Cluster,
    Sentinel,
    Watched,
    hosts,
    tell,
    wait_until,
)

pytestmark = pytest.mark.timeout(120)
eventually = partial(test_stores_down.eventually, seconds=40)


@dataclass
class Nodes:
    """Two nodes on one database and one Redis, whichever kind that is."""

    apps: list[FastAPI]
    clients: list[httpx.AsyncClient]
    app: App
    live: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    asked: int = 0

    @property
    def services(self) -> Services:
        services: Services = self.apps[0].state.services
        return services

    async def sign_in(self) -> str:
        data = {"grant_type": "password", "username": "alice", "password": PASSWORD}
        response = await self.clients[0].post("/token", data=data, auth=basic(self.app))
        assert response.status_code == 200, response.text
        return str(response.json()["access_token"])

    async def revoke(self, node: int) -> None:
        token = await self.sign_in()
        for _ in range(40):  # one that cannot wait until all nodes know is a 503, to be repeated
            response = await self.clients[node].post("/revoke", data={"token": token}, auth=basic(self.app))
            if response.status_code != 503:
                break
            await asyncio.sleep(0.5)
        assert response.status_code == 200, response.text
        self.revoked.append(token)

    async def is_active(self, node: int, token: str) -> bool:
        response = await self.clients[node].post("/introspect", data={"token": token}, auth=basic(self.app))
        assert response.status_code == 200, response.text
        return bool(response.json()["active"])

    async def check_all(self) -> None:
        """Ask both nodes about every token; no answer may be false."""
        for node in range(2):
            revoked = list(self.revoked)
            answers = await asyncio.gather(*(self.is_active(node, token) for token in [*revoked, *self.live]))
            assert answers == [False] * len(revoked) + [True] * len(self.live)
            self.asked += len(answers)

    async def answers_by_redis(self) -> int:
        """Ask about all and count how many of the answers came from Redis."""
        before = await self._counted()
        await self.check_all()
        return await self._counted() - before

    async def _counted(self) -> int:
        text = (await self.clients[0].get("/metrics")).text
        counted = re.search(r'^authserver_denylist_answers_total\{source="redis"\} (\S+)', text, re.MULTILINE)
        assert counted
        return int(float(counted[1]))

    async def is_trusting(self) -> bool:
        return await self.answers_by_redis() == 2 * (len(self.live) + len(self.revoked))

    async def readiness(self, node: int = 0) -> tuple[str, str]:
        answer = (await self.clients[node].get("/health/ready")).json()
        return answer["status"], answer["checks"]["redis"]["status"]

    async def is_well(self) -> bool:
        return [await self.readiness(node) for node in range(2)] == [("ok", "ok")] * 2

    @asynccontextmanager
    async def under_watch(self) -> AsyncIterator[None]:
        """Go on asking and revoking around the block."""
        is_over = asyncio.Event()

        async def watch() -> None:
            while not is_over.is_set():
                await self.check_all()
                await self.revoke(len(self.revoked) % 2)
                await asyncio.sleep(0.1)  # the servers in this process are to come to their turn as well

        watching = asyncio.create_task(watch())
        try:
            yield
            asked, revoked = self.asked, len(self.revoked)
            while not watching.done() and (self.asked == asked or len(self.revoked) == revoked):
                await asyncio.wait([watching], timeout=0.05)
        finally:
            is_over.set()
            await asyncio.wait([watching])
        watching.result()


Start = Callable[..., Awaitable[Nodes]]


@pytest.fixture
async def start(databases: Stores) -> AsyncIterator[Start]:
    """Start two nodes on a Redis: `nodes = await start("redis://…")`."""
    async with AsyncExitStack() as stack:

        async def make(redis_url: str, denylist_lease_seconds: float = 0.5) -> Nodes:
            settings = Settings(
                _env_file=None,
                issuer=ISSUER,
                database_url=await databases.new_database("postgres"),
                redis_url=redis_url,
                redis_timeout_seconds=0.15,
                denylist_lease_seconds=denylist_lease_seconds,
                argon2_memory_kib=8,
                argon2_time_cost=1,
            )
            apps = [await stack.enter_async_context(running(settings)) for _ in range(2)]
            clients = [await stack.enter_async_context(client_of(app)) for app in apps]
            services: Services = apps[0].state.services
            async with services.db.write() as tx:
                new = registration.NewClient("nodes", grants=["password", "refresh_token"])
                client, secret = registration.create(tx, services.clients, new)
            body = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}
            assert (await clients[0].post("/register", json=body)).status_code == 201
            nodes = Nodes(apps, clients, App(client.id, secret))
            nodes.live = [await nodes.sign_in() for _ in range(3)]
            await nodes.revoke(0)
            await nodes.revoke(1)
            return nodes

        yield make


@contextmanager
def kind_of_redis(kind: str) -> Iterator[tuple[str, Valkey]]:
    """Start a Redis of a kind; yield its URL and its master."""
    with ExitStack() as stack:
        if kind == "one":
            valkey = stack.enter_context(Valkey())
            yield valkey.url(3), valkey
            return
        house = Watched() if kind == "sentinels" else Cluster(TAG, has_replica=True)
        for server in house.servers:
            stack.enter_context(server)
        house.form()
        yield house.url, house.master


@pytest.mark.parametrize(("kind", "how"), [("one", "killed"), ("sentinels", "hung"), ("cluster", "hung")])
async def test_when_the_master_is_gone_all_is_true_and_the_next_one_is_trusted(
    start: Start, kind: str, how: str
) -> None:
    with kind_of_redis(kind) as (url, master):
        nodes = await start(url)
        await eventually(nodes.is_trusting)
        await eventually(nodes.is_well)
        await look_at_the_rest(nodes)
        async with nodes.under_watch():
            master.kill() if how == "killed" else master.hang()
            await eventually(lambda: is_untrusted(nodes))
            if kind == "one":
                await asyncio.to_thread(master.start)
            await eventually(nodes.is_well)
        await eventually(nodes.is_trusting)
        if how == "hung":
            async with nodes.under_watch():  # the old master wakes and does not know yet that it is none
                master.resume()
                await asyncio.sleep(1)
            await eventually(nodes.is_trusting)


async def is_untrusted(nodes: Nodes) -> bool:
    return await nodes.readiness() == ("degraded", "down")


async def look_at_the_rest(nodes: Nodes) -> None:
    """The throttle counts in Redis and `doctor` finds it well, with one key or many."""
    keys = [f"192.0.2.{number}" for number in range(1, 5)]
    for key in keys * 60:
        await nodes.services.throttle.count(throttle.CLIENT_SECRETS, key)
    other: Services = nodes.apps[1].state.services
    for key in keys:
        with pytest.raises(TooManyAttempts):  # which another node can only know from Redis
            await other.throttle.check(throttle.CLIENT_SECRETS, key)
    found = {check.name: check for check in await doctor._look(nodes.services.settings)}
    assert (found["redis"].state, found["redis"].detail[:8]) == ("ok", "Valkey 9")


@contextmanager
def replica_of(master: Valkey) -> Iterator[Valkey]:
    with Valkey(replicaof=f"{LOOPBACK} {master.port}", repl_diskless_sync_delay="0") as replica:
        wait_until(lambda: "link_status:up" in tell(replica, "INFO REPLICATION"))
        yield replica


@pytest.fixture
def nodes_of_a_cluster() -> Iterator[Cluster]:
    house = Cluster(TAG)
    with ExitStack() as stack:
        for server in house.servers:
            stack.enter_context(server)
        house.form()
        yield house


async def test_when_the_slot_moves_all_is_true_and_its_new_owner_is_trusted(
    start: Start, nodes_of_a_cluster: Cluster
) -> None:
    cluster = nodes_of_a_cluster
    nodes = await start(cluster.url)
    await eventually(nodes.is_trusting)
    async with nodes.under_watch():
        await asyncio.to_thread(cluster.begin_move)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(cluster.move_keys)  # the marker goes along, into another process
        await asyncio.sleep(0.5)
        await asyncio.to_thread(cluster.end_move)
        await eventually(nodes.is_well)
    await eventually(nodes.is_trusting)
    assert tell(cluster.other, "ZCARD", copy.KEY) > len(nodes.revoked)


async def test_when_the_owner_of_the_slot_dies_for_good_all_is_true(start: Start, nodes_of_a_cluster: Cluster) -> None:
    nodes = await start(nodes_of_a_cluster.url)
    await eventually(nodes.is_trusting)
    async with nodes.under_watch():
        nodes_of_a_cluster.master.kill()
        await eventually(lambda: is_untrusted(nodes))
        await nodes.revoke(1)
        await nodes.check_all()
        await asyncio.to_thread(nodes_of_a_cluster.master.start)  # empty, with the same slots
        await eventually(nodes.is_well)
    await eventually(nodes.is_trusting)


async def test_a_replica_is_never_believed(start: Start) -> None:
    with Valkey() as master, replica_of(master) as replica:
        nodes = await start(replica.url())
        await asyncio.sleep(0.5)
        assert await nodes.answers_by_redis() == 0
        assert await nodes.readiness() == ("degraded", "down")
        tell(replica, "REPLICAOF", "NO", "ONE")
        await eventually(nodes.is_well)
        await eventually(nodes.is_trusting)


async def test_a_master_that_becomes_a_lagging_replica_is_not_believed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "REQUEST_SECONDS", 30.0)  # as the lease is long, so is the wait for its end
    with Valkey(repl_diskless_sync_delay="0") as master, replica_of(master) as other:
        nodes = await start(master.url(), denylist_lease_seconds=10.0)  # nobody looks by himself for long
        await eventually(nodes.is_trusting)
        entries = tell(master, "ZCARD", copy.KEY)
        await asyncio.to_thread(wait_until, lambda: tell(other, "ZCARD", copy.KEY) == entries)
        tell(other, "REPLICAOF", "NO", "ONE")
        await nodes.revoke(0)
        assert await nodes.is_trusting()
        # The very process that is trusted, on the same connection, gets a copy with the marker and without the newest.
        tell(master, "REPLICAOF", LOOPBACK, other.port)
        while "link_status:up" not in tell(master, "INFO REPLICATION"):
            await nodes.check_all()
        assert tell(master, "ZCARD", copy.KEY) == entries
        for _ in range(5):
            await nodes.check_all()


async def test_sentinels_that_hang_or_lie_do_not_hide_the_master(start: Start) -> None:
    with Valkey() as valkey, Valkey() as wrong, ExitStack() as stack:
        sentinels = [stack.enter_context(Sentinel(valkey.port, 2)) for _ in range(3)]
        hung, liar = stack.enter_context(Sentinel(valkey.port, 2)), stack.enter_context(Sentinel(wrong.port, 2))
        hung.hang()
        url = f"redis+sentinel://{hosts(liar, hung, *sentinels)}/{SERVICE}"
        nodes = await start(url)
        await eventually(nodes.is_well)
        await eventually(nodes.is_trusting)
        assert tell(wrong, "DBSIZE") == 0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def test_all_three_kinds_can_be_reached_through_tls(start: Start, certificates: Certificates) -> None:
    ca = f"ssl_ca_certs={certificates.authority}"
    fronts = [free_port() for _ in range(3)]
    house = Cluster(TAG, cluster_announce_port=str(fronts[1]))
    with Valkey() as valkey, house.master:
        tell(house.master, "CLUSTER ADDSLOTSRANGE", 0, 16383)
        with Sentinel(fronts[0], 1) as sentinel:
            async with (
                certificates.tls(fronts[0], valkey),
                certificates.tls(fronts[1], house.master),
                certificates.tls(fronts[2], sentinel),
            ):
                for url in (
                    f"rediss://{LOOPBACK}:{fronts[0]}/1?{ca}",
                    f"rediss+sentinel://{LOOPBACK}:{fronts[2]}/{SERVICE}/2?{ca}",
                    f"rediss+cluster://{LOOPBACK}:{fronts[1]}?{ca}",
                ):
                    nodes = await start(url)
                    await eventually(nodes.is_well)
                    await eventually(nodes.is_trusting)


async def test_what_redis_refuses_makes_it_degraded(
    databases: Stores, certificates: Certificates, tmp_path: Path
) -> None:
    database_url, port = await databases.new_database("postgres"), free_port()
    with Valkey(requirepass=REDIS_PASSWORD) as valkey, Sentinel(valkey.port, 1, "another") as sentinel:
        async with certificates.tls(port, valkey):
            user = f":{WRITTEN_PASSWORD}@"
            for url in (
                f"redis://:wrong@{LOOPBACK}:{valkey.port}",
                f"redis+sentinel://{user}{hosts(sentinel)}/{SERVICE}?sentinel_password=wrong",
                f"redis+sentinel://{user}{hosts(sentinel)}/another-name?sentinel_password=another",
                f"redis+cluster://{user}{LOOPBACK}:{valkey.port}",
                f"rediss://{user}{LOOPBACK}:{port}",  # signed by an authority that nobody knows
                f"rediss://{user}{LOOPBACK}:{valkey.port}?ssl_ca_certs={certificates.authority}",
                f"rediss://{user}{LOOPBACK}:{port}?ssl_ca_certs={tmp_path / 'none.pem'}",
            ):
                settings = Settings(_env_file=None, database_url=database_url, redis_url=url)
                async with running(settings) as app, client_of(app) as client:
                    answer = await client.get("/health/ready")
                    assert (answer.status_code, answer.json()["status"]) == (200, "degraded"), url
                    assert answer.json()["checks"]["redis"]["status"] == "down", url
                    # Nobody is throttled by a Redis that cannot be asked, and nobody sees its error.
                    assert (await client.post("/token", data={"grant_type": "password"})).status_code == 401, url
