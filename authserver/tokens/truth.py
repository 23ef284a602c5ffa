"""The denylist in the database: its entries, and the state of its copy. Nothing is decided here: protocol.py does that.

Entries are numbered. As a number is given before its row can be seen, "all up to this number" is only true while
nobody is between writing and committing: who writes shares a lock, and who counts holds it alone.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, String, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from authserver.db import Database
from authserver.statement import Row, Statement
from authserver.tokens import protocol
from authserver.tokens.models import DenylistEntry, DenylistState
from authserver.tokens.protocol import NEVER_TRUSTED, State

Entries = tuple[State, dict[str, datetime]]
"""Entries, each with when it may be forgotten, and the state as it was then or later."""
_LOCK = "denylist"
_PAGE = 2000
STATE = (DenylistState.is_trusted, DenylistState.epoch, DenylistState.run, DenylistState.marker)


_THESE, _UNTIL = bindparam("these", type_=ARRAY(String)), bindparam("until", type_=ARRAY(DateTime(timezone=True)))
_WRITE = Statement(
    select(_THESE.label("entries"), _UNTIL.label("forget_at"), *STATE).add_cte(
        postgresql_insert(DenylistEntry)
        .from_select(["entry", "forget_at"], select(func.unnest(_THESE), func.unnest(_UNTIL)), include_defaults=False)
        .on_conflict_do_nothing()
        .cte("written")
    )
)


_FIND = Statement(
    select(
        select(func.array_agg(aggregate_order_by(DenylistEntry.entry, DenylistEntry.number)))
        .where(DenylistEntry.entry == func.any(_THESE))
        .scalar_subquery()
        .label("entries"),
        select(func.array_agg(aggregate_order_by(DenylistEntry.forget_at, DenylistEntry.number)))
        .where(DenylistEntry.entry == func.any(_THESE))
        .scalar_subquery()
        .label("forget_at"),
        *STATE,
    )
)

_STATE = Statement(select(*STATE))


async def share(db: Database, tx: AsyncSession) -> None:
    """Keep everybody from counting until the transaction ends; before any row is locked, or some wait in a circle."""
    await db.lock(tx, _LOCK, shared=True)


async def write_by(db: Database, statement: Statement, values: Mapping[str, Any]) -> Entries:
    """Run a statement that writes entries, on PostgreSQL; return the state, read no earlier, and what was written.

    It returns one row: `entries` and `forget_at`, two arrays (null if there are none), and the columns of `STATE`.
    A transaction of its own: `share`, `write` and `state` in three round trips.
    """
    return _read(await db.ask_locked(_LOCK, statement, values))


def _read(row: Row | None) -> Entries:
    assert row is not None  # the state's row is always there
    entries = dict(zip(row["entries"] or (), row["forget_at"] or (), strict=True))
    return State(row["is_trusted"], row["epoch"], row["run"], row["marker"]), entries


async def write_now(db: Database, entries: Mapping[str, datetime]) -> Entries:
    """Add entries in a transaction of its own, on PostgreSQL."""
    these = sorted(entries)  # as in `write`
    return await write_by(db, _WRITE, {"these": these, "until": [entries[entry] for entry in these]})


async def write(db: Database, tx: AsyncSession, entries: Mapping[str, datetime]) -> None:
    """Add entries, each with when it may be forgotten. Again is as good as once."""
    insert = sqlite_insert if db.is_sqlite else postgresql_insert
    # In one order for everybody: two revocations that overlap must not wait for each other.
    rows = [{"entry": entry, "forget_at": entries[entry]} for entry in sorted(entries)]
    await tx.execute(insert(DenylistEntry).on_conflict_do_nothing(), rows)


async def find(db: Database, entries: Sequence[str]) -> Entries:
    """Return the state, and those of the entries that there are, each with when it may be forgotten."""
    if not db.is_sqlite:
        return _read(await db.ask(_FIND, {"these": entries}))
    async with db.read() as tx:
        rows = (await tx.scalars(select(DenylistEntry).where(DenylistEntry.entry.in_(entries)))).all()
        return await state(tx), {row.entry: row.forget_at for row in rows}


async def count(db: Database, tx: AsyncSession) -> int:
    """Return the last number, and keep everybody from writing until the transaction ends."""
    await db.lock(tx, _LOCK)
    return await tx.scalar(select(func.max(DenylistEntry.number))) or 0


async def page(tx: AsyncSession, after: int, until: int) -> Sequence[DenylistEntry]:
    """Return the next entries after a number up to another one, in order; not all of them, but at least one."""
    numbers = DenylistEntry.number > after, DenylistEntry.number <= until
    return (await tx.scalars(select(DenylistEntry).where(*numbers).order_by(DenylistEntry.number).limit(_PAGE))).all()


async def state(tx: AsyncSession, *, for_update: bool = False) -> State:
    """Return the state of the copy."""
    row = await tx.get(DenylistState, 1, populate_existing=True, with_for_update=for_update)
    return State(row.is_trusted, row.epoch, row.run, row.marker) if row else NEVER_TRUSTED


async def state_now(db: Database) -> State:
    """Return it, read in a transaction of its own."""
    row = await db.ask(_STATE, {})
    return State(**row) if row else NEVER_TRUSTED


async def set_state(tx: AsyncSession, new: State) -> None:
    """Change the state of the copy."""
    await tx.execute(update(DenylistState).values(new._asdict()))


async def distrust(tx: AsyncSession, suspect: State) -> tuple[State, bool]:
    """End the trust in a copy; return the state from now on, and whether it was us who changed it."""
    current = await state(tx, for_update=True)
    new = protocol.distrust(current, suspect)
    if new != current:
        await set_state(tx, new)
    return new, new != current
