"""The denylist's protocol as a machine whose every run can be tried: its steps, its faults, and what must always hold.

The state is a `World` (world.py). Each step below is what some process can do next, or what can befall it; any may come
at any time, and none has to, so a slow, stopped or cut off process is one whose steps do not come. What a step may
conclude is decided by `authserver.tokens.protocol`, the very functions that the server calls; `Machinery` is what the
server does around them with transactions and scripts, so that a mutant can leave it out.

* S1: no check that starts after the 200 of the revocation says "live".
* S2: no check that starts after another one has said "revoked" says "live".
* S3: nobody hears "revoked" if nobody has revoked.
* Liveness: whatever has happened, the nodes get to a trusted and complete copy by themselves once the faults stop.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from authserver.tokens import protocol
from authserver.tokens.protocol import Distrust, Duty, Finding, State, Verdict
from tests.model import faults
from tests.model.world import (
    ANOTHER,
    ENTRY,
    Node,
    Poll,
    Process,
    Publishing,
    Refill,
    Steps,
    World,
    Writing,
    age_epochs,
    fresh_name,
    in_order,
    is_forgotten,
    put,
)


@dataclass(frozen=True)
class Machinery:
    """What transactions and scripts see to, beside the rules."""

    commits_before_redis: bool = True
    commits_before_200: bool = True
    locks_the_count: bool = True
    locks_the_install: bool = True
    copies_what_came_meanwhile: bool = True
    counts_before_install: bool = True
    installs_before_trust: bool = True
    keeps_marker_and_entries_in_one_key: bool = True
    adds_only_beside_the_marker: bool = True
    asks_for_the_role: bool = True
    adds_only_in_the_named_process: bool = True
    asks_who_added: bool = True
    adds_what_a_check_finds: bool = True
    reconciles: bool = True


@dataclass(frozen=True)
class Model:
    """The protocol within bounds: ticks of a lease, faults in one run, nodes that answer checks."""

    lease: int = 1
    faults: int = 1
    nodes: int = 2
    revokes: bool = True
    machinery: Machinery = Machinery()
    memory: int = 0
    """Ticks for which leases that have run out and replies that are too old are kept; by the rules they are nothing."""

    @property
    def long_ago(self) -> int:
        """A moment before every lease that may still hold."""
        return -self.lease - 1

    def starts(self) -> Iterator[World]:
        """A database that never had a copy, and a trusted copy."""
        nodes = (Node(),) * self.nodes
        known = Distrust(0, self.long_ago)
        empty = Process("a", "", has_entry=False)
        yield World(protocol.NEVER_TRUSTED, known, empty, nodes=nodes, faults=self.faults)
        state = protocol.trust(protocol.NEVER_TRUSTED, "a", protocol.marker(protocol.NEVER_TRUSTED, "a", "m"))
        yield World(state, known, empty._replace(marker=state.marker), nodes=nodes, faults=self.faults)

    def steps(self, world: World) -> Steps:
        """Yield everything that can happen next."""
        for take in (_tick, _revoke, _publish, _find, _check, _poll, _refill, _suffer):
            for label, after in take(self, world):
                yield label, _settled(after)

    def broken(self, world: World) -> str | None:
        """Name the property that does not hold in this world, if any."""
        if not (world.is_acknowledged or world.is_told):
            return None
        if not world.is_committed:
            return "S1" if world.is_acknowledged else "S3"
        looks = ((node, process) for node in world.nodes for process in world.processes())
        if any(_verdict(self, node, process, ENTRY) is Verdict.LIVE for node, process in looks):
            return "S1" if world.is_acknowledged else "S2"
        return None

    def is_mended(self, world: World) -> bool:
        """Tell whether there is a trusted copy in the newest master, and it is complete."""
        master, db = world.master, world.db
        is_there = db.is_trusted and (db.run, db.marker) == (master.run, master.marker)
        return is_there and (master.has_entry or not world.is_committed)


BY_CLIENTS = ("revoke: ", "find: a check ", "fault: ")
"""Steps that the nodes do not take by themselves."""


def _settled(world: World) -> World:
    """Make worlds equal that nothing can tell apart; and as soon as an entry can be seen, somebody has seen it."""
    for process in world.processes():
        if process.marker and process.marker != world.db.marker and is_forgotten(world, process.marker):
            world = put(world, process, process._replace(marker=""))
        if process.has_entry and not world.is_told:
            world = world._replace(is_told=True)
    if world.is_acknowledged and not world.is_told:
        world = world._replace(is_told=True)
    nodes = in_order(world.nodes)
    return world if nodes == world.nodes else world._replace(nodes=nodes)


def _verdict(model: Model, node: Node, process: Process, entry: str) -> Verdict:
    """One look of a node at a process, for one token."""
    found = {member for member in (process.marker, process.has_entry and ENTRY) if member}
    is_asked = process.is_master or not model.machinery.asks_for_the_role
    return protocol.judge((entry,), found, process.run if is_asked else "", node.lease, 0)


def _distrust(world: World, suspect: State) -> World:
    """The transaction that ends an epoch; some process knows of it at once."""
    db = protocol.distrust(world.db, suspect)
    if db == world.db:
        return world
    # Which copy was trusted before does not matter any more.
    return age_epochs(world._replace(db=db._replace(run="", marker=""), known=protocol.notice(world.known, db, 0)))


def _tick(model: Model, world: World) -> Steps:
    """Let time pass."""

    def node(before: Node) -> Node:
        lease = before.lease._replace(until=before.lease.until - 1)
        poll = before.poll and before.poll._replace(asked_at=before.poll.asked_at - 1)
        is_old = poll is not None and poll.asked_at <= -model.lease - model.memory
        return Node(lease if lease.until > -model.memory else protocol.NO_LEASE, None if is_old else poll)

    def writing(before: Writing | None) -> Writing | None:
        if before is None or before.asked_at is None:
            return before
        oldest = -model.lease - model.memory
        state = before.state if before.asked_at - 1 > oldest else protocol.NEVER_TRUSTED  # it is of no use any more
        return before._replace(state=state, asked_at=max(before.asked_at - 1, oldest))

    def publishing(before: Publishing | None) -> Publishing | None:
        if before is None or before.waits_until is None:
            return before
        return before._replace(waits_until=max(before.waits_until - 1, 0))

    yield (
        "tick",
        world._replace(
            known=world.known._replace(since=max(world.known.since - 1, model.long_ago)),
            nodes=tuple(map(node, world.nodes)),
            writer=writing(world.writer),
            revoker=publishing(world.revoker),
            finder=publishing(world.finder),
        ),
    )


def _revoke(model: Model, world: World) -> Steps:
    """The client's request, which it may repeat after a crash or a 503, until it has its 200."""
    machinery, writer = model.machinery, world.writer
    is_locked = machinery.locks_the_install and world.refill is not None and world.refill.stage != "copied"
    if writer is None:
        if model.revokes and world.revoker is None and not world.is_acknowledged:
            if world.is_committed:
                yield "revoke: read the state", world._replace(revoker=Publishing(world.db))
            else:
                yield "revoke: begin", world._replace(writer=Writing(world.db, 0))
    elif writer.has_written:
        is_good = writer.asked_at is None or protocol.is_fresh(writer.state, writer.asked_at, 0, model.lease)
        revoker = Publishing(writer.state) if is_good else None
        yield "revoke: commit", world._replace(writer=None, revoker=revoker, is_committed=True)
        yield "crash: the writer", world._replace(writer=None)
    elif not is_locked:
        writing = world._replace(writer=writer._replace(has_written=True))
        yield "revoke: write", writing
        yield "revoke: write, read the state", world._replace(writer=Writing(world.db, None, has_written=True))
        if not machinery.commits_before_redis:
            yield "revoke: Redis first", put(writing, world.master, world.master._replace(has_entry=True))
        if not machinery.commits_before_200:
            yield "revoke: 200 first", writing._replace(is_acknowledged=True)


def _publish(model: Model, world: World) -> Steps:
    """What is owed before the revoker answers 200, or a check "revoked"."""
    if world.revoker is not None:
        yield "crash: the revoker", world._replace(revoker=None)
        for label, after, left in _owe(model, world, world.revoker):
            is_done = left is None
            yield f"revoke: {label}", after._replace(revoker=left, is_acknowledged=world.is_acknowledged or is_done)
    if world.finder is not None:
        yield "crash: the finder", world._replace(finder=None)
        for label, after, left in _owe(model, world, world.finder):
            yield f"find: {label}", after._replace(finder=left, is_told=world.is_told or left is None)


def _owe(model: Model, world: World, who: Publishing) -> Iterator[tuple[str, World, Publishing | None]]:
    """Yield the steps of somebody who owes something, and what is still owed; None is nothing.

    A lost reply to an adding leaves them where they were: it is a failed one later.
    """
    if who.waits_until is not None:
        if who.waits_until <= 0:
            yield "waited", world, None
        return
    if protocol.duty(who.state) is Duty.ADD:
        for process in world.processes():
            is_there = process.marker == who.state.marker or not model.machinery.adds_only_beside_the_marker
            is_named = process.run == who.state.run
            if is_there and process.is_master and (is_named or not model.machinery.adds_only_in_the_named_process):
                after = put(world, process, process._replace(has_entry=True))
                yield f"add in {process.run}, the reply is lost", after, who
                is_added = is_named or not model.machinery.asks_who_added
                yield f"add in {process.run}", *_then(model, after, who.state, is_added)
        yield "not added", *_then(model, world, who.state, is_added=False)
    else:
        yield "wait", *_then(model, world, who.state, None)


def _then(model: Model, world: World, state: State, is_added: bool | None) -> tuple[World, Publishing | None]:
    """Go on from what came of adding until something has to be waited for."""
    duty = protocol.duty(state, is_added)
    if duty is Duty.NONE:
        return world, None
    if duty is Duty.DISTRUST:
        after = _distrust(world, state)
        return after, Publishing(after.db)
    known = protocol.notice(world.known, state, 0)
    return world, Publishing(protocol.NEVER_TRUSTED, waits_until=max(protocol.believed_until(known, model.lease), 0))


def _find(model: Model, world: World) -> Steps:
    """A check that asks the database, or reconcile, comes upon the entry."""
    if world.is_committed and world.finder is None:
        if not world.is_told:
            finder = Publishing(world.db) if model.machinery.adds_what_a_check_finds else None
            is_told = not model.machinery.adds_what_a_check_finds
            yield "find: a check asks the database", world._replace(finder=finder, is_told=is_told)
        if world.db.is_trusted and model.machinery.reconciles and not world.master.has_entry:
            yield "find: reconcile", world._replace(finder=Publishing(world.db))


def _check(model: Model, world: World) -> Steps:
    """A check of some token misses the marker. What checks answer changes nothing; `Model.broken` looks at that."""
    for node in world.nodes:
        for process in world.processes():
            if _verdict(model, node, process, ANOTHER) is Verdict.LOST:
                yield "check: the marker is lost", _distrust(world, node.lease.state)


def _poll(model: Model, world: World) -> Steps:
    """A node asks the database, and later has the reply, and the name of whichever Redis process answers it."""
    for number, node in enumerate(world.nodes):

        def with_node(after: World, changed: Node, number: int = number) -> World:
            return after._replace(nodes=(*after.nodes[:number], changed, *after.nodes[number + 1 :]))

        if node.poll is None:
            if world.db.is_trusted:
                yield "poll: ask", with_node(world, node._replace(poll=Poll(world.db, 0)))
            continue
        for process in world.processes():
            finding = protocol.compare(node.poll.state, process.run if process.is_master else "")
            done = with_node(world, node._replace(poll=None))
            if finding is Finding.SOUND:
                lease = protocol.grant(node.poll.state, node.poll.asked_at, model.lease)
                yield "poll: lease", with_node(world, Node(lease if lease.until > -model.memory else protocol.NO_LEASE))
            elif finding is Finding.MOVED:
                yield "poll: another process", _distrust(done, node.poll.state)


def _refill(model: Model, world: World) -> Steps:
    """One node makes a new copy; it may die, or the command that puts the copy in place may arrive after it has."""
    refill, machinery = world.refill, model.machinery
    if refill is None:
        if protocol.may_refill(world.known, model.lease, 0):
            yield from _begin(model, world)
        return
    yield "crash: the refill", world._replace(refill=None)
    if refill.stage == "copied":
        if world.db != refill.state:
            yield "refill: it is over", world._replace(refill=None)
        elif not (world.is_being_written() and machinery.locks_the_install):
            is_new = world.is_committed and not refill.is_counted and machinery.copies_what_came_meanwhile
            locked = refill._replace(stage="locked", has_entry=refill.has_entry or is_new)
            yield "refill: lock, copy what came meanwhile", world._replace(refill=locked)
    elif refill.stage == "locked":
        if not machinery.installs_before_trust:
            trusted = protocol.trust(refill.state, refill.run, refill.marker)
            yield "refill: trust first", world._replace(db=trusted)
        for process in world.processes():
            is_good = refill.is_whole or not machinery.counts_before_install
            if process.run == refill.run and process.is_master and is_good:
                installed = process._replace(marker=refill.marker, has_entry=refill.has_entry and refill.is_whole)
                after = put(world, process, installed)
                yield "refill: install", after._replace(refill=refill._replace(stage="installed"))
                yield "refill: install, the reply is lost", after._replace(refill=None)
    else:
        yield "refill: commit", world._replace(refill=None, db=protocol.trust(refill.state, refill.run, refill.marker))


def _begin(model: Model, world: World) -> Steps:
    """The first pass: what has been committed up to the last number, which another revocation may have."""
    is_hidden = world.is_being_written() and not world.is_committed
    for process in world.processes():
        finding = protocol.compare(world.db, process.run if process.is_master else "")
        if finding is Finding.UNTRUSTED and not (world.is_being_written() and model.machinery.locks_the_count):
            marker = protocol.marker(world.db, process.run, fresh_name(world))
            refill = Refill(world.db, process.run, marker, world.is_committed, is_counted=world.is_committed)
            yield f"refill: copy to {process.run}", world._replace(refill=refill)
            if is_hidden:
                yield f"refill: count, copy to {process.run}", world._replace(refill=refill._replace(is_counted=True))


def _suffer(model: Model, world: World) -> Steps:
    """Faults, while there may be any; and what heals."""
    yield from faults.heal(world)
    yield from faults.befall(world, is_one_key=model.machinery.keeps_marker_and_entries_in_one_key)
