"""Tries every run of a model, breadth first, so that the path to a broken property is a shortest one."""

from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from struct import Struct

from tests.model.denylist import BY_CLIENTS, Model
from tests.model.world import World

_FIELDS = len(World._fields)
_PACK = Struct(f"{_FIELDS}H")
_NOBODY = 2**32 - 1


@dataclass(frozen=True)
class Result:
    """What came of it: how many worlds there are, and the path to one where a property does not hold."""

    worlds: int
    broken: str | None = None
    path: tuple[str, ...] = ()


class Packing:
    """Worlds as short strings of bytes: each field's values are numbered, two bytes for each."""

    def __init__(self) -> None:
        self._numbers: list[dict[object, int]] = [{} for _ in range(_FIELDS)]
        self._values: list[list[object]] = [[] for _ in range(_FIELDS)]

    def pack(self, world: World, before: World | None = None, packed: bytes = b"") -> bytes:
        """Return a world's bytes, faster if most of its fields are those of another one."""
        if before is None:
            return _PACK.pack(*map(self._number, range(_FIELDS), world))
        numbers = list(_PACK.unpack(packed))
        for field, value in enumerate(world):
            if value is not before[field]:
                numbers[field] = self._number(field, value)
        return _PACK.pack(*numbers)

    def unpack(self, packed: bytes) -> World:
        """Return the world of these bytes."""
        return World(*(values[number] for values, number in zip(self._values, _PACK.unpack(packed), strict=True)))

    def _number(self, field: int, value: object) -> int:
        number = self._numbers[field].get(value)
        if number is None:
            assert len(self._values[field]) < 2**16
            number = self._numbers[field][value] = len(self._values[field])
            self._values[field].append(value)
        return number


SAFETY = ("S1", "S2", "S3")
LIVENESS = "liveness"


def explore(model: Model, properties: Collection[str], *, at_most: int = 50_000_000) -> Result:
    """Look for a world where one of the properties does not hold."""
    liveness = LIVENESS in properties
    packing, worlds = Packing(), list[bytes]()
    seen: dict[bytes, int] = {}
    parents, edges, ends = array("I"), array("I"), array("I")
    mended = bytearray()

    def add(packed: bytes, parent: int) -> int:
        number = seen.setdefault(packed, len(worlds))
        if number == len(worlds):
            worlds.append(packed)
            parents.append(parent)
        return number

    for start in model.starts():
        add(packing.pack(start), _NOBODY)
    number = 0
    while number < len(worlds):
        assert number < at_most, "more worlds than expected"
        world = packing.unpack(worlds[number])
        broken = model.broken(world)
        if broken in properties:
            return Result(len(worlds), broken, _path(model, packing, worlds, parents, number))
        if liveness:
            mended.append(model.is_mended(world))
        for label, after in model.steps(world):
            next_ = add(packing.pack(after, world, worlds[number]), number)
            if liveness and not label.startswith(BY_CLIENTS):
                edges.append(next_)
        ends.append(len(edges))
        number += 1
    if liveness:
        _spread(mended, edges, ends)
        if 0 in mended:
            return Result(number, LIVENESS, _path(model, packing, worlds, parents, mended.index(0)))
    return Result(number)


def _spread(mended: bytearray, edges: "array[int]", ends: "array[int]") -> None:
    """Mark every world from which a marked one can be reached."""
    is_changed = True
    while is_changed:
        is_changed = False
        for number in range(len(mended) - 1, -1, -1):
            if not mended[number]:
                begin = ends[number - 1] if number else 0
                if any(mended[edge] for edge in edges[begin : ends[number]]):
                    mended[number] = is_changed = True


def _path(model: Model, packing: Packing, worlds: list[bytes], parents: "array[int]", number: int) -> tuple[str, ...]:
    """Return the steps that led to a world."""

    def backwards(number: int) -> Iterator[str]:
        while parents[number] != _NOBODY:
            goal, number = worlds[number], parents[number]
            steps = model.steps(packing.unpack(worlds[number]))
            yield next(label for label, after in steps if packing.pack(after) == goal)

    return tuple(backwards(number))[::-1]
