"""The rules by which signing keys come and go. They ask nobody and have no clock.

`keyring.py` carries them out with the database. `tests/test_keys_rotation.py` tries the same functions with many nodes
and verifiers at any timing. Dates are the database's, which all nodes share. Ages are in seconds since a process began
to read the keys, by a clock of its own that only runs forward.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

LONGEST_LIFE = timedelta(days=1)
"""No token lives longer, whatever ACCESS_TOKEN_SECONDS is on whichever node, or was before."""
LEEWAY = timedelta(seconds=60)
"""For commits that take their time, readings that are a few seconds old, and clocks of resource servers."""
_RECENT_SECONDS = LEEWAY.total_seconds() / 2


class Dated(Protocol):
    """What the rules need to know of a key."""

    @property
    def signs_from(self) -> datetime:
        """Before that it is only announced."""

    @property
    def verifies_until(self) -> datetime | None:
        """None until it has a successor."""


K = TypeVar("K", bound=Dated)


# ── what a key is for ──────────────────────────────────────────────────────────────────────────────────────────────


def signer(keys: Collection[K], now: datetime) -> K | None:
    """Return the key of one algorithm that signs: the newest that is past its announcement."""
    ready = [key for key in keys if key.signs_from <= now and verifies(key, now)]
    return max(ready, key=lambda key: key.signs_from, default=None)


def verifies(key: Dated, now: datetime) -> bool:
    """Tell whether a live token of this key may exist, or will."""
    return key.verifies_until is None or key.verifies_until > now


# ── when the next one comes ────────────────────────────────────────────────────────────────────────────────────────


def announcement(jwks_max_age_seconds: int) -> timedelta:
    """Return how long a key is published before it signs: until every copy of the JWKS without it has run out."""
    return timedelta(seconds=jwks_max_age_seconds) + LEEWAY


def successor_at(keys: Collection[Dated], period: timedelta, announced: timedelta) -> datetime:
    """Return when the successor must be made, to sign a period after the newest; never while that one is announced."""
    newest = max(key.signs_from for key in keys)
    return max(newest, newest + period - announced)


def signs_from(before: Collection[Dated], now: datetime, announced: timedelta) -> datetime:
    """Return when a key made now takes over: after its announcement, and after all that were made before.

    `now` is when its transaction began, which may have waited for one that began later.
    """
    return max([now + announced, *(key.signs_from + timedelta(seconds=1) for key in before)])


def retired_at(successor_signs_from: datetime) -> datetime:
    """Return when the last token of the key before is dead."""
    return successor_signs_from + LONGEST_LIFE + LEEWAY


# ── what a reading of the keys is worth ────────────────────────────────────────────────────────────────────────────


def may_sign(age_seconds: float, announced: timedelta) -> bool:
    """Tell whether a process may choose a key by what it read: a key made since cannot sign before it is announced."""
    return age_seconds < announced.total_seconds()


def max_age_seconds(age_seconds: float, jwks_max_age_seconds: int) -> int:
    """Return how long others may keep what was read: less when that is old, for it may lack the next key."""
    return max(0, min(jwks_max_age_seconds, int(jwks_max_age_seconds + _RECENT_SECONDS - age_seconds)))
