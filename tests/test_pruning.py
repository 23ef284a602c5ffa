"""What is over goes by itself, and nothing that is alive: whatever a node's clock says, whoever else is at work.

Each test has a database of its own: pruning deletes what other tests may be looking at.
"""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from authserver import clock, migrations, pruning
from authserver.audit import AuditEvent
from authserver.clients.models import Client, PushedRequest, UsedAssertion
from authserver.db import Base
from authserver.keys.models import SigningKey
from authserver.pruning import Elsewhere
from authserver.services import Services
from authserver.sessions.models import AuthorizationCode, BrowserSession, UserSession
from authserver.settings import Settings
from authserver.tokens import copy
from authserver.tokens.denylist import token_entry
from authserver.tokens.models import DenylistEntry
from authserver.users.models import AccountAttempts, KnownAddress, User
from tests import application
from tests.application import client_of
from tests.factories import NewClient, NewUser, basic, claims_of, sign_in
from tests.servers import Postgres
from tests.stores import Backend, Stores

TABLES: list[type[Base]] = [
    UserSession, DenylistEntry, AccountAttempts, KnownAddress, UsedAssertion, PushedRequest, BrowserSession,
    AuthorizationCode, SigningKey, AuditEvent,
]  # fmt: skip
DENYLIST = copy.KEY
NEVER_PRUNED = {"users", "clients", "denylist_state", "consents", "logout_notices"}  # notices go when they are told
ONLY_POSTGRES = pytest.mark.parametrize("backend", ["postgres"], indirect=True, scope="session")
PATIENCE_SECONDS = 30.0


@pytest.fixture
async def own(settings: Settings, databases: Stores, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a database that nobody else uses, with a copy of its denylist that nobody else fills."""
    monkeypatch.setattr(copy, "KEY", f"{copy.KEY}:{uuid4()}")
    url = await databases.new_database(backend)
    return Settings(_env_file=None, **(settings.model_dump() | {"database_url": url, "prune_pause_seconds": 0}))


@pytest.fixture
async def house(own: Settings) -> AsyncIterator[Services]:
    async with Services.open(own) as services:
        yield services


@pytest.fixture
async def app(own: Settings) -> AsyncIterator[FastAPI]:
    """An application on that database, which `client`, `new_client` and `new_user` then use too."""
    async with application.running(own) as app:
        yield app


@pytest.fixture
def services(app: FastAPI) -> Services:
    return cast("Services", app.state.services)


async def fill(house: Services, age: timedelta, how_many: int) -> None:
    """Put rows into every table that were over, or were last of use, so long ago."""
    then = clock.now() - age
    async with house.db.write() as tx:
        user = User(**{name: str(uuid4()) for name in ("email", "email_key", "username", "username_key")})
        user.hashed_password = ""
        app = Client(id=str(uuid4()), name="App")
        tx.add_all([user, app])
        await tx.flush()
        for _ in range(how_many):
            tx.add(
                UserSession(
                    user_id=user.id, client_id=app.id, grant="password", scope="openid", token_jti=str(uuid4()),
                    tokens_expire_at=then, expires_at=then, max_expires_at=then,
                )
            )  # fmt: skip
            tx.add(DenylistEntry(entry=f"j:{uuid4()}", forget_at=then))
            tx.add(AccountAttempts(key=str(uuid4()), blocked_until=then, updated_at=then))
            address = {"address": str(uuid4()), "blocked_until": then, "last_success_at": then}
            tx.add(KnownAddress(user_id=user.id, **address))
            tx.add(UsedAssertion(key=str(uuid4()), expires_at=then))
            tx.add(PushedRequest(handle_hash=str(uuid4()), client_id=app.id, parameters={}, expires_at=then))
            browser = BrowserSession(user_id=user.id, cookie_hash=str(uuid4()), generation=0, amr="pwd")
            browser.authenticated_at = browser.expires_at = then
            tx.add(browser)
            code = AuthorizationCode(
                code_hash=str(uuid4()), client_id=app.id, user_id=user.id, generation=0, browser_session_id=uuid4()
            )
            code.scope, code.amr, code.authenticated_at, code.expires_at = "openid", "pwd", then, then
            tx.add(code)
            key = {"alg": "ES256", "public_jwk": {}, "encrypted_private_jwk": b"", "signs_from": then}
            tx.add(SigningKey(kid=str(uuid4()), verifies_until=then, **key))
            tx.add(AuditEvent(event="test", at=then))


async def counted(house: Services) -> list[int]:
    async with house.db.read() as tx:
        return [await tx.scalar(select(func.count()).select_from(table)) or 0 for table in TABLES]


async def prune(house: Services) -> Counter[str]:
    """Run once; return how many of each kind went."""
    pruned: Counter[str] = Counter()
    await house.pruner.run(lambda kind, count: pruned.update({kind: count}))
    return +pruned


async def lives_of_keys(redis: Redis) -> dict[str, int]:
    """Return how many seconds each key has yet to live; -1: for ever."""
    return {str(key): await redis.ttl(key) for key in await redis.keys()}


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await is_so():  # noqa: ASYNC110 - whoever makes it so does not know of us
            await asyncio.sleep(0.05)


def a_wrong_clock(monkeypatch: pytest.MonkeyPatch, error: timedelta) -> None:
    """Have all that this process does with dates happen so much later, or earlier."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + error

    monkeypatch.setattr(clock, "datetime", Wrong)


# What goes, what stays


def test_every_table_is_pruned_or_does_not_grow_with_traffic(house: Services) -> None:
    pruned = {rows.by.class_.__tablename__ for rows in pruning.over(house.settings)}
    assert pruned | NEVER_PRUNED == set(Base.metadata.tables)


async def test_a_date_that_is_over_by_less_than_the_grace_is_not_over(house: Services) -> None:
    grace = timedelta(seconds=house.settings.prune_grace_seconds)
    await fill(house, grace - timedelta(seconds=60), how_many=1)
    assert await prune(house) == {}
    await fill(house, grace + timedelta(seconds=60), how_many=1)
    at_once = ("sessions", "denylist_entries", "used_assertions", "signing_keys", "browser_sessions", "pushed_requests")
    gone = dict.fromkeys(at_once, 1)  # the others are kept longer
    assert await prune(house) == gone


async def test_a_session_stays_as_long_as_any_of_its_tokens_lives(house: Services) -> None:
    now = clock.now()
    past, future = now - timedelta(days=2), now + timedelta(days=2)
    await fill(house, timedelta(0), how_many=5)
    cases = [
        ("runs", {"expires_at": future, "tokens_expire_at": past}),
        ("has an access token", {"expires_at": past, "tokens_expire_at": future}),
        ("was ended, its access token lives", {"expires_at": past, "tokens_expire_at": future, "revoked_at": past}),
        ("was ended", {"expires_at": future, "tokens_expire_at": past, "revoked_at": past}),
        ("ran out", {"expires_at": past, "tokens_expire_at": past}),
    ]
    async with house.db.write() as tx:
        for session, (name, dates) in zip((await tx.scalars(select(UserSession))).all(), cases, strict=True):
            session.user_agent = name
            for column, value in dates.items():
                setattr(session, column, value)
    assert await prune(house) == {"sessions": 2}
    async with house.db.read() as tx:
        left = set(await tx.scalars(select(UserSession.user_agent)))
    assert left == {"runs", "has an access token", "was ended, its access token lives"}


async def test_a_counter_that_still_blocks_stays(house: Services) -> None:
    await fill(house, timedelta(days=10), how_many=2)
    async with house.db.write() as tx:
        blocked = (await tx.scalars(select(AccountAttempts).limit(1))).one()
        blocked.blocked_until = clock.now() + timedelta(hours=1)
    assert (await prune(house))["attempts"] == 1


async def test_the_key_that_signs_stays(services: Services) -> None:
    await services.keyring.rotate(at_once=True)
    async with services.db.write() as tx:
        long_ago = clock.now() - timedelta(days=400)
        retired = SigningKey.verifies_until.is_not(None)
        await tx.execute(update(SigningKey).where(retired).values(verifies_until=long_ago))
        await tx.execute(update(SigningKey).values(signs_from=long_ago))
    kid = services.keyring.signing_key().kid
    assert await prune(services) == {"signing_keys": 1}
    await services.keyring.load()
    assert services.keyring.signing_key().kid == kid


async def test_a_refresh_token_of_a_pruned_session_is_an_invalid_grant(
    services: Services, client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(), await new_user()
    tokens = (await sign_in(client, app, user)).json()
    await client.post("/revoke", data={"token": tokens["refresh_token"]}, auth=basic(app))
    async with services.db.write() as tx:
        await tx.execute(update(UserSession).values(tokens_expire_at=clock.now() - timedelta(days=1)))
    assert (await prune(services))["sessions"] == 1
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    answer = await client.post("/token", data=form, auth=basic(app))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


# Whose clock


@ONLY_POSTGRES
@pytest.mark.parametrize("error", [timedelta(hours=2), timedelta(days=1), timedelta(days=1000)])
async def test_a_node_whose_clock_is_ahead_deletes_nothing_that_is_alive(
    services: Services,
    client: httpx.AsyncClient,
    new_client: NewClient,
    new_user: NewUser,
    monkeypatch: pytest.MonkeyPatch,
    error: timedelta,
) -> None:
    app, user = await new_client(may_introspect=True), await new_user()
    kept, revoked = [(await sign_in(client, app, user)).json() for _ in range(2)]
    await client.post("/revoke", data={"token": revoked["access_token"]}, auth=basic(app))
    before = await counted(services)
    with monkeypatch.context() as wrong:
        a_wrong_clock(wrong, error)
        assert await prune(services) == {}
    assert await counted(services) == before
    for tokens, is_active in ((kept, True), (revoked, False)):
        answer = await client.post("/introspect", data={"token": tokens["access_token"]}, auth=basic(app))
        assert answer.json()["active"] is is_active


@ONLY_POSTGRES
async def test_a_node_whose_clock_is_behind_still_finds_what_it_has_revoked(
    services: Services,
    client: httpx.AsyncClient,
    new_client: NewClient,
    new_user: NewUser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with services.db.write() as tx:
        await tx.execute(update(SigningKey).values(signs_from=clock.now() - timedelta(days=1)))
    await services.keyring.load()
    a_wrong_clock(monkeypatch, -timedelta(minutes=55))  # for everybody else its tokens have long expired
    app, user = await new_client(may_introspect=True), await new_user()
    token = (await sign_in(client, app, user)).json()["access_token"]
    await client.post("/revoke", data={"token": token}, auth=basic(app))
    await prune(services)
    assert (await client.post("/introspect", data={"token": token}, auth=basic(app))).json() == {"active": False}
    async with services.db.read() as tx:
        assert list(await tx.scalars(select(DenylistEntry.entry))) == [token_entry(claims_of(token)["jti"])]


# In Redis


@ONLY_POSTGRES
async def test_the_marker_is_never_forgotten(house: Services) -> None:
    members = {f"j:{number}": float(number) for number in range(250)} | {"j:kept": 1e11, "!marker": float("inf")}
    await house.redis.ask(lambda redis: redis.zadd(copy.KEY, members))
    moment = datetime(3000, 1, 1, tzinfo=UTC)
    assert [await house.denylist.prune_redis(moment, 100) for _ in range(4)] == [100, 100, 50, 0]
    left = await house.redis.ask(lambda redis: redis.zrange(copy.KEY, 0, -1))
    assert left == ["j:kept", "!marker"]


@ONLY_POSTGRES
async def test_every_other_key_in_redis_has_an_end(
    client: httpx.AsyncClient, services: Services, own: Settings, new_client: NewClient, new_user: NewUser
) -> None:
    throttled = Settings(_env_file=None, **(own.model_dump() | {"throttle_enabled": True}))
    app, user = await new_client(), await new_user()
    async with application.running(throttled) as node, client_of(node) as guesser:
        await sign_in(guesser, app, user, password="wrong")
        await guesser.post("/token", data={"grant_type": "password"}, auth=httpx.BasicAuth(app.client_id, "wrong"))
        await guesser.get("/health/ready")
        lives = await services.redis.ask(lives_of_keys)
    assert len([key for key in lives if "throttle" in key]) >= 3
    assert all(key.startswith(DENYLIST) for key, seconds in lives.items() if seconds == -1)


# One at a time, beside traffic


@ONLY_POSTGRES
async def test_who_does_not_get_the_lock_goes_on(house: Services) -> None:
    await fill(house, timedelta(days=1000), how_many=1)
    async with house.db.write() as other:
        assert await house.db.try_lock(other, "pruning")
        with pytest.raises(Elsewhere):
            await prune(house)
    assert await counted(house) == [1] * len(TABLES)
    assert (await prune(house))["sessions"] == 1


async def test_many_that_prune_at_a_time_delete_each_row_once(own: Settings) -> None:
    async with AsyncExitStack() as stack:
        houses = [await stack.enter_async_context(Services.open(own)) for _ in range(3)]
        await fill(houses[0], timedelta(days=1000), how_many=60)
        for house in houses:
            house.pruner._batch_rows = 7
        runs = await asyncio.gather(*(prune(house) for house in houses), return_exceptions=True)
        assert all(isinstance(run, Counter | Elsewhere) for run in runs)
        await prune(houses[0])
        assert await counted(houses[0]) == [0] * len(TABLES)


@ONLY_POSTGRES
async def test_a_row_that_somebody_works_on_is_left_for_the_next_time(house: Services) -> None:
    await fill(house, timedelta(days=1000), how_many=3)
    async with house.db.write() as other:
        one = (await other.scalars(select(UserSession).limit(1).with_for_update())).one()
        assert (await prune(house))["sessions"] == 2
        one.expires_at = one.tokens_expire_at = clock.now() + timedelta(days=1)
    assert (await prune(house))["sessions"] == 0


async def test_each_batch_finds_its_rows_by_an_index(house: Services) -> None:
    dialect = sqlite.dialect() if house.db.is_sqlite else postgresql.dialect()  # type: ignore[no-untyped-call]
    explain = "EXPLAIN QUERY PLAN" if house.db.is_sqlite else "EXPLAIN"
    for rows in pruning.over(house.settings):
        if rows.kind == "signing_keys":  # there are a handful
            continue
        batch = rows.batch(clock.now(), 500, since=clock.now())
        statement = str(batch.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
        async with house.db.read() as tx:
            if not house.db.is_sqlite:  # which would not need an index for tables that are empty
                await tx.execute(text("SELECT set_config('enable_seqscan', 'off', true)"))
                await tx.execute(text("SELECT set_config('enable_bitmapscan', 'off', true)"))
            lines = await (await tx.connection()).exec_driver_sql(f"{explain} {statement}")
            plan = "\n".join(str(line[-1]) for line in lines)
        table = rows.by.class_.__tablename__
        assert f"ix_{table}_{rows.by.key}" in plan, plan
        in_vain = rf"Sort Key: {table}\w*\.{rows.by.key}|TEMP B-TREE FOR ORDER BY|Seq Scan|^SCAN {table}"
        assert not re.search(in_vain, plan, re.MULTILINE), plan


# By itself


async def test_a_server_prunes_by_itself(own: Settings, house: Services) -> None:
    await fill(house, timedelta(days=1000), how_many=2)
    busy = Settings(_env_file=None, **(own.model_dump() | {"prune_enabled": True, "prune_interval_seconds": 0.1}))
    async with application.running(busy) as app, client_of(app) as client:

        async def are_gone() -> bool:
            return await counted(house) == [0] * 8 + [2, 2]  # the application has made itself keys, and said so

        await until(are_gone)
        metrics = (await client.get("/metrics")).text
    for kind in ("sessions", "denylist_entries", "attempts", "known_addresses", "audit_events"):
        assert float(re.search(rf'authserver_pruned_total{{kind="{kind}"}} (\S+)', metrics)[1]) >= 2  # type: ignore[index]
    at = float(re.search(r"authserver_pruning_last_success_timestamp_seconds ([\d.e+]+)$", metrics, re.MULTILINE)[1])  # type: ignore[index]
    assert abs(at - datetime.now(UTC).timestamp()) < PATIENCE_SECONDS


@pytest.mark.slow
async def test_a_database_that_is_down_is_told_once_and_pruning_goes_on_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Postgres() as postgres:
        settings = Settings(_env_file=None, database_url=postgres.url(), prune_interval_seconds=0.05)
        await asyncio.to_thread(migrations.upgrade, settings)
        async with Services.open(settings) as house:
            await fill(house, timedelta(days=1000), how_many=1)
            postgres.kill()
            caplog.set_level(logging.DEBUG, "authserver.pruning")
            jobs = [asyncio.create_task(house.pruner.watch()), asyncio.create_task(house.db.watch())]

            def told() -> Counter[int]:
                return Counter(record.levelno for record in caplog.records if record.message == "not_pruned")

            async def has_failed_often() -> bool:
                return told().total() > 5

            async def are_gone() -> bool:
                return not house.db.breaker.is_open and await counted(house) == [0] * len(TABLES)

            await until(has_failed_often)
            assert told()[logging.WARNING] == 1
            postgres.start()
            await until(are_gone)
            assert told()[logging.WARNING] == 1
            for job in jobs:
                job.cancel()
            await asyncio.wait(jobs)
