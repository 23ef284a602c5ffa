"""`authserver prune`, on a database of its own: it deletes what other tests may be looking at."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from authserver import clock
from authserver.audit import AuditEvent
from authserver.clients.models import Client
from authserver.db import Base
from authserver.services import Services
from authserver.sessions.models import UserSession
from authserver.settings import Settings
from authserver.tokens.copy import KEY
from authserver.tokens.models import DenylistEntry
from authserver.users.models import AccountAttempts, KnownAddress, User
from tests.cli.conftest import Run
from tests.servers import LOOPBACK, free_port
from tests.stores import Backend, Stores

TABLES: list[type[Base]] = [UserSession, DenylistEntry, AccountAttempts, KnownAddress, AuditEvent]


@pytest.fixture
async def house(settings: Settings, databases: Stores, backend: Backend) -> AsyncIterator[Services]:
    url = await databases.new_database(backend)
    async with Services.open(Settings(_env_file=None, **(settings.model_dump() | {"database_url": url}))) as services:
        yield services


async def fill(house: Services, age: timedelta, how_many: int) -> None:
    """Put rows into every table that were over, or were last of use, so long ago."""
    then = clock.now() - age
    async with house.db.write() as tx:
        user = User(**{name: str(uuid4()) for name in ("email", "email_key", "username", "username_key")})
        user.hashed_password = ""
        client = Client(id=str(uuid4()), name="App")
        tx.add_all([user, client])
        await tx.flush()
        for _ in range(how_many):
            tx.add(
                UserSession(
                    user_id=user.id, client_id=client.id, grant="password", scope="openid", token_jti=str(uuid4()),
                    tokens_expire_at=then, expires_at=then, max_expires_at=then,
                )
            )  # fmt: skip
            tx.add(DenylistEntry(entry=f"j:{uuid4()}", forget_at=then))
            tx.add(AccountAttempts(key=str(uuid4()), blocked_until=then, updated_at=then))
            address = {"address": str(uuid4()), "blocked_until": then, "last_success_at": then}
            tx.add(KnownAddress(user_id=user.id, **address))
            tx.add(AuditEvent(event="test", at=then))


async def counted(house: Services) -> list[int]:
    async with house.db.read() as tx:
        return [await tx.scalar(select(func.count()).select_from(table)) or 0 for table in TABLES]


def url_of(house: Services) -> str:
    return house.settings.database_url.get_secret_value()


async def test_what_is_over_goes_and_the_rest_stays(run: Run, house: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authserver.cli.prune._BATCH", 2)
    await fill(house, timedelta(days=1000), how_many=5)
    await fill(house, timedelta(days=-1), how_many=3)
    assert await counted(house) == [8] * len(TABLES)
    done = (await run("prune", "--json", database_url=url_of(house))).json
    assert {name: done[name] for name in done if name != "redis_entries"} == {
        "sessions": 5,
        "denylist_entries": 5,
        "attempts": 10,
        "audit_events": 5,
    }
    assert await counted(house) == [3] * len(TABLES)


@pytest.mark.parametrize("backend", ["postgres"], indirect=True, scope="session")
async def test_redis_forgets_what_is_over(run: Run, house: Services) -> None:
    now = int(clock.now().timestamp())
    await house.redis.ask(lambda redis: redis.zadd(KEY, {"j:pruned": now - 10, "j:kept": now + 1000}))
    assert (await run("prune", "--json", database_url=url_of(house))).json["redis_entries"] >= 1
    assert await house.redis.ask(lambda redis: redis.zmscore(KEY, ["j:pruned", "j:kept"])) == [None, now + 1000]


@pytest.mark.parametrize("backend", ["postgres"], indirect=True, scope="session")
async def test_a_redis_that_is_down_keeps_its_own(run: Run, house: Services) -> None:
    nobody = f"redis://{LOOPBACK}:{free_port()}"
    done = await run("prune", "--json", database_url=url_of(house), redis_url=nobody)
    assert done.json["redis_entries"] is None
    assert done.stderr.startswith("Redis keeps what is over for now: redis: ")
