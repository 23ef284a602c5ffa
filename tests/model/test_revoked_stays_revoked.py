"""The denylist's protocol holds in every order of steps within small bounds; without any of its rules it does not."""

import pytest

from tests.model.denylist import Model
from tests.model.explore import LIVENESS, SAFETY, explore
from tests.model.mutants import MUTANTS, Mutant

pytestmark = pytest.mark.timeout(300)


def test_the_protocol_holds_whatever_happens_once() -> None:
    result = explore(Model(lease=1, faults=1, nodes=1), (*SAFETY, LIVENESS))
    assert result.broken is None, " → ".join(result.path)
    assert result.worlds > 100_000  # or else the model has lost steps


def test_the_protocol_holds_on_two_nodes_if_only_networks_and_processes_fail() -> None:
    result = explore(Model(lease=1, faults=0, nodes=2), (*SAFETY, LIVENESS))
    assert result.broken is None, " → ".join(result.path)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_no_rule_can_be_left_out(mutant: Mutant) -> None:
    result = mutant.catch()
    print(f"{result.broken}: {' → '.join(result.path)}")  # noqa: T201
    assert result.broken == mutant.breaks
