"""Revoked stays revoked: the list of what has been revoked, on any number of nodes.

An entry is `j:<jti>`, one access token, or `s:<session id>`, a sign-in with all that is minted from it. The database is
the truth; entries are only ever added. A hit in Redis may always be believed. A miss counts only when the same reply
proves that the copy is complete; otherwise the database is asked, and if it cannot be, that is a StoreUnavailable:
there is no third answer. docs/reliability.md tells the protocol; its steps are the methods here, by name, and what each
may conclude is a rule in `protocol.py`.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from authserver import patience
from authserver.db import Database
from authserver.errors import AuthserverError, StoreUnavailable
from authserver.gathering import Gathering
from authserver.observability import metrics
from authserver.redis import Redis
from authserver.settings import Settings
from authserver.statement import Statement
from authserver.tokens import protocol, truth
from authserver.tokens.copy import Copy, Look
from authserver.tokens.protocol import Duty, Finding, State, Verdict
from authserver.tokens.refill import refill, score
from authserver.tokens.truth import Entries

log = logging.getLogger(__name__)

MARGIN = timedelta(seconds=120)
"""An entry outlives the tokens it covers by the leeway for clocks that differ and a minute."""
_COUNT_REDIS, _COUNT_DATABASE = (metrics.DENYLIST_ANSWERS.labels(source).inc for source in ("redis", "database"))
_DENIED = "denied"
_AT_ONCE = 100
"""So many revocations share a transaction, and so many checks a look at the database."""
_RECONCILE_SECONDS = 2.0
_REFILL_SECONDS = 1.0


def token_entry(jti: str) -> str:
    """Return the entry that revokes one access token."""
    return f"j:{jti}"


def session_entry(session_id: object) -> str:
    """Return the entry that revokes a sign-in."""
    return f"s:{session_id}"


class Denylist:
    """Adds revocations and answers for them."""

    def __init__(self, settings: Settings, db: Database, redis: Redis) -> None:
        self._lease_seconds = settings.denylist_lease_seconds
        self._db = db
        # One node with SQLite has the database at hand: a copy of it would only be in the way.
        self._copy = Copy(redis) if redis.is_configured and not db.is_sqlite else None
        self._lease = protocol.NO_LEASE
        self._known = protocol.NO_DISTRUST
        self._finding: Gathering[Sequence[str], Entries] = Gathering(self._find_in_database, _AT_ONCE)
        self._denying: Gathering[tuple[str, datetime], None] = Gathering(self._deny_together, _AT_ONCE)
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
                verdict = protocol.judge(entries, look.found, look.run, lease, monotonic())
                if verdict is Verdict.LIVE or verdict is Verdict.REVOKED:
                    metrics.soon(_COUNT_REDIS)
                    return verdict is Verdict.REVOKED
                if verdict is Verdict.LOST:
                    self._distrust_soon(lease.state)
        metrics.soon(_COUNT_DATABASE)
        return await self._is_revoked_in_database(entries)

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
        state, found = await patience.ask(self._finding.ask(entries))
        ours = {entry: found[entry] for entry in entries if entry in found}
        # Whoever hears "revoked" from us must not hear "good" from somebody else a moment later.
        await self.publish(state, ours)
        return bool(ours)

    async def _find_in_database(self, questions: Sequence[Sequence[str]]) -> Sequence[Entries]:
        """Return for each question the state and what is there of all of them."""
        return [await truth.find(self._db, [entry for entries in questions for entry in entries])] * len(questions)

    # ── revoke ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def revoking(self) -> AsyncIterator[AsyncSession]:
        """A transaction in which `deny` may be called. At its end it is committed, then known everywhere.

        So nobody can revoke without both, or in the wrong order: Redis first would show what may yet be lost.
        """
        denied: dict[str, datetime] = {}
        state = protocol.NEVER_TRUSTED
        async with self._db.write() as tx:
            await truth.share(self._db, tx)
            tx.info[_DENIED] = denied
            yield tx
            if denied:
                state = await truth.state(tx)
        await self.publish(state, denied)

    async def deny(self, tx: AsyncSession, entries: Mapping[str, datetime]) -> None:
        """Revoke: each entry with the last `exp` that it covers. Again is as good as once."""
        if entries:
            rows = {entry: last_exp + MARGIN for entry, last_exp in entries.items()}
            tx.info[_DENIED].update(rows)
            await truth.write(self._db, tx, rows)

    async def deny_one(self, entry: str, last_exp: datetime) -> None:
        """Revoke one entry: `revoking` and `deny`, in one transaction with all others of this moment."""
        if self._db.is_sqlite:
            async with self.revoking() as tx:
                await self.deny(tx, {entry: last_exp})
        else:
            await patience.ask(self._denying.ask((entry, last_exp + MARGIN)))

    async def _deny_together(self, entries: Sequence[tuple[str, datetime]]) -> Sequence[None]:
        rows = dict(entries)
        await self.publish(await truth.write_now(self._db, rows, self._lease_seconds), rows)
        return [None] * len(entries)

    async def deny_by(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """Revoke what a statement (truth.write_by) revokes, in a transaction of its own; on PostgreSQL."""
        await self.publish(*await truth.write_by(self._db, statement, values, self._lease_seconds))

    async def publish(self, state: State, entries: Mapping[str, datetime]) -> None:
        """Return when no process believes a copy that lacks these entries, which the database has."""
        if not entries:
            return
        started = monotonic()
        is_added = None
        while (duty := protocol.duty(state, is_added)) is not Duty.NONE:
            if duty is Duty.ADD:
                is_added = await self._add(state, entries)
            elif duty is Duty.DISTRUST:
                state, is_added = await self._distrust(state), None
            else:
                await self._wait_out(state)
                break
        metrics.soon(partial(metrics.PROPAGATION_SECONDS.observe, monotonic() - started))

    async def _add(self, state: State, entries: Mapping[str, datetime]) -> bool:
        """Add to the trusted copy; False when that cannot be shown to have happened."""
        if self._copy is None:
            return False
        scores = {entry: score(forget_at) for entry, forget_at in entries.items()}
        try:
            is_added = await self._copy.add(state.run, state.marker, scores)
        except StoreUnavailable as unavailable:
            log.warning("denylist_not_copied", extra={"reason": unavailable.reason})
            is_added = False
        metrics.soon(partial(_count_writes, "written" if is_added else "failed", len(scores)))
        return is_added

    async def _wait_out(self, state: State) -> None:
        """Wait until every lease on the copy that was trusted before has run out."""
        self._known = protocol.notice(self._known, state, monotonic())
        await patience.wait(protocol.believed_until(self._known, self._lease_seconds) - monotonic())

    # ── distrust ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _distrust(self, suspect: State) -> State:
        """End the trust in a copy, unless somebody has done so already; return the state from now on."""
        async with self._db.write() as tx:
            state, is_first = await truth.distrust(tx, suspect)
        if is_first:
            log.warning("denylist_distrusted", extra={"epoch": suspect.epoch, "run": suspect.run})
        return state

    def _distrust_soon(self, suspect: State) -> None:
        """Have it done in the background, once for all who noticed."""
        if self._distrusting is None or self._distrusting.done():
            self._distrusting = asyncio.create_task(self._distrust_quietly(suspect), context=Context())

    async def _distrust_quietly(self, suspect: State) -> None:
        try:
            await self._distrust(suspect)
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
        state = await truth.state_now(self._db)
        if not state.is_trusted:
            self._known = protocol.notice(self._known, state, monotonic())
        run = await copy.line.run()
        finding = protocol.compare(state, run)
        metrics.DENYLIST_TRUSTED.set(finding is Finding.SOUND)
        if finding is Finding.SOUND:
            self._lease = protocol.grant(state, asked_at, self._lease_seconds)
            await self._reconcile(copy, state)
        elif finding is Finding.MOVED:
            await self._distrust(state)
        elif finding is Finding.UNTRUSTED:
            await self._refill(copy, state, run)

    async def _refill(self, copy: Copy, state: State, run: str) -> None:
        """Make a new copy, if the time has come."""
        now = monotonic()
        if now >= self._refill_at and protocol.may_refill(self._known, self._lease_seconds, now):
            # Not all nodes at once, and not for ever in a hurry if Redis is full.
            self._refill_at = now + _REFILL_SECONDS * (1 + random.random())  # noqa: S311
            self._reconciled = await refill(self._db, copy, state, run) or self._reconciled

    async def _reconcile(self, copy: Copy, state: State) -> None:
        """Add, now and then, what a process wrote to the database and did not live to add to the copy.

        Who does so notes beside the copy how far it has come, so that not every process does it for every entry.
        """
        if monotonic() < self._reconcile_at:
            return
        self._reconcile_at = monotonic() + _RECONCILE_SECONDS * (0.5 + random.random())  # noqa: S311
        noted, last = await copy.reconciled(state.run, state.marker), await truth.count(self._db)
        self._reconciled = max(self._reconciled, noted)  # either may be past the last one, which may have been pruned
        while self._reconciled < last:
            entries, until = await truth.page(self._db, self._reconciled, last)
            await self.publish(state, entries)
            self._reconciled = until
        if noted < self._reconciled:
            await copy.note_reconciled(state.run, state.marker, self._reconciled)

    # ── forget ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def prune_redis(self, until: datetime, at_most: int) -> int:
        """Delete from the copy some of what could be forgotten at a moment (of the database's); return how many."""
        return await self._copy.forget(until.timestamp(), at_most) if self._copy is not None else 0

    async def close(self) -> None:
        """Close the connection to Redis."""
        if self._copy is not None:
            await self._copy.line.close()


def _count_writes(outcome: str, number: int) -> None:
    metrics.DENYLIST_WRITES.labels(outcome).inc(number)


def _entries(jti: str, session_id: str | None) -> list[str]:
    return [token_entry(jti)] + ([session_entry(session_id)] if session_id is not None else [])
