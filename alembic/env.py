"""Runs the migrations for Alembic, on SQLite and PostgreSQL: all of them in one transaction, one process at a time."""

import asyncio
from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

from authserver import audit, db, migrations, settings
from authserver.clients import models as clients
from authserver.keys import models as keys
from authserver.sessions import models as sessions
from authserver.tokens import models as tokens
from authserver.users import models as users

# Importing a module of tables puts them into the metadata.
TABLES = (audit, clients, keys, sessions, tokens, users)


def database_url() -> str:
    """Take the URL that `authserver.migrations` passes, else `alembic -x url=…`, else the settings."""
    url = context.config.attributes.get("url") or context.get_x_argument(as_dictionary=True).get("url")
    return str(url or settings.load().database_url.get_secret_value())


def render_item(kind: str, item: Any, _autogenerate: Any) -> str | Literal[False]:
    """Write our own column types into new migrations as what they are in the database: migrations must not age."""
    return f"sa.{item.impl_instance!r}" if kind == "type" and isinstance(item, sa.TypeDecorator) else False


def configure(**where: Any) -> None:
    """Tell Alembic about the tables, and where to find (or how to speak to) the database."""
    context.configure(
        target_metadata=db.Base.metadata,
        compare_server_default=True,
        render_as_batch=True,  # SQLite alters a table by copying it; on PostgreSQL the same code is a plain ALTER
        render_item=render_item,
        transactional_ddl=True,
        **where,
    )


def migrate(connection: sa.Connection) -> None:
    """Run the migrations in one transaction that no second process can be in."""
    configure(connection=connection)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": migrations.LOCK_KEY})
            # A change that waits for a table holds up everybody who comes after it: rather fail, to be tried again.
            connection.execute(sa.text("SET LOCAL lock_timeout = '30s'"))
        context.run_migrations()


async def online() -> None:
    """Connect and migrate."""
    engine = create_async_engine(database_url(), poolclass=sa.NullPool, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine.sync_engine, "connect", migrations.prepare_sqlite)
        sa.event.listen(engine.sync_engine, "begin", migrations.begin_sqlite)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


if context.is_offline_mode():  # `alembic upgrade head --sql` prints the statements
    configure(url=database_url(), literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(online())
