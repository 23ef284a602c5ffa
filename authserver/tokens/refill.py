"""Makes a complete copy of the denylist in a new key, and puts it into the old one's place while nobody can revoke."""

import logging
from datetime import datetime
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncSession

from authserver.db import Database
from authserver.errors import StoreUnavailable
from authserver.tokens import protocol, truth
from authserver.tokens.copy import Copy, new_name
from authserver.tokens.protocol import State

log = logging.getLogger(__name__)


async def refill(db: Database, copy: Copy, state: State, run: str) -> int | None:
    """End an epoch without trust; return the number up to which the copy has all entries, None if it is over already.

    StoreUnavailable leaves the state as it was.
    """
    started = monotonic()
    name = new_name()
    marker = protocol.marker(state, run, name)
    last = await truth.count(db)
    if await truth.state_now(db) != state:
        return None
    size = await _fill(db, copy, name, run, until=last)
    async with db.write() as tx:
        # The connection is held while Redis works: that is what keeps revocations out for these milliseconds.
        newest = await truth.count_last(db, tx)
        if await truth.state(tx) != state:
            return None
        size += await _fill(db, copy, name, run, after=last, until=newest, tx=tx)
        if not await copy.install(name, run, marker, size):
            raise StoreUnavailable("redis", "the new copy of the denylist is not complete")
        await truth.set_state(tx, protocol.trust(state, run, marker))
    seconds = round(monotonic() - started, 3)
    log.info("denylist_trusted", extra={"epoch": state.epoch, "run": run, "entries": size, "seconds": seconds})
    return newest


async def _fill(
    db: Database, copy: Copy, name: str, run: str, *, after: int = 0, until: int, tx: AsyncSession | None = None
) -> int:
    """Copy the entries after a number up to another one, page by page; return how many."""
    size = 0
    while after < until:
        entries, after = await truth.page(db, after, until, tx)
        await copy.fill(name, run, {entry: score(forget_at) for entry, forget_at in entries.items()})
        size += len(entries)
    return size


def score(forget_at: datetime) -> float:
    """Return when the copy may forget an entry, in seconds since the epoch: a second later than the database."""
    return forget_at.timestamp() + 1
