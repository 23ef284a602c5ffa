"""The schema's history, on both databases: forward, back, over rows, by several nodes at once, and from a wheel."""

import asyncio
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine

from authserver import migrations, schema
from authserver.errors import StoreUnavailable
from authserver.settings import Settings
from tests.application import ROOT, environment
from tests.servers import LOOPBACK, free_port
from tests.stores import Backend, Stores

REVISIONS = [script.revision for script in ScriptDirectory(str(migrations.folder())).walk_revisions()]
VALUES: dict[type, Callable[[], Any]] = {
    bool: lambda: True,
    bytes: lambda: b"x",
    datetime: lambda: datetime.now(UTC),
    int: lambda: 1,
    object: dict,  # JSON
    str: lambda: uuid4().hex,
    UUID: uuid4,
}


@pytest.fixture
async def empty(backend: Backend, databases: Stores) -> Settings:
    """The settings of a database without any table."""
    return settings_of(await databases.empty_database(backend))


def settings_of(database_url: str) -> Settings:
    return Settings(_env_file=None, database_url=database_url)


async def run(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of `migrations`: they bring an event loop of their own."""
    return await asyncio.to_thread(work, *arguments)


async def ask(settings: Settings, question: Callable[[sa.Connection], Any]) -> Any:
    engine = create_async_engine(settings.database_url.get_secret_value(), poolclass=sa.NullPool)
    async with engine.begin() as connection:
        return await connection.run_sync(question)


def tables(connection: sa.Connection) -> set[str]:
    return set(sa.inspect(connection).get_table_names()) - {"alembic_version"}


def fill(connection: sa.Connection) -> set[str]:
    """Put a row into each table, whatever its columns are at this revision; return the tables' names."""
    schema = sa.MetaData()
    schema.reflect(connection)
    rows: dict[str, dict[str, Any]] = {}
    for table in schema.sorted_tables:
        if table.name not in {"alembic_version", *filled(connection)}:  # a migration may have put a row there itself
            rows[table.name] = {column.name: value(column, rows) for column in table.columns}
            connection.execute(table.insert().values(rows[table.name]))
    return filled(connection)


def value(column: sa.Column[Any], rows: dict[str, dict[str, Any]]) -> Any:
    for key in column.foreign_keys:
        return rows[key.column.table.name][key.column.name]
    made = VALUES[column.type.python_type]()
    return made[: column.type.length] if isinstance(column.type, sa.String) else made


def filled(connection: sa.Connection) -> set[str]:
    return {name for name in tables(connection) if connection.execute(sa.select(sa.text("1 FROM " + name))).first()}


async def test_the_migrations_make_what_the_models_say(empty: Settings) -> None:
    await run(migrations.upgrade, empty)
    assert await run(migrations.check, empty) == []
    assert await run(migrations.current, empty) == migrations.head() == REVISIONS[0] == schema.REVISION


async def test_a_difference_between_models_and_database_is_told(empty: Settings) -> None:
    await run(migrations.upgrade, empty)
    await ask(empty, lambda connection: connection.execute(sa.text("ALTER TABLE users ADD COLUMN shoe_size integer")))
    (difference,) = await run(migrations.check, empty)
    assert "shoe_size" in difference


@pytest.mark.parametrize("revision", REVISIONS)
async def test_rows_survive_from_each_revision_to_the_newest_and_back(empty: Settings, revision: str) -> None:
    await run(migrations.upgrade, empty, revision)
    full = await ask(empty, fill)
    await run(migrations.upgrade, empty)
    assert await ask(empty, filled) >= full
    await run(migrations.downgrade, empty, revision)
    assert await ask(empty, filled) == full


async def test_everything_can_be_taken_back_and_made_again(empty: Settings) -> None:
    await run(migrations.upgrade, empty)
    await ask(empty, fill)
    await run(migrations.downgrade, empty, "base")
    assert await ask(empty, tables) == set()
    assert await run(migrations.current, empty) is None
    await run(migrations.upgrade, empty)
    assert await run(migrations.check, empty) == []


async def test_a_migration_that_fails_leaves_nothing_behind(empty: Settings) -> None:
    await ask(empty, lambda connection: connection.execute(sa.text("CREATE TABLE signing_keys (kid integer)")))
    with pytest.raises(migrations.MigrationError, match="nothing was changed"):
        await run(migrations.upgrade, empty)
    assert await ask(empty, tables) == {"signing_keys"}
    assert await run(migrations.current, empty) is None


async def test_a_revision_that_nobody_knows_is_refused_in_one_line(empty: Settings) -> None:
    with pytest.raises(migrations.MigrationError, match=r"^Can't locate revision .*'9999'") as refused:
        await run(migrations.upgrade, empty, "9999")
    assert "\n" not in str(refused.value)


async def test_a_database_from_a_newer_version_is_refused(empty: Settings) -> None:
    await run(migrations.upgrade, empty)
    await ask(empty, lambda connection: connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    assert await run(migrations.current, empty) == "9999"
    with pytest.raises(migrations.MigrationError, match="newer version"):
        await run(migrations.upgrade, empty)


async def test_no_database_is_said_to_be_none() -> None:
    nobody = settings_of(f"postgresql+asyncpg://nobody@{LOOPBACK}:{free_port()}/nothing")
    with pytest.raises(StoreUnavailable, match="database"):
        await run(migrations.upgrade, nobody)


async def test_several_nodes_may_migrate_at_the_same_moment(empty: Settings, tmp_path: Path) -> None:
    variables = environment({"AUTHSERVER_DATABASE_URL": empty.database_url.get_secret_value()})
    nodes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "authserver", "db", "upgrade", env=variables, cwd=tmp_path
        )
        for _ in range(4)
    ]
    assert [await node.wait() for node in nodes] == [0, 0, 0, 0]
    assert await run(migrations.check, empty) == []


async def test_an_installed_wheel_migrates(tmp_path: Path) -> None:
    await run_program(tmp_path, sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation",
                      "--quiet", "--wheel-dir", str(tmp_path), str(ROOT))  # fmt: skip
    installed = tmp_path / "installed"
    zipfile.ZipFile(one_of(tmp_path, "authserver-*.whl")).extractall(installed)
    assert (installed / "authserver" / "_docs" / "errors.md").is_file()

    database = Settings(_env_file=None, database_url=f"sqlite+aiosqlite:///{tmp_path}/installed.db")
    settings = {"AUTHSERVER_DATABASE_URL": database.database_url.get_secret_value(), "PYTHONPATH": str(installed)}
    where = await run_program(
        tmp_path, sys.executable, "-c", "import authserver; print(authserver.__file__)", **settings
    )
    assert where.strip().startswith(str(installed))
    await run_program(tmp_path, sys.executable, "-m", "authserver", "db", "upgrade", **settings)
    assert await run(migrations.check, database) == []


def one_of(directory: Path, pattern: str) -> Path:
    (found,) = directory.glob(pattern)
    return found


async def run_program(directory: Path, *command: str, **settings: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=directory, env=environment(settings), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
