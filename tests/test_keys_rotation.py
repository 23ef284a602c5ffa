"""No verifier that honours max-age meets an unknown kid, no live token loses its key: at any timing, by the rules."""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import pytest

from authserver.keys import rotation
from authserver.keys.rotation import Dated
from authserver.settings import Settings
from tests.model.keys import Machinery, Simulation

UNKNOWN = "a verifier that honours max-age has met an unknown kid"
LOST = "a live token has lost its key on a node"
TWO = "two successors are announced although nobody asked for one"


def test_the_rules_hold_at_any_timing() -> None:
    rotations = verified = 0
    for seed in range(600):
        simulation = Simulation(seed)
        assert simulation.run() is None, (seed, simulation.broken)
        rotations += simulation.rotations
        verified += simulation.verified
    assert rotations > 5_000  # or else the simulation has lost what it should try
    assert verified > 30_000


def successor_without_a_look_at_the_announced(
    keys: Collection[Dated], period: timedelta, announced: timedelta
) -> datetime:
    return max(key.signs_from for key in keys) + period - announced


@pytest.mark.parametrize(
    ("rule", "mutant", "breaks"),
    [
        ("announcement", lambda _max_age: rotation.LEEWAY, {UNKNOWN}),
        ("announcement", lambda max_age: timedelta(seconds=max_age), {UNKNOWN}),
        ("max_age_seconds", lambda _age, max_age: max_age, {UNKNOWN}),
        ("may_sign", lambda _age, _announced: True, {UNKNOWN, LOST}),
        ("retired_at", lambda signs_from: signs_from + rotation.LEEWAY, {UNKNOWN, LOST}),
        ("retired_at", lambda signs_from: signs_from + rotation.LONGEST_LIFE, {UNKNOWN, LOST}),
        ("signer", lambda keys, _now: max(keys, key=lambda key: key.signs_from), {UNKNOWN}),
        ("verifies", lambda key, _now: key.verifies_until is None, {UNKNOWN, LOST, "no key signs"}),
        ("signs_from", lambda _before, now, announced: now + announced, {UNKNOWN, LOST, "no key signs"}),
        ("successor_at", successor_without_a_look_at_the_announced, {TWO}),
    ],
    ids=[
        "no max-age in the announcement", "no leeway in the announcement", "an old reading is as good as a new one",
        "an old reading still signs", "the old key goes with the handover", "no leeway after the last token",
        "the announced key signs", "a key with a successor is forgotten",
        "a key may sign from before its predecessor does", "announced keys are overlooked",
    ],
)  # fmt: skip
def test_no_rule_can_be_left_out(rule: str, mutant: Callable[..., Any], breaks: set[str]) -> None:
    with mock.patch.object(rotation, rule, mutant):
        assert first_break() in breaks


@pytest.mark.parametrize(
    ("machinery", "breaks"),
    [
        (Machinery(decides_again_under_the_lock=False), TWO),
        (Machinery(uses_the_database_clock=False), UNKNOWN),
    ],
    ids=["who waited for the lock does not look again", "each node goes by its own clock"],
)
def test_nothing_can_be_left_out_of_the_machinery(machinery: Machinery, breaks: str) -> None:
    assert first_break(machinery) == breaks


def test_no_setting_lets_a_token_live_longer_than_its_key() -> None:
    longest = next(limit.le for limit in Settings.model_fields["access_token_seconds"].metadata if hasattr(limit, "le"))
    assert timedelta(seconds=longest) <= rotation.LONGEST_LIFE


def first_break(machinery: Machinery | None = None) -> str | None:
    """Return what breaks in the first simulation in which something does."""
    runs = (Simulation(seed, machinery or Machinery()).run() for seed in range(3000))
    return next((broken for broken in runs if broken), None)
