"""`authserver prune`: deletes what is over, now."""

from typing import TYPE_CHECKING

from authserver.cli import output
from authserver.cli.command import command
from authserver.cli.output import Answer
from authserver.errors import StoreUnavailable

if TYPE_CHECKING:
    from authserver.services import Services


@command
async def prune(services: "Services") -> Answer:
    """Delete what is over: sessions, revocations, counters, old keys, audit events. The server does so by itself."""
    from authserver.pruning import IN_REDIS, Elsewhere

    pruned: dict[str, int | None] = dict.fromkeys(services.pruner.kinds, 0)
    with output.counting("Pruning") as counter:

        def told(kind: str, count: int) -> None:
            pruned[kind] = (pruned[kind] or 0) + count
            counter.add(count)

        try:
            await services.pruner.run(told)
        except Elsewhere:
            output.note("A server is pruning at this moment; it does the rest.")
        except StoreUnavailable as unavailable:
            if unavailable.store != "redis":
                raise
            # It keeps what it has, and no answer changes.
            output.note(f"Redis keeps what is over for now: {unavailable}")
            pruned[IN_REDIS] = None
    return Answer(pruned)
