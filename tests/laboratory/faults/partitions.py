"""All 16 partitions of {node A, node B} × {PostgreSQL, Redis}, with every endpoint as in the matrix."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from itertools import product

from tests.laboratory import matrix
from tests.laboratory.faults.fault import fault
from tests.laboratory.nodes import Laboratory

EDGES = ("A-postgres", "A-redis", "B-postgres", "B-redis")
_SETTLED_SECONDS = 1.5
"""No lease and no short memory of clients is left by then."""


async def partition(cut: tuple[str, ...], lab: Laboratory) -> AsyncIterator[None]:
    """Some edges are black holes; once nobody lives on what was, every endpoint is asked on every node."""
    prepared = await matrix.prepare(lab)
    for name in cut:
        lab.edge(*name.split("-")).swallow()
    await asyncio.sleep(_SETTLED_SECONDS)
    await asyncio.gather(*(matrix.ask(lab, node, prepared, cut) for node in lab.nodes))
    yield
    for name in cut:
        await lab.edge(*name.split("-")).mend()


for _is_cut in product((False, True), repeat=len(EDGES)):
    _cut = tuple(name for name, is_cut in zip(EDGES, _is_cut, strict=True) if is_cut)
    _short = "+".join(name[0] + name[2] for name in _cut) or "none"
    _said = ", ".join(name.replace("-postgres", "–PostgreSQL").replace("-redis", "–Redis") for name in _cut) or "nobody"
    _without_database = "".join(name[0] for name in _cut if name.endswith("postgres"))
    fault(
        f"partition-{_short}", f"cut off: {_said}", without_database=_without_database,
        locked_out="AB" if _without_database else "",
    )(partial(partition, _cut))  # fmt: skip
