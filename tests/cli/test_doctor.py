"""`authserver doctor`."""

import json
from datetime import timedelta
from typing import Any

import pytest

from authserver import clock
from tests.cli.conftest import Run
from tests.cli.test_database import execute
from tests.servers import LOOPBACK, Valkey, free_port
from tests.stores import Backend, Stores

PRODUCTION = {
    "environment": "production",
    "issuer": "https://auth.example.com",
    "secret_key": "a secret key of its own for production",
    "argon2_memory_kib": 19_456,
    "argon2_time_cost": 2,
}
ALL = ["settings", "database", "migrations", "clock", "keys", "redis", "hashing", "pruning"]


async def look(run: Run, **changes: Any) -> dict[str, dict[str, Any]]:
    """Return the checks by name, after looking that they agree with the exit status."""
    done = await run("doctor", "--json", **changes)
    document = json.loads(done.stdout)
    assert document["ok"] is all(check["ok"] for check in document["checks"])
    assert done.status == (0 if document["ok"] else 1)
    return {check["name"]: check for check in document["checks"]}


@pytest.fixture
async def url(databases: Stores, backend: Backend) -> str:
    return await databases.new_database(backend)


async def test_all_is_well_in_production(run: Run, url: str, backend: Backend) -> None:
    with Valkey(maxmemory_policy="noeviction") as valkey:
        checks = await look(run, database_url=url, redis_url=valkey.url(), **PRODUCTION)
    assert list(checks) == ALL
    states = {name: check["state"] for name, check in checks.items()}
    assert states["hashing"] in ("ok", "warning")  # a busy machine is warned of its slowness
    states["hashing"] = "ok"
    assert states == dict.fromkeys(ALL, "ok") | ({"database": "warning"} if backend == "sqlite" else {})
    assert checks["database"]["detail"].startswith("SQLite 3." if backend == "sqlite" else "PostgreSQL 18")
    assert checks["redis"]["detail"].startswith("Valkey 9")
    assert checks["keys"]["detail"].startswith("none yet")


async def test_development_is_not_production(run: Run) -> None:
    checks = await look(run, issuer="http://127.0.0.1:8000", throttle_enabled="false")
    assert checks["settings"]["state"] == "warning"
    for odd in ("ENVIRONMENT", "SECRET_KEY", "ISSUER", "THROTTLE_ENABLED"):
        assert odd in checks["settings"]["detail"]
    assert checks["hashing"]["state"] == "warning"


async def test_people_get_a_table_and_one_line_about_what_is_broken(
    run: Run, databases: Stores, backend: Backend
) -> None:
    done = await run("doctor", database_url=await databases.empty_database(backend))
    assert done.why == "Broken: migrations, keys, pruning."
    assert "migrations\tbroken\tat no revision" in done.stdout


async def test_settings_that_cannot_be_used_are_broken(run: Run) -> None:
    checks = await look(run, nonsense=1)
    assert checks == {
        "settings": {
            "name": "settings",
            "ok": False,
            "state": "broken",
            "detail": "unknown setting: AUTHSERVER_NONSENSE",
        }
    }


async def test_keys_that_another_secret_key_encrypted_are_broken(run: Run, url: str) -> None:
    await run("keys", "rotate", "--now", database_url=url)
    assert (await look(run, database_url=url))["keys"]["state"] == "ok"
    other = {"database_url": url, "secret_key": "another secret key of enough characters"}
    assert "SECRET_KEY" in (await look(run, **other))["keys"]["detail"]
    await run("keys", "rotate", **other)
    waiting = (await look(run, **other))["keys"]
    assert (waiting["state"], "signs from" in waiting["detail"]) == ("broken", True)


@pytest.mark.parametrize("backend", ["postgres"], indirect=True, scope="session")
async def test_stores_that_are_down_are_broken(run: Run) -> None:
    database_url = f"postgresql+asyncpg://{LOOPBACK}:{free_port()}/none"
    checks = await look(run, database_url=database_url, redis_url=f"redis://{LOOPBACK}:{free_port()}")
    broken = [name for name, check in checks.items() if not check["ok"]]
    assert broken == ["database", "migrations", "clock", "keys", "redis", "pruning"]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")
async def test_a_redis_that_may_forget_is_worth_a_warning(run: Run) -> None:
    with Valkey(maxmemory_policy="allkeys-lru") as valkey:
        assert (await look(run, redis_url=valkey.url()))["redis"]["state"] == "warning"


@pytest.mark.parametrize("backend", ["postgres"], indirect=True, scope="session")
@pytest.mark.parametrize("seconds", [-5, 5])
async def test_a_clock_that_is_wrong_is_worth_a_warning(
    run: Run, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    true_now = clock.now
    monkeypatch.setattr("authserver.cli.doctor.clock.now", lambda: true_now() + timedelta(seconds=seconds))
    check = (await look(run))["clock"]
    assert check["state"] == "warning"
    seen, unit, direction, *_ = check["detail"].split()
    assert (unit, direction) == ("s", "ahead" if seconds > 0 else "behind")
    assert float(seen) == pytest.approx(5, abs=1)


async def test_what_should_have_gone_long_ago_is_worth_a_warning(run: Run, url: str) -> None:
    assert (await look(run, database_url=url))["pruning"]["state"] == "ok"
    for entry, forget_at in (("j:old", "2020-01-01 00:00:00"), ("j:new", "2100-01-01 00:00:00")):
        await execute(url, f"INSERT INTO denylist_entries (entry, forget_at) VALUES ('{entry}', '{forget_at}')")
    check = (await look(run, database_url=url))["pruning"]
    assert (check["state"], "denylist_entries" in check["detail"]) == ("warning", True)
    await run("prune", database_url=url)
    assert (await look(run, database_url=url))["pruning"]["state"] == "ok"


async def test_a_database_of_a_newer_version_is_worth_a_warning(run: Run, url: str) -> None:
    await execute(url, "UPDATE alembic_version SET version_num = 'from the future'")
    assert (await look(run, database_url=url))["migrations"]["state"] == "warning"
