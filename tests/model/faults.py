"""What befalls Redis, and what comes by itself afterwards."""

from collections.abc import Iterator

from tests.model.world import Late, Process, Steps, World, bury, fresh_run, put


def heal(world: World) -> Steps:
    """What comes by itself: a former master goes or obeys, a late command arrives."""
    if world.old is not None:
        yield "heal: the old master goes", bury(world._replace(old=None), world.old.run)
        if world.old.is_master:
            obeying = world.master._replace(run=world.old.run, is_master=False)
            yield "heal: the old master obeys the new one", world._replace(old=obeying)
    if world.late is not None:
        for process in world.processes():
            if process.run == world.late.run and process.is_master:
                came = process._replace(marker=world.late.marker, has_entry=world.late.has_entry)
                yield "late: install", put(world, process, came)._replace(late=None)
        yield "late: never", world._replace(late=None)


def befall(world: World, *, is_one_key: bool) -> Steps:
    """What may befall Redis, and a command that is late."""
    if not world.faults:
        return
    before, refill, master = world._replace(faults=world.faults - 1), world.refill, world.master
    spoilt = refill and refill._replace(is_whole=False)
    gone = put(before, master, master._replace(marker="", has_entry=False))
    yield "fault: the copy is evicted", gone
    yield "fault: flush", gone._replace(refill=spoilt, late=None)
    if spoilt is not None:
        yield "fault: the new copy is evicted", before._replace(refill=spoilt)
    if refill is not None and refill.stage == "locked" and refill.is_whole:
        late = Late(refill.run, refill.marker, refill.has_entry)
        yield "fault: the refill is given up, its install comes late", before._replace(refill=None, late=late)
    run = fresh_run(world)
    for label, marker, has_entry in _remembered(master):
        again = before._replace(master=Process(run, marker, has_entry))
        yield f"fault: restart {label}", bury(again, master.run)
        split = again._replace(old=master)
        yield f"fault: failover {label}", split if world.old is None else bury(split, world.old.run)
    if not is_one_key:
        yield "fault: the entries are evicted", put(before, master, master._replace(has_entry=False))


def _remembered(master: Process) -> Iterator[tuple[str, str, bool]]:
    """What a process has that takes a master's place: nothing, an old dump, or everything."""
    yield "empty", "", False
    if master.marker:
        yield "from an old dump", master.marker, False
        if master.has_entry:
            yield "with everything", master.marker, True
