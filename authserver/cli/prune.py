"""`authserver prune`: deletes what is over."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from authserver import clock
from authserver.cli import output
from authserver.cli.command import command
from authserver.cli.output import Answer
from authserver.errors import StoreUnavailable

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from authserver.services import Services

_BATCH = 500
"""Rows a transaction: the server's own requests get their turn in between."""


@command
async def prune(services: "Services") -> Answer:
    """Delete sessions, revocations, counters and audit events that are over. Run it once a day."""
    from authserver import audit
    from authserver.users import attempts

    oldest = clock.now() - timedelta(seconds=services.settings.audit_retention_seconds)
    pruned: dict[str, int | None] = {
        "sessions": await _prune(services, "Sessions", services.sessions.prune),
        "denylist_entries": await _prune(services, "Revocations", services.denylist.prune),
        "attempts": await _prune(services, "Counters", lambda tx, limit: attempts.prune(tx, services.settings, limit)),
        "audit_events": await _prune(services, "Audit events", lambda tx, limit: audit.prune(tx, oldest, limit)),
        "redis_entries": await _prune_redis(services),
    }
    return Answer(pruned)


async def _prune(services: "Services", what: str, delete: "Callable[[AsyncSession, int], Awaitable[int]]") -> int:
    deleted = 0
    with output.counting(what) as counter:
        while True:
            async with services.db.write() as tx:
                batch = await delete(tx, _BATCH)
            if not batch:
                return deleted
            deleted += batch
            counter.add(batch)


async def _prune_redis(services: "Services") -> int | None:
    """Return how many entries went; None if Redis cannot be asked: then it keeps them, and no answer changes."""
    try:
        return await services.denylist.prune_redis()
    except StoreUnavailable as unavailable:
        output.note(f"Redis keeps what is over for now: {unavailable}")
        return None
