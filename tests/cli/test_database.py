"""`authserver db`, and what the other commands say to a database that is not ready."""

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from authserver import migrations
from tests.cli.conftest import Run
from tests.servers import LOOPBACK, free_port
from tests.stores import Backend, Stores

HEAD = migrations.head()


@pytest.fixture
async def url(databases: Stores, backend: Backend) -> str:
    return await databases.empty_database(backend)


async def execute(url: str, statement: str) -> None:
    engine = create_async_engine(url, poolclass=sa.NullPool)
    async with engine.begin() as connection:
        await connection.execute(sa.text(statement))


async def test_a_database_goes_forward_and_back(run: Run, url: str) -> None:
    assert (await run("db", "current", "--json", database_url=url)).json == {
        "revision": None,
        "head": HEAD,
        "up_to_date": False,
    }
    upgraded = await run("db", "upgrade", "--json", database_url=url)
    assert upgraded.json == {"before": None, "revision": HEAD}
    assert upgraded.stderr == ""
    assert (await run("db", "upgrade", "--json", database_url=url)).json == {"before": HEAD, "revision": HEAD}
    assert (await run("db", "current", "--json", database_url=url)).json["up_to_date"] is True
    assert (await run("db", "downgrade", "base", "--json", database_url=url)).json["revision"] is None


async def test_one_step_back_is_a_revision_too(run: Run, url: str) -> None:
    await run("db", "upgrade", database_url=url)
    assert (await run("db", "downgrade", "-1", "--json", database_url=url)).json["revision"] != HEAD
    assert (await run("db", "upgrade", "+1", "--json", database_url=url)).json["revision"] == HEAD


async def test_check_says_what_is_pending_and_what_differs(run: Run, url: str) -> None:
    pending = await run("db", "check", database_url=url)
    assert pending.why == f"The database is not migrated, this version needs {HEAD}: run `authserver db upgrade`."
    await run("db", "upgrade", database_url=url)
    good = (await run("db", "check", "--json", database_url=url)).json
    assert good == {"ok": True, "revision": HEAD, "head": HEAD, "differences": []}
    await execute(url, "DROP TABLE audit_events")
    differing = await run("db", "check", database_url=url)
    assert "differs" in differing.why
    assert "audit_events" in differing.stdout


async def test_an_unknown_revision_is_refused(run: Run, url: str) -> None:
    assert "no such revision" in (await run("db", "upgrade", "nonsense", database_url=url)).why
    assert (await run("db", "downgrade", database_url=url)).status == 2


@pytest.mark.parametrize("command", [("users", "list"), ("clients", "list"), ("sessions", "list"), ("prune",)])
async def test_a_database_without_tables_is_refused_with_the_way_out(
    run: Run, url: str, command: tuple[str, ...]
) -> None:
    why = (await run(*command, database_url=url)).why
    assert why == "The database is not migrated to what this version needs: run `authserver db upgrade`."


async def test_the_server_says_when_it_starts_on_a_database_that_must_be_upgraded(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authserver.serving.run", lambda *_: 0)
    why = (await run("serve", database_url=url)).stderr
    assert why == f"The database is not migrated, this version needs {HEAD}: run `authserver db upgrade`.\n"
    await run("db", "upgrade", database_url=url)
    assert (await run("serve", database_url=url)).stderr == ""
    before = (await run("db", "downgrade", "-1", "--json", database_url=url)).json["revision"]
    assert f"at revision {before}, this version needs {HEAD}" in (await run("serve", database_url=url)).stderr


async def test_the_server_starts_on_a_database_that_a_newer_version_has_upgraded(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authserver.serving.run", lambda *_: 0)
    await run("db", "upgrade", database_url=url)
    await execute(url, "UPDATE alembic_version SET version_num = 'from the future'")
    assert (await run("serve", database_url=url)).status == 0


@pytest.mark.parametrize("backend", ["postgres"], indirect=True, scope="session")
async def test_the_server_starts_without_a_database(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authserver.serving.run", lambda *_: 0)
    nobody = f"postgresql+asyncpg://{LOOPBACK}:{free_port()}/none"
    assert (await run("serve", database_url=nobody)).status == 0


@pytest.mark.parametrize("backend", ["postgres"], indirect=True, scope="session")
@pytest.mark.parametrize(
    "command", [("users", "list"), ("db", "upgrade"), ("db", "current"), ("keys", "rotate"), ("prune",)]
)
async def test_a_database_that_is_down_is_one_line(run: Run, command: tuple[str, ...]) -> None:
    nobody = f"postgresql+asyncpg://{LOOPBACK}:{free_port()}/none"
    assert (await asyncio.wait_for(run(*command, database_url=nobody), 5)).why.startswith("database: ")
