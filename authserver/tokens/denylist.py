"""Revoked stays revoked: the list of what has been revoked, in the database, and its copy in Redis.

An entry is `j:<jti>`, one access token, or `s:<session id>`, a whole sign-in with all that is minted from it.
The database is the truth. A hit in Redis may always be believed, entries being monotone; a miss never says anything
here, so the database is asked. If it cannot be, that is a StoreUnavailable: there is no third answer.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import clock
from authserver.db import Database
from authserver.errors import StoreUnavailable
from authserver.observability import metrics
from authserver.redis import Redis
from authserver.tokens.models import DenylistEntry

log = logging.getLogger(__name__)

KEY = "authserver:denylist"
"""A sorted set; a member's score is when it may be forgotten (seconds since the epoch)."""
MARGIN = timedelta(seconds=120)
"""An entry outlives the tokens it covers by the leeway for clocks that differ and a minute."""
_DENIED = "denied"


def token_entry(jti: str) -> str:
    """Return the entry that revokes one access token."""
    return f"j:{jti}"


def session_entry(session_id: object) -> str:
    """Return the entry that revokes a sign-in."""
    return f"s:{session_id}"


class Denylist:
    """Adds revocations and answers for them."""

    def __init__(self, db: Database, redis: Redis) -> None:
        self._db = db
        self._redis = redis

    @asynccontextmanager
    async def revoking(self) -> AsyncIterator[AsyncSession]:
        """A transaction in which `deny` may be called; at its end it is committed, then copied to Redis.

        So nobody can revoke without both, or in the wrong order: Redis first would show what may yet be lost.
        """
        denied: dict[str, datetime] = {}
        async with self._db.write() as tx:
            tx.info[_DENIED] = denied
            yield tx
        await self._publish(denied)

    async def deny(self, tx: AsyncSession, entries: Mapping[str, datetime]) -> None:
        """Revoke: each entry with the last `exp` that it covers. Again is as good as once."""
        rows = {entry: last_exp + MARGIN for entry, last_exp in entries.items()}
        tx.info[_DENIED].update(rows)
        insert = sqlite_insert if self._db.is_sqlite else postgresql_insert
        if rows:
            # In one order for everybody: two revocations that overlap must not wait for each other.
            values = [{"entry": entry, "forget_at": rows[entry]} for entry in sorted(rows)]
            await tx.execute(insert(DenylistEntry).on_conflict_do_nothing(), values)

    async def is_revoked(self, jti: str, session_id: str | None) -> bool:
        """Tell whether a token has been revoked; StoreUnavailable when nobody who knows can be asked."""
        entries = [token_entry(jti)]
        if session_id is not None:
            entries.append(session_entry(session_id))
        if await self._is_hit(entries):
            metrics.DENYLIST_ANSWERS.labels("redis").inc()
            return True
        async with self._db.read() as tx:
            found = (await tx.execute(select(DenylistEntry).where(DenylistEntry.entry.in_(entries)))).scalars().all()
        metrics.DENYLIST_ANSWERS.labels("database").inc()
        if found:
            await self._publish({row.entry: row.forget_at for row in found})
        return bool(found)

    async def prune(self, tx: AsyncSession, limit: int) -> int:
        """Delete at most `limit` entries whose tokens are long dead; return how many."""
        old = select(DenylistEntry.entry).where(DenylistEntry.forget_at < clock.now()).limit(limit)
        result = await tx.execute(delete(DenylistEntry).where(DenylistEntry.entry.in_(old)))
        return result.rowcount  # type: ignore[attr-defined, no-any-return]

    async def prune_redis(self) -> int:
        """Delete from Redis what may be forgotten; return how many."""
        if not self._redis.is_configured:
            return 0
        oldest = int(clock.now().timestamp())
        return int(await self._redis.ask(lambda redis: redis.zremrangebyscore(KEY, "-inf", oldest)))

    async def _is_hit(self, entries: list[str]) -> bool:
        """Tell whether Redis knows of a revocation; that it cannot answer is no answer, and costs only time."""
        if not self._redis.is_configured:
            return False
        try:
            scores = await self._redis.ask(lambda redis: redis.zmscore(KEY, entries))
        except StoreUnavailable:
            return False
        return any(score is not None for score in scores)

    async def _publish(self, entries: Mapping[str, datetime]) -> None:
        """Copy what is durable to Redis; without it the database answers, so a failure changes no answer."""
        if not entries or not self._redis.is_configured:
            return
        scores = {entry: int(forget_at.timestamp()) + 1 for entry, forget_at in entries.items()}
        try:
            await self._redis.ask(lambda redis: redis.zadd(KEY, scores))
            metrics.DENYLIST_WRITES.labels("written").inc(len(scores))
        except StoreUnavailable as unavailable:
            metrics.DENYLIST_WRITES.labels("failed").inc(len(scores))
            log.warning("denylist_not_copied", extra={"entries": len(scores), "reason": unavailable.reason})
