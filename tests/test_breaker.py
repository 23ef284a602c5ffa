"""What opens a breaker, and what does not."""

from contextlib import suppress

import pytest

from authserver.breaker import Breaker
from authserver.errors import StoreUnavailable

SECONDS = 60.0


@pytest.fixture
def breaker() -> Breaker:
    return Breaker("redis", max_failures=2, probe_seconds=60.0)


def fail(breaker: Breaker) -> None:
    with suppress(OSError), breaker.admit((OSError,), SECONDS):
        raise OSError


def succeed(breaker: Breaker) -> None:
    with breaker.admit((OSError,), SECONDS):
        pass


def test_it_opens_after_so_many_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker)
    succeed(breaker)
    fail(breaker)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"
    with pytest.raises(StoreUnavailable), breaker.admit((OSError,), SECONDS):
        pytest.fail("it was let through")


def test_a_failure_older_than_the_newest_answer_is_old_news(breaker: Breaker) -> None:
    """As when a slow line is mended: what was under way fails after what came later has been answered."""
    for _ in range(3):
        with suppress(OSError), breaker.admit((OSError,), SECONDS):
            succeed(breaker)
            raise OSError
    assert breaker.state == "closed"
    for _ in range(2):
        fail(breaker)
    assert breaker.state == "open"
