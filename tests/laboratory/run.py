"""Runs faults one after the other, and judges each: load, break, mend, wait for recovery, look at everything."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from tests.laboratory.checker import Rule, Violation, judge
from tests.laboratory.disk import SmallDiskPostgres
from tests.laboratory.faults import Fault
from tests.laboratory.history import Event, Outcome, Period, Terms
from tests.laboratory.load import Load
from tests.laboratory.nodes import RECOVERY_SECONDS, Laboratory, laboratory, serving

CALM_SECONDS = 0.7
"""With load and without a fault, before and after."""


@dataclass(frozen=True)
class Result:
    """What a fault has come to."""

    fault: Fault
    history: Sequence[Event] = ()
    violations: Sequence[Violation] = ()
    recovery_seconds: float | None = None
    """From its end until both nodes had all again, by themselves; None: not within the time given."""
    lag_seconds: float = 0.0
    not_run_because: str = ""

    @property
    def unavailable(self) -> int:
        """How many requests were answered with 503."""
        return sum(event.outcome is Outcome.UNAVAILABLE for event in self.history)

    @property
    def worst_seconds(self) -> float:
        """The longest that anybody waited for an answer."""
        return max((e.seconds for e in self.history if e.outcome is not Outcome.SILENCE), default=0.0)


async def run(faults: Sequence[Fault], directory: Path, *, seconds: float, seed: int) -> AsyncGenerator[Result, None]:
    """Try one fault after the other on the same servers, which must get over each of them."""
    waiting = list(faults)
    async with laboratory(directory, SmallDiskPostgres()) as lab:
        while waiting:
            environment = waiting[0].environment
            async with serving(lab, more_for_a=environment(lab) if environment else None) as served:
                while waiting and waiting[0].environment is environment:
                    result = await tried(served, waiting.pop(0), seconds=seconds, seed=seed)
                    yield result
                    if result.recovery_seconds is None and not result.not_run_because:
                        break  # the others are not to suffer: new servers


async def tried(
    lab: Laboratory, fault: Fault, *, seconds: float, seed: int = 1, calm_seconds: float = CALM_SECONDS
) -> Result:
    """Break and mend the laboratory under load, and judge what was answered."""
    if reason := fault.why_not(lab):
        return Result(fault, not_run_because=reason)
    lab.found.clear()
    load = Load(lab, seed)
    load.start()
    try:
        await asyncio.sleep(calm_seconds)
        began = monotonic()
        async with fault.broken(lab):
            await asyncio.sleep(seconds)
        mended = monotonic()
        recovery_seconds = await lab.recovered()
        recovered = monotonic()
        await asyncio.sleep(calm_seconds)
    finally:
        await load.stop()
    if recovery_seconds is not None:
        await load.verify()
    terms = Terms(
        without_database={name: Period(began, recovered) for name in fault.without_database},
        locked_out={name: Period(began, recovered) for name in fault.locked_out},
        stopped={name: Period(began, mended) for name in fault.stopped},
        do_clocks_agree=fault.do_clocks_agree,
        lag_seconds=load.lag_seconds,
    )
    violations = [*lab.found, *judge(load.asker.history, terms)]
    if recovery_seconds is None:
        violations.append(Violation(Rule.RECOVERS, f"not within {RECOVERY_SECONDS:.0f} seconds"))
    return Result(fault, load.asker.history, violations, recovery_seconds, load.lag_seconds)
