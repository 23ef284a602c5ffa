"""Behind PgBouncer in transaction mode, where two transactions in a row may be on two different connections."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from authserver.settings import Settings
from tests import application
from tests.factories import NewClient, NewUser, basic, sign_in
from tests.pgbouncer import PgBouncer

pytestmark = [
    pytest.mark.parametrize("backend", ["postgres"], indirect=True),
    pytest.mark.skipif(PgBouncer.program() is None, reason="pgbouncer is not installed (apt install pgbouncer)"),
]

AT_A_TIME = 8
TIMES = 15


@pytest.fixture
def pgbouncer(settings: Settings) -> Iterator[PgBouncer]:
    """A pooler with fewer connections than the application has, so that they go from hand to hand."""
    with PgBouncer(settings.database_url.get_secret_value(), pool_size=3) as pooler:
        yield pooler


async def test_all_works_while_connections_go_from_hand_to_hand(
    pgbouncer: PgBouncer,
    settings: Settings,
    app_with: Callable[..., Awaitable[FastAPI]],
    new_client: NewClient,
    new_user: NewUser,
) -> None:
    database = settings.database_url.get_secret_value().rpartition("/")[2]
    app, user = await new_client(), await new_user()
    changes = {"database_url": pgbouncer.url(database), "database_pooler": True, "database_pool_size": AT_A_TIME}
    async with application.client_of(await app_with(**changes)) as client:

        async def use() -> Counter[int]:
            statuses: Counter[int] = Counter()
            for _ in range(TIMES):
                first = await sign_in(client, app, user)
                tokens = first.json()
                refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
                second = await client.post("/token", data=refresh, auth=basic(app))
                told = await _introspect(client, app, second)
                assert told["active"] is True
                revoked = await client.post("/revoke", data={"token": second.json()["refresh_token"]}, auth=basic(app))
                assert await _introspect(client, app, second) == {"active": False}
                statuses.update(answer.status_code for answer in (first, second, revoked))
            return statuses

        statuses = sum(await asyncio.gather(*(use() for _ in range(AT_A_TIME))), Counter[int]())
    assert statuses == {200: 3 * AT_A_TIME * TIMES}
    assert await _prepared_statements(pgbouncer.url(database)) == 0


async def _introspect(client: httpx.AsyncClient, app: object, answer: httpx.Response) -> dict[str, object]:
    form = {"token": answer.json()["access_token"]}
    told: dict[str, object] = (await client.post("/introspect", data=form, auth=basic(app))).json()  # type: ignore[arg-type]
    return told


async def _prepared_statements(url: str) -> int:
    """Return how many statements the pooler's connections still have: what is left there would pile up for ever."""
    connections = [await asyncpg.connect(url.replace("+asyncpg", ""), statement_cache_size=0) for _ in range(3)]
    try:
        # At the same time, so that each is on another connection.
        counts = await asyncio.gather(
            *(one.fetchval("SELECT count(*) FROM pg_prepared_statements, pg_sleep(0.2)") for one in connections)
        )
    finally:
        for one in connections:
            await one.close()
    return sum(counts)
