"""`authserver prune`, on a database of its own: it deletes what other tests may be looking at."""

from datetime import timedelta

import pytest

from authserver import clock
from authserver.services import Services
from authserver.tokens import copy
from tests.cli.conftest import Run
from tests.servers import LOOPBACK, free_port
from tests.test_pruning import TABLES, counted, fill, house, own

__all__ = ["house", "own"]  # fixtures


def url_of(house: Services) -> str:
    return house.settings.database_url.get_secret_value()


async def test_what_is_over_goes_and_the_rest_stays(run: Run, house: Services) -> None:
    await fill(house, timedelta(days=1000), how_many=5)
    await fill(house, timedelta(days=-1), how_many=3)
    assert await counted(house) == [8] * len(TABLES)
    done = (await run("prune", "--json", database_url=url_of(house), prune_batch_rows=2, prune_pause_seconds=0)).json
    assert {name: done[name] for name in done if name != "redis_entries"} == {
        "sessions": 5,
        "denylist_entries": 5,
        "attempts": 5,
        "known_addresses": 5,
        "used_assertions": 5,
        "pushed_requests": 5,
        "browser_sessions": 5,
        "authorization_codes": 5,
        "signing_keys": 5,
        "audit_events": 5,
    }
    assert await counted(house) == [3] * len(TABLES)


@pytest.mark.parametrize("backend", ["postgres"], indirect=True, scope="session")
async def test_redis_forgets_what_is_over(run: Run, house: Services) -> None:
    now = int(clock.now().timestamp())
    await house.redis.ask(lambda redis: redis.zadd(copy.KEY, {"j:pruned": now - 10_000, "j:kept": now + 1000}))
    assert (await run("prune", "--json", database_url=url_of(house))).json["redis_entries"] >= 1
    assert await house.redis.ask(lambda redis: redis.zmscore(copy.KEY, ["j:pruned", "j:kept"])) == [None, now + 1000]


@pytest.mark.parametrize("backend", ["postgres"], indirect=True, scope="session")
async def test_a_redis_that_is_down_keeps_its_own(run: Run, house: Services) -> None:
    nobody = f"redis://{LOOPBACK}:{free_port()}"
    done = await run("prune", "--json", database_url=url_of(house), redis_url=nobody)
    assert done.json["redis_entries"] is None
    assert done.stderr.startswith("Redis keeps what is over for now: redis: ")


@pytest.mark.parametrize("backend", ["postgres"], indirect=True, scope="session")
async def test_a_server_that_is_pruning_goes_on_alone(run: Run, house: Services) -> None:
    await fill(house, timedelta(days=1000), how_many=1)
    async with house.db.write() as tx:
        assert await house.db.try_lock(tx, "pruning")
        done = await run("prune", "--json", database_url=url_of(house))
    assert set(done.json.values()) == {0}
    assert done.stderr == "A server is pruning at this moment; it does the rest.\n"
    assert await counted(house) == [1] * len(TABLES)
