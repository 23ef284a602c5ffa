"""The denylist in the database: its entries, and the state of its copy. Nothing is decided here: protocol.py does that.

Entries are numbered. As a number is given before its row can be seen, "all up to this number" is only true while
nobody is between writing and committing: who writes shares a lock, and who counts holds it alone.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import String, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from authserver.db import Database, UTCDateTime
from authserver.statement import Statement
from authserver.tokens import protocol
from authserver.tokens.models import DenylistEntry, DenylistState
from authserver.tokens.protocol import NEVER_TRUSTED, State

_LOCK = "denylist"
_PAGE = 2000
STATE = (DenylistState.is_trusted, DenylistState.epoch, DenylistState.run, DenylistState.marker)


_WRITE = Statement(
    select(
        bindparam("this", type_=String).label("entry"),
        bindparam("until", type_=UTCDateTime).label("forget_at"),
        *STATE,
    ).add_cte(
        postgresql_insert(DenylistEntry)
        .values(entry=bindparam("this", type_=String), forget_at=bindparam("until", type_=UTCDateTime))
        .on_conflict_do_nothing()
        .cte("written")
    )
)


async def share(db: Database, tx: AsyncSession) -> None:
    """Keep everybody from counting until the transaction ends; before any row is locked, or some wait in a circle."""
    await db.lock(tx, _LOCK, shared=True)


async def write_by(db: Database, statement: Statement, values: Mapping[str, Any]) -> tuple[State, dict[str, datetime]]:
    """Run a statement that writes one entry, on PostgreSQL; return the state, read no earlier, and what was written.

    It returns `entry` (null: none was to be written), `forget_at` and the columns of `STATE`.
    """
    row = await db.ask_locked(_LOCK, statement, values)
    assert row is not None  # the state's row is always there
    entries = {} if row["entry"] is None else {row["entry"]: row["forget_at"]}
    return State(row["is_trusted"], row["epoch"], row["run"], row["marker"]), entries


async def write_one(db: Database, entry: str, forget_at: datetime) -> tuple[State, dict[str, datetime]]:
    """Add one entry, on PostgreSQL, in a transaction of its own: `share`, `write` and `state` in three round trips."""
    return await write_by(db, _WRITE, {"this": entry, "until": forget_at})


async def write(db: Database, tx: AsyncSession, entries: Mapping[str, datetime]) -> None:
    """Add entries, each with when it may be forgotten. Again is as good as once."""
    insert = sqlite_insert if db.is_sqlite else postgresql_insert
    # In one order for everybody: two revocations that overlap must not wait for each other.
    rows = [{"entry": entry, "forget_at": entries[entry]} for entry in sorted(entries)]
    await tx.execute(insert(DenylistEntry).on_conflict_do_nothing(), rows)


async def find(tx: AsyncSession, entries: Sequence[str]) -> Sequence[DenylistEntry]:
    """Return those of the entries that there are."""
    return (await tx.scalars(select(DenylistEntry).where(DenylistEntry.entry.in_(entries)))).all()


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
