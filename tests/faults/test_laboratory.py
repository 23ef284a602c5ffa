"""The short form of `scripts/faults`: a few faults, and the proof that the judge would see a server that is wrong.

How quickly everything is answered, and that nothing is a 503 that need not be, is for the long run on a quiet machine.
"""

from collections.abc import AsyncIterator

import pytest

from tests.laboratory import bound, sabotage
from tests.laboratory.checker import Rule, Violation
from tests.laboratory.faults import FAULTS
from tests.laboratory.history import Outcome
from tests.laboratory.nodes import Laboratory, laboratory, serving
from tests.laboratory.run import Result, tried

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
SHORT = ["redis-flushed", "everything-killed", "postgres-hung", "redis-split-brain", "A-postgres-snapped-after"]


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Laboratory]:
    """The stores; no server yet."""
    async with laboratory(tmp_path_factory.mktemp("laboratory")) as lab:
        yield lab


@pytest.fixture(scope="module")
async def two_nodes(lab: Laboratory) -> AsyncIterator[Laboratory]:
    async with serving(lab) as served:
        yield served


def grave(result: Result | bound.Measured) -> list[str]:
    """Return the violations that a slow machine is no excuse for."""
    return [str(violation) for violation in result.violations if not _is_slowness(violation)]


def _is_slowness(violation: Violation) -> bool:
    is_503 = violation.event is not None and violation.event.outcome is Outcome.UNAVAILABLE
    return violation.rule is Rule.IN_TIME or (violation.rule is Rule.MATRIX and is_503)


@pytest.mark.parametrize(
    ("variant", "fault", "rule"),
    [
        ("redis-only", "redis-flushed", Rule.REVOKED_STAYS_REVOKED),
        ("save-then-revoke", "none", Rule.ONE_SUCCESSOR),
        ("fail-open", "everything-killed", Rule.REVOKED_STAYS_REVOKED),
    ],
)
async def test_a_server_that_breaks_a_promise_is_caught(lab: Laboratory, variant: str, fault: str, rule: Rule) -> None:
    # Clients are remembered, or most answers without a database would be 503 before anybody looks at a token.
    async with serving(lab, "A", launcher=sabotage.launcher(variant), client_cache_seconds=60) as served:
        result = await tried(served, FAULTS[fault], seconds=2, calm_seconds=2)
    assert rule in {violation.rule for violation in result.violations}


@pytest.mark.parametrize("name", SHORT)
async def test_a_fault_breaks_no_promise(two_nodes: Laboratory, name: str) -> None:
    result = await tried(two_nodes, FAULTS[name], seconds=2, calm_seconds=0.5)
    assert grave(result) == []
    assert len(result.history) > 100


@pytest.mark.parametrize("state", bound.STATES, ids=lambda state: state.name)
async def test_nothing_is_good_on_one_node_once_it_was_revoked_on_the_other(
    two_nodes: Laboratory, state: bound.State
) -> None:
    measured = await bound.measure(two_nodes, state, count=100)
    assert grave(measured) == []
    assert len(measured.dead_seconds) == 100
