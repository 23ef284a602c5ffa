"""What the model knows of the world at one moment. One access token, entry `j`, is revoked, or not, or not yet.

Moments are relative: now is always 0, and a tick moves everything else into the past. So the model has no horizon.
Names and epochs that nothing tells apart any more are made equal; so there are finitely many worlds.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from authserver.tokens.protocol import NO_LEASE, Distrust, Lease, State

ENTRY = "j"
ANOTHER = "k"
"""The entry that would revoke a token which nobody revokes."""
DEAD = "x"
"""The name of all Redis processes that are gone."""
NEWEST = 2
"""The largest number of an epoch: before another one, the older ones become one."""


class Process(NamedTuple):
    """A Redis process and the set that it holds."""

    run: str
    marker: str
    has_entry: bool
    is_master: bool = True


class Poll(NamedTuple):
    """A reply of the database that is under way to a node, and when the question was sent."""

    state: State
    asked_at: int


class Node(NamedTuple):
    """A process of the server that answers checks."""

    lease: Lease = NO_LEASE
    poll: Poll | None = None


class Publishing(NamedTuple):
    """Somebody who owes something before others may hear of the entry (protocol.duty)."""

    state: State
    waits_until: float | None = None


class Writing(NamedTuple):
    """A revocation that is not committed yet, and the state as it was when its statement began."""

    state: State
    asked_at: int | None
    """When it began; None if the state was read in a statement of its own, under the lock."""
    has_written: bool = False
    """It shares the lock; before that, it may wait for it."""


class Refill(NamedTuple):
    """A new copy in the making."""

    state: State
    run: str
    marker: str
    has_entry: bool
    is_counted: bool
    """The entry's number is one of those that the first pass copied."""
    is_whole: bool = True
    """Nothing of the new key has been evicted."""
    stage: str = "copied"
    """Then "locked", when the second pass is done, and "installed"."""


class Late(NamedTuple):
    """A command that puts a new copy in place, sent by a process that has given up since."""

    run: str
    marker: str
    has_entry: bool


class World(NamedTuple):
    """Everything, at one moment."""

    db: State
    known: Distrust
    """What a process knows that was the first to know."""
    master: Process
    old: Process | None = None
    """A former master that some still talk to."""
    nodes: tuple[Node, ...] = (Node(), Node())
    is_committed: bool = False
    writer: Writing | None = None
    revoker: Publishing | None = None
    finder: Publishing | None = None
    """Somebody who has found the entry in the database: a check, or reconcile."""
    refill: Refill | None = None
    late: Late | None = None
    is_acknowledged: bool = False
    is_told: bool = False
    """Some check has answered "revoked"."""
    faults: int = 0
    """So many may still happen."""

    def processes(self) -> Iterator[Process]:
        """All Redis processes that may answer."""
        yield self.master
        if self.old is not None:
            yield self.old

    def is_being_written(self) -> bool:
        """Tell whether a revocation is between its write and its commit."""
        return self.writer is not None and self.writer.has_written


Steps = Iterator[tuple[str, World]]
"""What can happen next, and what the world is then."""


def put(world: World, old: Process, new: Process) -> World:
    """Replace one process by what has become of it."""
    return world._replace(master=new) if world.master is old else world._replace(old=new)


def bury(world: World, run: str) -> World:
    """Let a Redis process be forgotten, with all that was under way to it."""
    late = None if world.late is not None and world.late.run == run else world.late
    return _rename(world._replace(late=late), 0, run)


def age_epochs(world: World) -> World:
    """Keep the epochs small."""
    return _rename(world, 1, "") if world.db.epoch > NEWEST else world


def fresh_run(world: World) -> str:
    """Return a name for a new Redis process."""
    return next(run for run in "abc" if run not in {process.run for process in world.processes()})


def fresh_name(world: World) -> str:
    """Return a name for a new copy that is in no marker anywhere."""
    return next(name for name in "mnopqrstuvwxyz" if name not in set(_names(world)))


def is_forgotten(world: World, marker: str) -> bool:
    """Tell whether nobody knows this marker any more but the process that has it."""
    return all(holder.marker != marker for holder in _holders(world))


@cache
def in_order(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Return the nodes in an order that does not matter."""
    return tuple(sorted(nodes, key=repr))


def _names(world: World) -> Iterator[str]:
    return (holder.marker.rpartition(":")[2] for holder in (*_holders(world), *world.processes()))


def _holders(world: World) -> Iterator[State | Refill | Late]:
    yield world.db
    for waiting in (world.writer, world.revoker, world.finder, world.refill):
        if waiting is not None:
            yield waiting.state
    for holder in (world.refill, world.late):
        if holder is not None:
            yield holder
    for node in world.nodes:
        yield node.lease.state
        if node.poll is not None:
            yield node.poll.state


def _rename(world: World, epochs: int, run: str) -> World:
    """Subtract from all epochs, and let a Redis process be a dead one, wherever they are spoken of."""

    def process(before: Process | None) -> Process | None:
        return before and before._replace(marker=_marker(before.marker, epochs, run))

    def publishing(before: Publishing | None) -> Publishing | None:
        return before and before._replace(state=_state(before.state, epochs, run))

    def node(before: Node) -> Node:
        lease = before.lease._replace(state=_state(before.lease.state, epochs, run))
        poll = before.poll and before.poll._replace(state=_state(before.poll.state, epochs, run))
        return Node(NO_LEASE if before.lease == NO_LEASE else lease, poll)

    refill, late, master = world.refill, world.late, process(world.master)
    assert master is not None
    return world._replace(
        db=_state(world.db, epochs, run),
        known=world.known._replace(epoch=_epoch(world.known.epoch, epochs)),
        master=master,
        old=process(world.old),
        nodes=tuple(map(node, world.nodes)),
        writer=world.writer and world.writer._replace(state=_state(world.writer.state, epochs, run)),
        revoker=publishing(world.revoker),
        finder=publishing(world.finder),
        refill=refill
        and refill._replace(
            state=_state(refill.state, epochs, run),
            run=DEAD if refill.run == run else refill.run,
            marker=_marker(refill.marker, epochs, run),
        ),
        late=late and late._replace(marker=_marker(late.marker, epochs, run)),
    )


def _epoch(before: int, epochs: int) -> int:
    return max(before - epochs, min(before, 1))


@cache
def _state(before: State, epochs: int, run: str) -> State:
    dead = DEAD if before.run == run else before.run
    return State(before.is_trusted, _epoch(before.epoch, epochs), dead, _marker(before.marker, epochs, run))


@cache
def _marker(before: str, epochs: int, run: str) -> str:
    if not before:
        return ""
    epoch, holder, *name = before[1:].split(":")
    return ":".join([f"!{_epoch(int(epoch), epochs)}", DEAD if holder == run else holder, *name])
