"""Revoked stays revoked: the list of what has been revoked, and when its copy in Redis may be believed.

An entry is `j:<jti>`, one access token, or `s:<session id>`, a sign-in with all that is minted from it. The database is
the truth; entries are only ever added. A hit in Redis may always be believed. A miss counts only when the same reply
proves that the copy is complete; otherwise the database is asked, and if it cannot be, that is a StoreUnavailable:
there is no third answer. docs/reliability.md tells the protocol; its steps are the methods here, by name.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import patience
from authserver.db import Database
from authserver.errors import AuthserverError, StoreUnavailable
from authserver.observability import metrics
from authserver.redis import Redis
from authserver.settings import Settings
from authserver.tokens.copy import Copy, Look, new_name
from authserver.tokens.models import DenylistEntry, DenylistState

log = logging.getLogger(__name__)

MARGIN = timedelta(seconds=120)
"""An entry outlives the tokens it covers by the leeway for clocks that differ and a minute."""
_DENIED = "denied"
_LOCK = "denylist"
_PAGE = 2000
_RECONCILE_SECONDS = 2.0
_REFILL_SECONDS = 1.0


def token_entry(jti: str) -> str:
    """Return the entry that revokes one access token."""
    return f"j:{jti}"


def session_entry(session_id: object) -> str:
    """Return the entry that revokes a sign-in."""
    return f"s:{session_id}"


@dataclass(frozen=True)
class State:
    """What the database says of the copy: whether it may be believed, and which one it is."""

    is_trusted: bool
    epoch: int
    run: str
    marker: str


@dataclass(frozen=True)
class Lease:
    """What this process may believe, until when (monotonic seconds)."""

    state: State
    until: float


NEVER_TRUSTED = State(False, 0, "", "")
NO_LEASE = Lease(NEVER_TRUSTED, 0.0)


class Denylist:
    """Adds revocations and answers for them, on any number of nodes."""

    def __init__(self, settings: Settings, db: Database, redis: Redis) -> None:
        self._lease_seconds = settings.denylist_lease_seconds
        self._db = db
        # One node with SQLite has the database at hand: a copy of it would only be in the way.
        self._copy = Copy(redis) if redis.is_configured and not db.is_sqlite else None
        self._lease = NO_LEASE
        self._first_seen: tuple[int, float] = (0, 0.0)
        """The newest epoch without trust that this process knows of, and since when (monotonic seconds).

        Epoch 0 has never been trusted, so there is nothing to wait for.
        """
        self._distrusting: asyncio.Task[None] | None = None
        self._reconciled = 0
        """The number up to which the copy has all entries."""
        self._reconcile_at = self._refill_at = 0.0

    # ── check ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def is_revoked(self, jti: str, session_id: str | None) -> bool:
        """Tell whether a token has been revoked; StoreUnavailable when nobody who knows can be asked."""
        entries = _entries(jti, session_id)
        if self._copy is not None:
            lease = self._lease
            look = await self._look(self._copy, [*entries, lease.state.marker] if lease.until else entries)
            if look is not None:
                if not look.found.isdisjoint(entries):
                    metrics.DENYLIST_ANSWERS.labels("redis").inc()
                    return True
                if self._is_proof(look, lease):
                    metrics.DENYLIST_ANSWERS.labels("redis").inc()
                    return False
        metrics.DENYLIST_ANSWERS.labels("database").inc()
        return await self._is_revoked_in_database(entries)

    def _is_proof(self, look: Look, lease: Lease) -> bool:
        """Tell whether a miss counts: complete by its marker, in the right process, and the lease holds even now."""
        if look.run != lease.state.run or monotonic() >= lease.until:
            return False
        if lease.state.marker in look.found:
            return True
        self._distrust_soon(lease.state)  # the very process that should have the marker has lost it
        return False

    @staticmethod
    async def _look(copy: Copy, members: list[str]) -> Look | None:
        try:
            return await copy.look(members)
        except StoreUnavailable:
            return None

    async def make_known(self, jti: str, session_id: str | None) -> None:
        """Have all nodes know what the database knows of a token: for who has learnt from elsewhere that it is dead."""
        await self._is_revoked_in_database(_entries(jti, session_id))

    async def _is_revoked_in_database(self, entries: list[str]) -> bool:
        async with self._db.read() as tx:
            rows = (await tx.scalars(select(DenylistEntry).where(DenylistEntry.entry.in_(entries)))).all()
            state = await self._read_state(tx) if rows else NEVER_TRUSTED
        # Whoever hears "revoked" from us must not hear "good" from somebody else a moment later.
        await self._publish(state, {row.entry: row.forget_at for row in rows})
        return bool(rows)

    # ── revoke ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def revoking(self) -> AsyncIterator[AsyncSession]:
        """A transaction in which `deny` may be called. At its end it is committed, then known everywhere.

        So nobody can revoke without both, or in the wrong order: Redis first would show what may yet be lost.
        """
        denied: dict[str, datetime] = {}
        state = NEVER_TRUSTED
        async with self._db.write() as tx:
            tx.info[_DENIED] = denied
            yield tx
            if denied:
                state = await self._read_state(tx)
        await self._publish(state, denied)

    async def deny(self, tx: AsyncSession, entries: Mapping[str, datetime]) -> None:
        """Revoke: each entry with the last `exp` that it covers. Again is as good as once."""
        if not entries:
            return
        await self._db.lock(tx, _LOCK, shared=True)  # `refill` must see all of a revocation or nothing
        rows = {entry: last_exp + MARGIN for entry, last_exp in entries.items()}
        tx.info[_DENIED].update(rows)
        insert = sqlite_insert if self._db.is_sqlite else postgresql_insert
        if rows:
            # In one order for everybody: two revocations that overlap must not wait for each other.
            values = [{"entry": entry, "forget_at": rows[entry]} for entry in sorted(rows)]
            await tx.execute(insert(DenylistEntry).on_conflict_do_nothing(), values)

    async def _publish(self, state: State, entries: Mapping[str, datetime]) -> None:
        """Return when no process believes a copy that lacks these entries, which the database has."""
        if not entries:
            return
        started = monotonic()
        if not state.is_trusted:
            await self._wait_out(state.epoch)
        elif not await self._add(state, entries):
            await self._distrust(state)
            await patience.wait(self._patience)
        metrics.PROPAGATION_SECONDS.observe(monotonic() - started)

    async def _add(self, state: State, entries: Mapping[str, datetime]) -> bool:
        """Add to the trusted copy; False when that cannot be shown to have happened."""
        if self._copy is None:
            return False
        scores = {entry: forget_at.timestamp() + 1 for entry, forget_at in entries.items()}
        try:
            is_added = await self._copy.add(state.run, state.marker, scores)
        except StoreUnavailable as unavailable:
            log.warning("denylist_not_copied", extra={"reason": unavailable.reason})
            is_added = False
        metrics.DENYLIST_WRITES.labels("written" if is_added else "failed").inc(len(scores))
        return is_added

    @property
    def _patience(self) -> float:
        """Seconds after which every lease of an epoch that has ended has run out; clocks may run 10 % apart."""
        return self._lease_seconds * 1.1

    async def _wait_out(self, epoch: int) -> None:
        await patience.wait(self._saw_distrust(epoch) + self._patience - monotonic())

    def _saw_distrust(self, epoch: int) -> float:
        """Return since when this process knows that an epoch has no trust."""
        if self._first_seen[0] < epoch:
            self._first_seen = (epoch, monotonic())
        return self._first_seen[1]

    # ── distrust ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _distrust(self, state: State) -> None:
        """End the trust in a copy, unless somebody has done so already."""
        async with self._db.write() as tx:
            is_first = await tx.scalar(
                update(DenylistState)
                .where(DenylistState.is_trusted, DenylistState.epoch == state.epoch)
                .values(is_trusted=False, epoch=state.epoch + 1)
                .returning(DenylistState.epoch)
            )
        if is_first is not None:
            log.warning("denylist_distrusted", extra={"epoch": state.epoch, "run": state.run})

    def _distrust_soon(self, state: State) -> None:
        """Have it done in the background, once for all who noticed."""
        if self._distrusting is None or self._distrusting.done():
            self._distrusting = asyncio.create_task(self._distrust_quietly(state))

    async def _distrust_quietly(self, state: State) -> None:
        try:
            await self._distrust(state)
        except AuthserverError as unavailable:
            log.warning("denylist_not_distrusted", extra={"reason": str(unavailable)})

    # ── poll ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def watch(self) -> None:
        """Renew the lease, and mend the copy when it is not trusted. Runs for ever."""
        while self._copy is not None:
            try:
                await self._poll(self._copy)
            except AuthserverError as unavailable:
                log.debug("denylist_not_polled", extra={"reason": str(unavailable)})
            await asyncio.sleep(self._lease_seconds / 4)

    async def _poll(self, copy: Copy) -> None:
        asked_at = monotonic()
        async with self._db.read() as tx:
            state = await self._read_state(tx)
        run = await copy.line.run()
        metrics.DENYLIST_TRUSTED.set(state.is_trusted and state.run == run)
        if not state.is_trusted:
            if monotonic() >= max(self._saw_distrust(state.epoch) + self._patience, self._refill_at):
                # Not all nodes at once, and not for ever in a hurry if Redis is full.
                self._refill_at = monotonic() + _REFILL_SECONDS * (1 + random.random())  # noqa: S311
                await self._refill(copy, state, run)
        elif state.run == run:
            # From before the question: an answer that was long under way is already old.
            self._lease = Lease(state, asked_at + self._lease_seconds)
            if monotonic() >= self._reconcile_at:
                self._reconcile_at = monotonic() + _RECONCILE_SECONDS
                await self._reconcile(state)
        elif run:
            # Another process has taken the place of the one that had the copy.
            await self._distrust(state)

    # ── refill ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _refill(self, copy: Copy, state: State, run: str) -> None:
        """Make a complete copy in a new key, and put it into the old one's place while nobody can revoke."""
        if not run:
            return
        started = monotonic()
        name = new_name()
        # Late commands of a process that was stopped meanwhile must not pass for the newest copy: hence the name in it.
        marker = f"!{state.epoch}:{run}:{name}"
        async with self._db.write() as tx:
            # Nobody is between writing and committing now: up to this number, all that will ever be is there.
            await self._db.lock(tx, _LOCK)
            if await self._read_state(tx) != state:
                return
            last = await tx.scalar(select(func.max(DenylistEntry.number))) or 0
        count = await self._fill(copy, name, run, until=last)
        async with self._db.write() as tx:
            await self._db.lock(tx, _LOCK)
            if await self._read_state(tx) != state:
                return
            # The connection is held while Redis works: that is what keeps revocations out for these milliseconds.
            newest = (await tx.scalars(select(DenylistEntry).where(DenylistEntry.number > last))).all()
            await copy.fill(name, run, _scores(newest))
            count += len(newest)
            if not await copy.install(name, run, marker, count):
                raise StoreUnavailable("redis", "the new copy of the denylist is not complete")
            await tx.execute(update(DenylistState).values(is_trusted=True, run=run, marker=marker))
        self._reconciled = last
        log.info("denylist_trusted", extra={"epoch": state.epoch, "run": run, "entries": count,
                                            "seconds": round(monotonic() - started, 3)})  # fmt: skip

    async def _fill(self, copy: Copy, name: str, run: str, *, until: int) -> int:
        """Copy the entries up to a number, page by page; return how many."""
        after = count = 0
        while after < until:
            async with self._db.read() as tx:
                page = await self._page(tx, after, until)
            await copy.fill(name, run, _scores(page))
            count += len(page)
            after = page[-1].number if page else until
        return count

    async def _page(self, tx: AsyncSession, after: int, until: int) -> Sequence[DenylistEntry]:
        query = select(DenylistEntry).where(DenylistEntry.number > after, DenylistEntry.number <= until)
        return (await tx.scalars(query.order_by(DenylistEntry.number).limit(_PAGE))).all()

    # ── reconcile ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _reconcile(self, state: State) -> None:
        """Add what a process wrote to the database and did not live to add to the copy."""
        async with self._db.write() as tx:
            await self._db.lock(tx, _LOCK)
            last = await tx.scalar(select(func.max(DenylistEntry.number))) or 0
        while self._reconciled < last:
            async with self._db.read() as tx:
                page = await self._page(tx, self._reconciled, last)
            await self._publish(state, {row.entry: row.forget_at for row in page})
            self._reconciled = page[-1].number if page else last

    # ── forget ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def prune(self, tx: AsyncSession, limit: int) -> int:
        """Delete at most `limit` entries whose tokens are long dead, by the database's clock; return how many."""
        old = select(DenylistEntry.number).where(DenylistEntry.forget_at < func.now()).limit(limit)
        result = await tx.execute(delete(DenylistEntry).where(DenylistEntry.number.in_(old)))
        return result.rowcount  # type: ignore[attr-defined, no-any-return]

    async def prune_redis(self) -> int:
        """Delete from the copy what may be forgotten, by the database's clock; return how many."""
        if self._copy is None:
            return 0
        async with self._db.read() as tx:
            now = await tx.scalar(select(func.extract("epoch", func.now())))
        return await self._copy.forget(float(now or 0))

    async def close(self) -> None:
        """Close the connection to Redis."""
        if self._copy is not None:
            await self._copy.line.close()

    async def _read_state(self, tx: AsyncSession) -> State:
        row = await tx.get(DenylistState, 1, populate_existing=True)
        return State(row.is_trusted, row.epoch, row.run, row.marker) if row else NEVER_TRUSTED


def _entries(jti: str, session_id: str | None) -> list[str]:
    return [token_entry(jti)] + ([session_entry(session_id)] if session_id is not None else [])


def _scores(rows: Sequence[DenylistEntry]) -> dict[str, float]:
    return {row.entry: row.forget_at.timestamp() + 1 for row in rows}
