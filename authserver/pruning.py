"""What is over goes: by itself, in small batches, one runner at a time over all processes and nodes.

`over` is the list of everything that grows with traffic. The database's clock decides, never a node's: a node whose
clock is wrong deletes nothing that is alive. No other rule asks for a row that could go, so nothing breaks when pruning
is late; tables only grow.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, inspect, literal_column, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.dml import ReturningDelete

from authserver.audit import AuditEvent
from authserver.clients.models import PushedRequest, UsedAssertion
from authserver.db import Database
from authserver.errors import AuthserverError
from authserver.keys.models import SigningKey
from authserver.observability import metrics
from authserver.sessions.models import AuthorizationCode, BrowserSession, UserSession
from authserver.settings import Settings
from authserver.tokens.denylist import Denylist
from authserver.tokens.models import DenylistEntry
from authserver.users.attempts import KNOWN_FOR
from authserver.users.models import AccountAttempts, KnownAddress

log = logging.getLogger(__name__)

IN_REDIS = "redis_entries"
CODE_REMEMBERED_FOR = timedelta(hours=1)
_LOCK = "pruning"
_REST = 9
"""So many times as long as a batch took, the next one waits: a database that is busy gets more rest."""

Told = Callable[[str, int], object]
"""Hears the kind and the number of each batch."""
Date = InstrumentedAttribute[Any]
"""A column with dates."""


class Elsewhere(AuthserverError):
    """Another process is pruning; it does all that there is to do."""


@dataclass(frozen=True)
class Rows:
    """Rows that nobody needs once a date is over."""

    kind: str
    """In metrics, and in what `authserver prune` says."""
    by: Date
    """The date; it has an index, and the oldest go first. Without a date a row stays."""
    keep: timedelta = timedelta(0)
    """How long after that date they are still needed."""
    also: Date | None = None
    """Another date that must be over."""
    only: ColumnElement[bool] | None = None
    """What else must be so; the index is for these rows."""

    def over_at(self, moment: datetime) -> list[ColumnElement[bool]]:
        """Return the conditions of rows that could go at a moment."""
        found: list[ColumnElement[bool]] = [self.by < moment - self.keep]
        if self.also is not None:
            found.append(self.also < moment)
        if self.only is not None:
            found.append(self.only)
        return found

    def first(self, moment: datetime) -> Select[Any]:
        """Ask for the date of the one that goes first, if there is any."""
        return select(self.by).where(*self.over_at(moment)).order_by(self.by).limit(literal_column("1"))

    def batch(self, moment: datetime, at_most: int, since: datetime | None) -> ReturningDelete[Any]:
        """Delete the oldest of them, dated `since` or later; returns their dates. Rows that somebody works on wait."""
        key = inspect(self.by.class_).primary_key
        old = select(*key).where(*self.over_at(moment)).order_by(self.by)
        if since is not None:
            old = old.where(self.by >= since)
        # A number, not a parameter: PostgreSQL plans for so few rows then.
        old = old.limit(literal_column(str(at_most))).with_for_update(skip_locked=True)
        found = old.cte("old")
        return delete(self.by.class_).where(tuple_(*key).in_(select(*found.c))).returning(self.by)


def over(settings: Settings) -> list[Rows]:
    """Return all that goes, one line a kind."""
    lock = timedelta(seconds=settings.throttle_account_lock_seconds)
    audit_retention = timedelta(seconds=settings.audit_retention_seconds)
    has_ended = UserSession.revoked_at.is_not(None)
    return [
        # A session that has run out or was ended goes when its last access token is dead.
        Rows("sessions", UserSession.expires_at, also=UserSession.tokens_expire_at),
        Rows("sessions", UserSession.tokens_expire_at, only=has_ended),
        # The date has a margin beyond the last token that the entry covers (denylist.MARGIN).
        Rows("denylist_entries", DenylistEntry.forget_at),
        Rows("attempts", AccountAttempts.updated_at, keep=lock, also=AccountAttempts.blocked_until),
        Rows("known_addresses", KnownAddress.last_success_at, keep=KNOWN_FOR),
        Rows("used_assertions", UsedAssertion.expires_at),
        Rows("browser_sessions", BrowserSession.expires_at),
        # So long, whoever comes with a code again ends what it was traded for; later, nothing of that lives.
        Rows("authorization_codes", AuthorizationCode.expires_at, keep=CODE_REMEMBERED_FOR),
        Rows("pushed_requests", PushedRequest.expires_at),
        Rows("signing_keys", SigningKey.verifies_until),
        Rows("audit_events", AuditEvent.at, keep=audit_retention),
    ]


class Pruner:
    """Prunes every now and then, or when told to."""

    def __init__(self, settings: Settings, db: Database, denylist: Denylist) -> None:
        self._is_enabled = settings.prune_enabled
        self._interval = settings.prune_interval_seconds
        self._grace = timedelta(seconds=settings.prune_grace_seconds)
        self._batch_rows = settings.prune_batch_rows
        self._pause = settings.prune_pause_seconds
        self._db = db
        self._denylist = denylist
        self._over = over(settings)
        self._is_stuck = False

    @property
    def kinds(self) -> list[str]:
        """The names of everything that goes."""
        return [*dict.fromkeys(rows.kind for rows in self._over), IN_REDIS]

    async def watch(self) -> None:
        """Prune at every interval, give or take half. Runs for ever, unless it is switched off."""
        wait = random.random()  # noqa: S311 - so that nodes that start together do not run together
        while self._is_enabled:
            await asyncio.sleep(self._interval * wait)
            await self._run_and_tell()
            wait = random.uniform(0.5, 1.5)  # noqa: S311

    async def run(self, told: Told) -> None:
        """Delete all that is over; StoreUnavailable, Busy or Elsewhere if that was not to be. Redis comes last."""
        began = monotonic()
        for rows in self._over:
            await self._prune(rows, told)
        await self._prune_redis(told)
        metrics.PRUNING_RUN_SECONDS.set(monotonic() - began)
        metrics.PRUNING_SUCCEEDED_AT.set_to_current_time()

    async def late(self, by: timedelta) -> list[str]:
        """Return the kinds of which there are rows that should have gone so long ago."""
        async with self._db.read() as tx:
            moment = await self._db.now(tx) - self._grace - by
            found = [rows.kind for rows in self._over if await tx.scalar(rows.first(moment)) is not None]
        return list(dict.fromkeys(found))

    async def _prune(self, rows: Rows, told: Told) -> None:
        since: datetime | None = None

        async def next_batch() -> int:
            # From where the last batch ended: PostgreSQL steps over what is deleted as long as VACUUM has not been.
            nonlocal since
            async with self._db.write() as tx:
                if not await self._db.try_lock(tx, _LOCK):
                    raise Elsewhere("another process is pruning at this moment")
                moment = await self._db.now(tx) - self._grace
                dates = (await tx.scalars(rows.batch(moment, self._batch_rows, since))).all()
            since = max(dates, default=since)
            return len(dates)

        await self._until_done(rows.kind, next_batch, told)

    async def _prune_redis(self, told: Told) -> None:
        async with self._db.read() as tx:
            moment = await self._db.now(tx) - self._grace
        await self._until_done(IN_REDIS, lambda: self._denylist.prune_redis(moment, self._batch_rows), told)

    async def _until_done(self, kind: str, next_batch: Callable[[], Awaitable[int]], told: Told) -> None:
        while True:
            began = monotonic()
            count = await next_batch()
            metrics.PRUNED.labels(kind).inc(count)
            told(kind, count)
            if count < self._batch_rows:
                return
            await asyncio.sleep(max(self._pause, _REST * (monotonic() - began)))

    async def _run_and_tell(self) -> None:
        """Prune once; one line for what went, and one for the first of any number of failures."""
        pruned: Counter[str] = Counter()
        try:
            await self.run(lambda kind, count: pruned.update({kind: count}))
        except Elsewhere:
            log.debug("pruning_elsewhere")
        except AuthserverError as failure:
            log.log(logging.DEBUG if self._is_stuck else logging.WARNING, "not_pruned", extra={"reason": str(failure)})
            self._is_stuck = True
        else:
            self._is_stuck = False
        if gone := {kind: count for kind, count in pruned.items() if count}:
            log.info("pruned", extra=gone)
