"""The copy of the denylist in Redis: one sorted set with the entries and the marker that proves it complete.

A member's score is when it may be forgotten (seconds since the epoch). Proof and entries in one key can only be lost
together. Nothing here decides anything: protocol.py does.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from authserver import patience
from authserver.errors import StoreUnavailable
from authserver.gathering import Gathering
from authserver.redis import Line, Redis, replication
from authserver.redis_master import TAG

KEY = f"{TAG}:denylist"
FILL_SECONDS = 60
_AT_ONCE = 200
"""So many checks, or revocations, share a round trip; more would take Redis too long for its time-out."""

# A process that has taken the place of the right one may have the marker too. What were added there would be seen by
# some before the others stop believing the right one: so nothing is sent to a process of another name (`ask_only`).
# The right one may have become a replica since it was asked for its name, or been one: that shows here.
_ADD = """
local info = redis.call('INFO', 'replication')
if not info:find('role:master', 1, true) or info:match('master_replid:(%w+)') ~= ARGV[1] then return 0 end
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], unpack(ARGV, 3))
return 1
"""
# A part of the new set may have been evicted meanwhile: then it is not complete, and must not look so.
_INSTALL = """
if redis.call('ZCARD', KEYS[2]) ~= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[2], '+inf', ARGV[1])
redis.call('PERSIST', KEYS[2])
redis.call('RENAME', KEYS[2], KEYS[1])
return 1
"""
# A few at a time: Redis does nothing else meanwhile. The marker's score is above every date.
_FORGET = """
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
if #old > 0 then redis.call('ZREM', KEYS[1], unpack(old)) end
return #old
"""


@dataclass(frozen=True)
class Look:
    """What Redis said in one reply."""

    found: frozenset[str]
    run: str
    """Which process said so; empty if it is not a master."""


class Copy:
    """Asks and fills the set; StoreUnavailable for every fault."""

    def __init__(self, redis: Redis) -> None:
        self._key = KEY
        self._reconciled_key = f"{KEY}:reconciled"
        self.line: Line = redis.line(self._key)
        """The one connection that everything goes through."""
        self._adding: Gathering[tuple[str, str, Mapping[str, float]], bool] = Gathering(self._add, _AT_ONCE)
        self._looking: Gathering[Sequence[str], Look] = Gathering(self._look, _AT_ONCE)

    async def look(self, members: Sequence[str]) -> Look:
        """Return what is there of these members, and maybe of others that were asked for at the same time."""
        return await patience.count(self._looking.ask(members))

    async def add(self, run: str, marker: str, entries: Mapping[str, float]) -> bool:
        """Add entries to the set that has this marker, in this process; False if there is none."""
        return await patience.count(self._adding.ask((run, marker, entries)))

    async def _add(self, questions: Sequence[tuple[str, str, Mapping[str, float]]]) -> Sequence[bool]:
        """Add for many, who almost always mean the same set."""
        meant: dict[tuple[str, str], dict[str, float]] = {}
        for run, marker, entries in questions:
            meant.setdefault((run, marker), {}).update(entries)
        is_added = {which: await self._add_to(*which, entries) for which, entries in meant.items()}
        return [is_added[run, marker] for run, marker, _ in questions]

    async def _add_to(self, run: str, marker: str, entries: Mapping[str, float]) -> bool:
        scores = [part for entry, score in entries.items() for part in (score, entry)]
        answers = await self.line.ask_only(run, ("EVAL", _ADD, 1, self._key, replication(run), marker, *scores))
        return answers == [1]

    async def fill(self, name: str, run: str, entries: Mapping[str, float]) -> None:
        """Add entries to a new set of this name; StoreUnavailable if the process is another one by now."""
        key = f"{self._key}:{name}"
        if entries:
            scores = [part for entry, score in entries.items() for part in (score, entry)]
            answers = await self.line.ask_only(run, ("ZADD", key, *scores), ("EXPIRE", key, FILL_SECONDS))
            if answers is None:
                raise StoreUnavailable("redis", "another process answers")

    async def install(self, name: str, run: str, marker: str, count: int) -> bool:
        """Put the new set, which must have so many entries, in the place of the old one, with its marker."""
        key = f"{self._key}:{name}"
        answers = await self.line.ask_only(run, ("EVAL", _INSTALL, 2, self._key, key, marker, count))
        return answers == [1]

    async def reconciled(self, run: str, marker: str) -> int:
        """Return the number up to which somebody has seen to it that all entries are in the set with this marker."""
        answers = await self.line.ask_only(run, ("GET", self._reconciled_key))
        of, _, number = str(answers and answers[0]).rpartition(" ")
        return int(number) if of == marker else 0

    async def note_reconciled(self, run: str, marker: str, number: int) -> None:
        """Tell the others. If the note is lost, or an older one comes later, they do again what has been done."""
        await self.line.ask_only(run, ("SET", self._reconciled_key, f"{marker} {number}"))

    async def forget(self, until: float, at_most: int) -> int:
        """Remove some of the entries that may be forgotten; return how many."""
        answers, _ = await self.line.ask(("EVAL", _FORGET, 1, self._key, str(until), str(at_most)))
        return int(answers[0])

    async def _look(self, questions: Sequence[Sequence[str]]) -> Sequence[Look]:
        asked = list({member for members in questions for member in members})
        # The role comes in the same reply: a process that has just been demoted may have lost entries, not the marker.
        answers, run = await self.line.ask(("ROLE",), ("ZMSCORE", self._key, *asked))
        role, scores = answers
        found = frozenset(member for member, score in zip(asked, scores, strict=True) if score is not None)
        return [Look(found, run if role[0] == "master" else "")] * len(questions)


def new_name() -> str:
    """Return a name for a set to be filled that nobody else uses."""
    return secrets.token_hex(8)
