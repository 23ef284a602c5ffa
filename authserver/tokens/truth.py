"""The denylist in the database: its entries, and the state of its copy. Nothing is decided here: protocol.py does that.

Entries are numbered. As a number is given before its row can be seen, "all up to this number" is only true when nobody
is between writing and committing: who writes shares a lock, and who counts has had it alone. Where one statement does
either, a process that stops cannot keep the lock.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import Any

from sqlalchemy import DateTime, String, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from authserver.db import Database, alone, sharing
from authserver.statement import Row, Statement
from authserver.tokens import protocol
from authserver.tokens.models import DenylistEntry, DenylistState
from authserver.tokens.protocol import NEVER_TRUSTED, State

Entries = tuple[State, dict[str, datetime]]
"""Entries, each with when it may be forgotten, and the state as it was then or later."""
_LOCK = "denylist"
_AT_ONCE = 200
"""Rows that are read together; more would keep the event loop from everything else for too long."""
SHARING = sharing(_LOCK)
"""A condition for a statement that writes entries (`write_by`)."""
STATE_COLUMNS = (DenylistState.is_trusted, DenylistState.epoch, DenylistState.run, DenylistState.marker)
_STATE = Statement(select(*STATE_COLUMNS))
_PAGE = Statement(
    select(DenylistEntry.number, DenylistEntry.entry, DenylistEntry.forget_at)
    .where(DenylistEntry.number > bindparam("after"), DenylistEntry.number <= bindparam("until"))
    .order_by(DenylistEntry.number)
    .limit(_AT_ONCE)
)
_COUNT = Statement(select(func.max(DenylistEntry.number).label("last")).where(alone(_LOCK)))

_THESE, _UNTIL = bindparam("these", type_=ARRAY(String)), bindparam("until", type_=ARRAY(DateTime(timezone=True)))
_WRITE = Statement(
    select(*STATE_COLUMNS).add_cte(
        postgresql_insert(DenylistEntry)
        .from_select(
            ["entry", "forget_at"],
            select(func.unnest(_THESE), func.unnest(_UNTIL)).where(SHARING),
            include_defaults=False,
        )
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
        *STATE_COLUMNS,
    )
)


async def share(db: Database, tx: AsyncSession) -> None:
    """Keep everybody from counting until the transaction ends; before any row is locked, or some wait in a circle."""
    await db.lock(tx, _LOCK, shared=True)


async def write_by(db: Database, statement: Statement, values: Mapping[str, Any], lease_seconds: float) -> Entries:
    """Run a statement that writes entries on the condition `SHARING`; return state and entries. On PostgreSQL.

    It returns one row: `entries` and `forget_at`, two arrays (null if there are none), and `STATE_COLUMNS`.
    """
    state, row = await _write(db, statement, values, lease_seconds)
    return state, _entries(row)


async def _write(
    db: Database, statement: Statement, values: Mapping[str, Any], lease_seconds: float
) -> tuple[State, Row | None]:
    """Run it, a transaction of its own; the state it saw is older than its lock, so it may be read once more."""
    asked_at = monotonic()
    row = await db.ask(statement, values)
    state = _state(row)
    if not protocol.is_fresh(state, asked_at, monotonic(), lease_seconds):
        state = await state_now(db)
    return state, row


def _state(row: Row | None) -> State:
    return State(row["is_trusted"], row["epoch"], row["run"], row["marker"]) if row else NEVER_TRUSTED


def _entries(row: Row | None) -> dict[str, datetime]:
    return dict(zip(row["entries"] or (), row["forget_at"] or (), strict=True)) if row else {}


async def write_now(db: Database, entries: Mapping[str, datetime], lease_seconds: float) -> State:
    """Add entries, as `write_by` does; return the state."""
    these = sorted(entries)  # as in `write`
    values = {"these": these, "until": [entries[entry] for entry in these]}
    state, _ = await _write(db, _WRITE, values, lease_seconds)
    return state


async def write(db: Database, tx: AsyncSession, entries: Mapping[str, datetime]) -> None:
    """Add entries, each with when it may be forgotten. Again is as good as once."""
    insert = sqlite_insert if db.is_sqlite else postgresql_insert
    # In one order for everybody: two revocations that overlap must not wait for each other.
    rows = [{"entry": entry, "forget_at": entries[entry]} for entry in sorted(entries)]
    await tx.execute(insert(DenylistEntry).on_conflict_do_nothing(), rows)


async def find(db: Database, entries: Sequence[str]) -> Entries:
    """Return the state, and those of the entries that there are, each with when it may be forgotten."""
    if not db.is_sqlite:
        row = await db.ask(_FIND, {"these": entries})
        return _state(row), _entries(row)
    async with db.read() as tx:
        rows = (await tx.scalars(select(DenylistEntry).where(DenylistEntry.entry.in_(entries)))).all()
        return await state(tx), {row.entry: row.forget_at for row in rows}


async def count(db: Database) -> int:
    """Return a number up to which everything has been written and committed, on PostgreSQL."""
    row = await db.ask(_COUNT, db.alone)
    return (row and row["last"]) or 0


async def count_last(db: Database, tx: AsyncSession) -> int:
    """Return the last number, and keep everybody from writing until the transaction ends."""
    await db.lock(tx, _LOCK)
    return await tx.scalar(select(func.max(DenylistEntry.number))) or 0


async def page(db: Database, after: int, until: int, tx: AsyncSession | None = None) -> tuple[dict[str, datetime], int]:
    """Return entries after a number up to another one, and up to which number these are all; on PostgreSQL."""
    rows = await db.ask_all(_PAGE, {"after": after, "until": until}, tx)
    return {row["entry"]: row["forget_at"] for row in rows}, rows[-1]["number"] if len(rows) == _AT_ONCE else until


async def state(tx: AsyncSession, *, for_update: bool = False) -> State:
    """Return the state of the copy."""
    row = await tx.get(DenylistState, 1, populate_existing=True, with_for_update=for_update)
    return State(row.is_trusted, row.epoch, row.run, row.marker) if row else NEVER_TRUSTED


async def state_now(db: Database) -> State:
    """Return it, read in a transaction of its own."""
    return _state(await db.ask(_STATE, {}))


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
