"""Clients that mean no good, and what is left of honest traffic meanwhile: `python -m tests.faults.hostile [SECONDS]`.

Each attack runs in a process of its own. Honest traffic is measured without it, with it, without, with: half the time
each. Prints a table; exits with 1 if an answer was wrong or lost, something leaked, or a breaker opened.
"""

import asyncio
import multiprocessing
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import psutil
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families as parse
from redis.asyncio import Redis

from authserver import migrations
from authserver.settings import Settings
from tests.faults.house import House, Node, connected, eventually, is_trusted, new_house_at, running, tokens_of
from tests.faults.traffic import Traffic, introspection
from tests.servers import LOOPBACK, Postgres, Valkey

VISITORS = 8
_DRIPS = {
    "head": b"GET / HTTP/1.1\r\nHost: x\r\nX-Drip: ",
    "body": b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 10000\r\n\r\n",
}
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that has a close say RST, with what was sent perhaps not read."""
_spawning = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Attack:
    """So many connections of each kind at a time, and so many that are reset each second."""

    name: str
    dripping: int = 0
    idle: int = 0
    resets: int = 0


ATTACKS = [
    Attack("1,000 slow-drip connections", dripping=1000),
    Attack("5,000 idle connections", idle=5000),
    Attack("100 resets in mid-request a second", resets=100),
]


# ── the attack, in its own process ──────────────────────────────────────────────────────────────────────────────────


async def _drip(port: int, beginning: bytes) -> None:
    """Send a request a byte a second; again and again, for the server hangs up."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(beginning)
                while not reader.at_eof():
                    writer.write(b"a")
                    with suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(1024), 1)
            finally:
                writer.transport.abort()
        await asyncio.sleep(1)


async def _idle(port: int) -> None:
    """Send nothing at all; again and again, for the server hangs up."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            await reader.read()
            writer.transport.abort()
        await asyncio.sleep(1)


async def _reset(port: int, each_second: int, request: bytes) -> None:
    """Send half a request, or all of it, and reset the connection before the answer."""
    parts = [request[: len(request) // 3], request[:-5], request]
    for number in range(10**9):
        with suppress(OSError), socket.create_connection((LOOPBACK, port), 5) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.sendall(parts[number % len(parts)])
            await asyncio.sleep(1 / each_second)


def _attack(attack: Attack, port: int, request: bytes, is_under_way: Event) -> None:
    async def run() -> None:
        dripping = [_drip(port, list(_DRIPS.values())[number % 2]) for number in range(attack.dripping)]
        tasks = []
        for connection in [*dripping, *[_idle(port) for _ in range(attack.idle)]]:
            tasks.append(asyncio.create_task(connection))
            await asyncio.sleep(0.001)
        if attack.resets:
            tasks.append(asyncio.create_task(_reset(port, attack.resets, request)))
        await asyncio.sleep(0.5)
        is_under_way.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())


@contextmanager
def under(attack: Attack, port: int, request: bytes) -> Iterator[None]:
    """Attack around the block, which begins when all connections have been made."""
    is_under_way = _spawning.Event()
    process = _spawning.Process(target=_attack, args=(attack, port, request, is_under_way))
    process.start()
    try:
        assert is_under_way.wait(60)
        yield
    finally:
        process.kill()
        process.join()


# ── the measurement ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Holdings:
    """What a server holds of what there is not much of."""

    files: int
    database: int
    redis: int
    in_use: float
    """Database connections in the hands of requests."""
    breaker_openings: float


@dataclass
class Rate:
    """Honest traffic: how much in which time, and what it cost the server, with whatever else went on."""

    answers: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Answers a second, on this machine at this time."""
        return self.answers / self.seconds

    @property
    def milliseconds(self) -> float:
        """Processor time for an answer: what else runs on the machine hardly matters."""
        return self.processor_seconds / self.answers * 1000


@dataclass(frozen=True)
class Outcome:
    """What honest traffic saw of an attack, and what it left behind."""

    attack: Attack
    quiet: "Rate"
    attacked: "Rate"
    wrong: list[bytes]
    lost: list[str]
    before: Holdings
    peak_files: int
    after: Holdings

    @property
    def ratio(self) -> float:
        """What was left of the throughput."""
        return self.attacked.per_second / self.quiet.per_second

    def faults(self, pool_size: int) -> list[str]:
        """Say what should not have happened, whatever the throughput."""
        found = {
            "wrong answers": bool(self.wrong),
            "lost answers": bool(self.lost),
            "a breaker opened": self.after.breaker_openings > 0,
            "database connections leaked": self.after.database > pool_size or self.after.in_use > 0,
            "Redis connections leaked": self.after.redis > self.before.redis + VISITORS,
            "files leaked": self.after.files > self.before.files + pool_size + 2 * VISITORS,
        }
        return [fault for fault, is_so in found.items() if is_so]


async def holdings(house: House, node: Node) -> Holdings:
    """Look at the server from outside, and at what PostgreSQL and Redis say of it."""
    process = psutil.Process(node.program.process.pid)
    async with connected(house) as connection:
        ours = "application_name = 'authserver' AND datname = current_database()"
        in_database = await connection.scalar(sa.text(f"SELECT count(*) FROM pg_stat_activity WHERE {ours}"))
    async with Redis.from_url(str(house.settings["redis_url"])) as redis:
        in_redis = len(await redis.client_list()) - 1
    text = (await node.http.get("/metrics")).text
    samples = [sample for family in parse(text) for sample in family.samples]
    in_use, openings = (
        sum(sample.value for sample in samples if sample.name == f"authserver_{name}")
        for name in ("database_connections_in_use", "breaker_openings_total")
    )
    return Holdings(process.num_fds(), int(in_database or 0), in_redis, in_use, openings)


async def measure(house: House, node: Node, attack: Attack, seconds: float) -> Outcome:
    """Have honest traffic for `seconds`, half of them under attack: without, with, without, with."""
    tokens = [await tokens_of(node) for _ in range(2)]
    live, dead = (each["access_token"] for each in tokens)
    assert (await node.revoke(dead)).status_code == 200
    questions = [introspection(node.app, live, is_active=True), introspection(node.app, dead, is_active=False)]
    process = psutil.Process(node.program.process.pid)

    async def asked(traffic: Traffic, rate: Rate) -> None:
        begun, used, answered = time.monotonic(), sum(process.cpu_times()[:2]), traffic.answered
        traffic.over.clear()
        visitors = [asyncio.create_task(traffic.visit()) for _ in range(VISITORS)]
        await asyncio.sleep(seconds / 4)
        traffic.over.set()
        await asyncio.gather(*visitors)
        rate.seconds += time.monotonic() - begun
        rate.processor_seconds += sum(process.cpu_times()[:2]) - used
        rate.answers += traffic.answered - answered

    traffic, quiet, attacked = Traffic(node.program.port, questions), Rate(), Rate()
    before = after = await holdings(house, node)
    peak = 0
    for _ in range(2):
        await asked(traffic, quiet)
        with under(attack, node.program.port, questions[0].request):
            await asked(traffic, attacked)
            peak = max(peak, process.num_fds())

    async def is_calm() -> bool:
        nonlocal after
        after = await holdings(house, node)
        return after.files <= before.files + VISITORS and after.in_use == 0

    with suppress(TimeoutError):
        await eventually(is_calm, 40)
    return Outcome(attack, quiet, attacked, traffic.wrong, traffic.lost, before, peak, after)


async def report(seconds: float, show: Callable[[str], object]) -> int:
    """Run all attacks on a server with stores of its own; return how many faults there were."""
    faults = 0
    with Postgres() as postgres, Valkey() as valkey, tempfile.TemporaryDirectory() as directory:
        await asyncio.to_thread(migrations.upgrade, Settings(_env_file=None, database_url=postgres.url()))
        house = await new_house_at(postgres.url(), valkey.url(), Path(directory))
        async with running(house) as node:
            await eventually(lambda: is_trusted(node))
            show("attack | answers/s without, with | kept | ms of processor each | wrong, lost | files | faults")
            for attack in ATTACKS:
                seen = await measure(house, node, attack, seconds)
                found = seen.faults(10)
                faults += len(found)
                show(
                    f"{attack.name} | {seen.quiet.per_second:.0f}, {seen.attacked.per_second:.0f} | {seen.ratio:.0%}"
                    f" | {seen.quiet.milliseconds:.2f}, {seen.attacked.milliseconds:.2f}"
                    f" | {len(seen.wrong)}, {len(seen.lost)}"
                    f" | {seen.before.files}, {seen.peak_files}, {seen.after.files} | {', '.join(found) or 'none'}"
                )
    return faults


if __name__ == "__main__":
    duration = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    sys.exit(1 if asyncio.run(report(duration, lambda line: print(line, flush=True))) else 0)  # noqa: T201
