"""Contestants take turns (A B A B): the median of the rounds is what counts."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Protocol

_WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Sample:
    """One contestant for some seconds. Absent is what does not apply."""

    per_second: float
    p50_ms: float
    p99_ms: float
    server_us: float
    """Processor time of the worker processes a request, in µs; the supervisor, which sleeps, is left out."""
    stores_us: float | None = None
    """The same of PostgreSQL and Valkey."""
    generator_share: float | None = None
    """How much of one core the generator used: near 1.0 the generator is what was measured."""
    failures: int = 0
    """Answers of 400 and above, lost connections, time-outs."""
    notes: list[str] = field(default_factory=list)


class Contestant(Protocol):
    """Something that can be measured."""

    @property
    def name(self) -> str:
        """For programs."""

    @property
    def title(self) -> str:
        """For people."""

    async def measure(self, seconds: float) -> Sample:
        """Run for about so long."""


async def take_turns(
    contestants: Sequence[Contestant], rounds: int, seconds: float, say: Callable[[str], None]
) -> dict[str, list[Sample]]:
    """Measure each in every round, after one that does not count; return the samples by the contestants' names."""
    samples: dict[str, list[Sample]] = {contestant.name: [] for contestant in contestants}
    for contestant in contestants:
        await contestant.measure(_WARM_UP_SECONDS)
    for number in range(1, rounds + 1):
        for contestant in contestants:
            sample = await contestant.measure(seconds)
            samples[contestant.name].append(sample)
            say(f"  {number}/{rounds} {contestant.title}: {sample.per_second:,.0f}/s, {sample.server_us:,.0f} µs")
    return samples


def median(samples: Sequence[Sample]) -> Sample:
    """Return the median of each figure; failures add up, notes are said once."""
    figures = {}
    for name in (part.name for part in fields(Sample) if part.name not in ("failures", "notes")):
        values = [value for sample in samples if (value := getattr(sample, name)) is not None]
        figures[name] = statistics.median(values) if values else None
    notes = list(dict.fromkeys(note for sample in samples for note in sample.notes))
    return Sample(**figures, failures=sum(sample.failures for sample in samples), notes=notes)  # type: ignore[arg-type]


def as_json(samples: dict[str, list[Sample]]) -> dict[str, object]:
    """Return every sample and the medians, for `--json`."""
    return {
        name: {"median": asdict(median(taken)), "rounds": [asdict(sample) for sample in taken]}
        for name, taken in samples.items()
    }
