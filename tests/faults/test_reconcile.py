"""What was committed and not told is told by somebody else: once, however many processes there are."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from authserver.db import Database
from authserver.redis import Redis
from authserver.settings import Settings
from authserver.tokens import truth
from authserver.tokens.copy import KEY, Copy
from authserver.tokens.denylist import Denylist
from tests.faults.house import eventually
from tests.servers import Valkey
from tests.stores import Stores


@dataclass
class Process:
    """As much of a process of the server as looks after the copy."""

    database: Database
    redis: Redis
    denylist: Denylist

    @property
    def copy(self) -> Copy:
        assert self.denylist._copy
        return self.denylist._copy

    async def is_trusted(self) -> bool:
        await self.denylist._poll(self.copy)
        return (await truth.state_now(self.database)).is_trusted

    async def reconcile(self) -> None:
        self.denylist._reconcile_at = 0.0
        await self.denylist._reconcile(self.copy, await truth.state_now(self.database))

    async def write(self, first: int, last: int) -> None:
        """Commit entries, and tell nobody."""
        insert = (
            "INSERT INTO denylist_entries (entry, forget_at) SELECT 'j:' || i, now() + interval '1 hour'"
            " FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS i"
        )
        async with self.database.write() as tx:
            await tx.execute(text(insert), {"first": first, "last": last})

    async def told(self) -> int:
        return int(await self.redis.ask(lambda client: client.zcard(KEY))) - 1  # the marker is no entry


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture
async def processes(databases: Stores, valkey: Valkey) -> AsyncIterator[list[Process]]:
    settings = Settings(
        _env_file=None, database_url=await databases.new_database("postgres"), redis_url=valkey.url(),
        denylist_lease_seconds=0.2,
    )  # fmt: skip
    made = []
    for _ in range(3):
        database, redis = Database(settings), Redis(settings)
        made.append(Process(database, redis, Denylist(settings, database, redis)))
    await eventually(made[0].is_trusted)
    yield made
    for process in made:
        await process.denylist.close()
        await process.redis.close()
        await process.database.close()


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Which entries were read: after which number, until which one."""
    read, page = [], truth.page

    async def noted(db: Database, after: int, until: int, tx: Any = None) -> tuple[dict[str, Any], int]:
        read.append((after, until))
        return await page(db, after, until, tx)

    monkeypatch.setattr(truth, "page", noted)
    return read


async def test_what_one_process_has_told_no_other_one_tells_again(
    processes: list[Process], pages: list[tuple[int, int]]
) -> None:
    one, another, late = processes
    await one.write(1, 300)
    for process in (one, another, one):
        await process.reconcile()
    assert await one.told() == 300
    assert [after for after, _ in pages] == [0, 200]  # two pages of one process
    pages.clear()
    await one.write(301, 310)
    for process in (another, one, late):
        await process.reconcile()
    assert await one.told() == 310
    assert len(pages) == 1


async def test_a_lost_note_is_made_good(processes: list[Process], pages: list[tuple[int, int]]) -> None:
    one, another, _ = processes
    await one.write(1, 10)
    await one.reconcile()
    await one.redis.ask(lambda client: client.delete(f"{KEY}:reconciled"))
    pages.clear()
    await another.reconcile()
    assert len(pages) == 1
    assert await another.told() == 10


async def test_a_note_of_another_copy_says_nothing_of_this_one(processes: list[Process]) -> None:
    one, another, _ = processes
    await one.write(1, 10)
    await one.reconcile()
    state = await truth.state_now(one.database)
    await one.redis.ask(lambda client: client.zremrangebyrank(KEY, 0, 9))
    await one.redis.ask(lambda client: client.set(f"{KEY}:reconciled", f"{state.marker}x 10"))
    await another.reconcile()
    assert await another.told() == 10


async def test_nothing_is_read_again_when_the_newest_entries_have_been_pruned(
    processes: list[Process], pages: list[tuple[int, int]]
) -> None:
    one, another, late = processes
    await one.write(1, 50)
    await one.reconcile()
    async with one.database.write() as tx:
        await tx.execute(text("DELETE FROM denylist_entries WHERE number > 40"))
    pages.clear()
    for process in (one, another, late, one):
        await process.reconcile()
    assert pages == []
    await late.write(51, 60)
    await another.reconcile()
    assert await another.told() == 60
    assert pages == [(50, 60)]
