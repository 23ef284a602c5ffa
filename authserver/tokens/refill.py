"""Makes a complete copy of the denylist in a new key, and puts it into the old one's place while nobody can revoke."""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncSession

from authserver.db import Database
from authserver.errors import StoreUnavailable
from authserver.tokens import protocol, truth
from authserver.tokens.copy import Copy, new_name
from authserver.tokens.protocol import State

log = logging.getLogger(__name__)

_Reading = Callable[[], AbstractAsyncContextManager[AsyncSession]]


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
    size = await _fill(db.read, copy, name, run, until=last)
    async with db.write() as tx:
        # The connection is held while Redis works: that is what keeps revocations out for these milliseconds.
        newest = await truth.count_last(db, tx)
        if await truth.state(tx) != state:
            return None
        size += await _fill(lambda: nullcontext(tx), copy, name, run, after=last, until=newest)
        if not await copy.install(name, run, marker, size):
            raise StoreUnavailable("redis", "the new copy of the denylist is not complete")
        await truth.set_state(tx, protocol.trust(state, run, marker))
    seconds = round(monotonic() - started, 3)
    log.info("denylist_trusted", extra={"epoch": state.epoch, "run": run, "entries": size, "seconds": seconds})
    return newest


async def _fill(read: _Reading, copy: Copy, name: str, run: str, *, after: int = 0, until: int) -> int:
    """Copy the entries after a number up to another one, page by page; return how many."""
    size = 0
    while after < until:
        async with read() as tx:
            rows = await truth.page(tx, after, until)
        await copy.fill(name, run, {row.entry: score(row.forget_at) for row in rows})
        size += len(rows)
        after = rows[-1].number if rows else until
    return size


def score(forget_at: datetime) -> float:
    """Return when the copy may forget an entry, in seconds since the epoch: a second later than the database."""
    return forget_at.timestamp() + 1
