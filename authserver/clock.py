"""The one clock for dates: what is stored, signed and compared comes from here (freezegun moves it)."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the current time, aware, UTC."""
    return datetime.now(UTC)
