"""What operators' machines ask: is the process alive, can it do its work, and how is it doing (/metrics).

Nothing here says more than one word of a store: no address, no error text. Those are in the log.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import QueuePool, text

from authserver import schema, services
from authserver.db import Database
from authserver.engine import FAILURES
from authserver.errors import StoreUnavailable
from authserver.observability import metrics
from authserver.redis import Redis
from authserver.redis_master import TAG
from authserver.services import Services

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.9
"""A store that has not answered by then is down."""
PAUSE_SECONDS = 1.0
"""However often we are asked, a process looks at a store once in this time."""
SAMPLE_SECONDS = 1.0

State = Literal["ok", "down", "read-only", "not-migrated", "off", "missing"]


class Alive(BaseModel):
    """The process answers; nothing else was looked at."""

    status: Literal["ok"] = "ok"


class Check(BaseModel):
    """One thing that is needed (the database, a signing key) or makes things fast (Redis)."""

    status: State = Field(examples=["ok"])
    breaker: Literal["closed", "open"] | None = Field(None, description="While it is open, nobody asks the store.")


class Readiness(BaseModel):
    """`degraded`: every answer is right, some take longer. `unavailable`: answers are 503."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, Check]


router = APIRouter(tags=["Operations"])


@router.get("/health/live", summary="Is the process alive?")
async def live() -> Alive:
    """Answer without touching anything: for the supervisor that restarts a process that hangs."""
    return Alive()


@router.get(
    "/health/ready",
    summary="Can it do its work?",
    responses={503: {"model": Readiness, "description": "No: send requests elsewhere, ask again after Retry-After"}},
)
async def ready(request: Request, response: Response) -> Readiness:
    """Look at the database, Redis and the keys: for the load balancer. Answers within a second, whatever hangs."""
    house = services.of(request)
    looks = _looks(request)
    database, redis = await asyncio.gather(looks["database"].state(), looks["redis"].state())
    checks = {
        "database": Check(status=database, breaker="open" if house.db.breaker.is_open else "closed"),
        "redis": Check(status=redis, breaker="open" if house.redis.breaker.is_open else "closed"),
        "signing_key": Check(status=_signing_key(house)),
    }
    response.headers["Cache-Control"] = "no-store"
    if not all(_is_well(checks[name]) for name in ("database", "signing_key")):
        response.status_code = 503
        response.headers["Retry-After"] = "1"
        return Readiness(status="unavailable", checks=checks)
    return Readiness(status="ok" if _is_well(checks["redis"]) else "degraded", checks=checks)


@router.get(
    "/metrics",
    summary="Counters and gauges",
    response_class=Response,
    responses={200: {"description": "Prometheus' text format", "content": {"text/plain": {}}}},
)
async def read_metrics(request: Request) -> Response:
    """For Prometheus; asks no store. docs/operations.md lists them. Not for the public: keep it inside."""
    sample(services.of(request))
    content, media_type = metrics.exposition(request.headers.get("accept", ""))
    return Response(content, media_type=media_type)


def sample(house: Services) -> None:
    """Read the gauges of this process, and note what its counters wait for."""
    metrics.settle()
    metrics.HASHES_QUEUED.set(house.hasher.queued)
    metrics.HASHES_RUNNING.set(house.hasher.running)
    pool = house.db.engine.pool
    metrics.DATABASE_CONNECTIONS.set(pool.checkedout() if isinstance(pool, QueuePool) else 0)
    for breaker in (house.db.breaker, house.redis.breaker):
        metrics.BREAKER_OPEN.labels(breaker.dependency).set(breaker.is_open)
    keys = 0
    with suppress(StoreUnavailable):  # none have been read yet
        keys = len(house.keyring.published())
    metrics.SIGNING_KEYS.set(keys)
    for outlook in house.keyring.outlooks():
        algorithm, following = outlook.key.algorithm, outlook.next_rotation
        metrics.SIGNING_KEY_AGE_SECONDS.labels(algorithm).set(outlook.age.total_seconds())
        metrics.SIGNING_KEY_NEXT_AT.labels(algorithm).set(following.timestamp() if following else 0)


@asynccontextmanager
async def sampling(house: Services) -> AsyncIterator[None]:
    """Do that every second around the block: another worker process may be the one that is asked for the metrics."""
    metrics.say_build()

    async def sample_on() -> None:
        while True:
            sample(house)
            await asyncio.sleep(SAMPLE_SECONDS)

    task = asyncio.create_task(sample_on(), name="sample gauges")
    try:
        yield
    finally:
        task.cancel()
        metrics.settle()


class _Look:
    """Looks at a store at most once a second and lets all who ask share what it saw."""

    def __init__(self, look: Callable[[], Awaitable[State]]) -> None:
        self._look = look
        self._task: asyncio.Task[State] | None = None
        self._began_at = 0.0

    async def state(self) -> State:
        """Return what the last look saw, after a new one if it was too long ago."""
        task = self._task
        if task is None or (task.done() and monotonic() - self._began_at >= PAUSE_SECONDS):
            self._began_at = monotonic()
            task = self._task = asyncio.create_task(self._bounded())
        # A caller who goes away must not take the look with him.
        done, _ = await asyncio.wait({task}, timeout=max(0.0, self._began_at + LOOK_SECONDS - monotonic()))
        return task.result() if done else "down"

    async def _bounded(self) -> State:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await self._look()
        except (StoreUnavailable, *FAILURES) as failure:
            log.warning("not_ready", extra={"reason": f"{type(failure).__name__}: {failure}".split("\n")[0][:200]})
            return "down"


def _looks(request: Request) -> dict[str, _Look]:
    state, house = request.app.state, services.of(request)
    if not hasattr(state, "looks"):
        state.looks = {
            "database": _Look(lambda: _look_at_database(house.db)),
            "redis": _Look(lambda: _look_at_redis(house.redis)),
        }
    return state.looks  # type: ignore[no-any-return]


async def _look_at_database(database: Database) -> State:
    """Find out whether it is there, migrated, and takes writes."""
    if schema.is_behind(await database.revision()):
        return "not-migrated"
    async with database.engine.connect() as opened:
        connection = await opened.execution_options(sqlite_begin="IMMEDIATE")
        await connection.execute(text("SELECT 1"))
        if database.is_sqlite:
            return "ok"
        is_read_only = await connection.scalar(text("SELECT current_setting('transaction_read_only')"))
        return "read-only" if is_read_only == "on" else "ok"


async def _look_at_redis(redis: Redis) -> State:
    """Find out whether it takes writes: a full one and a replica still answer PING."""
    if not redis.is_configured:
        return "off"
    await redis.ask(lambda client: client.set(f"{TAG}:ready", "1", ex=60))
    return "ok"


def _signing_key(house: Services) -> State:
    try:
        house.keyring.signing_key()
    except StoreUnavailable:
        return "missing"
    return "ok"


def _is_well(check: Check) -> bool:
    return check.status in {"ok", "off"} and check.breaker != "open"
