"""`authserver doctor`: looks at all that the server needs, and says what is wrong."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from authserver import clock
from authserver.cli import command, keys, output
from authserver.cli.command import plain_command
from authserver.cli.output import Answer
from authserver.errors import AuthserverError

if TYPE_CHECKING:
    from authserver.services import Services
    from authserver.settings import Settings

_SLOW_HASH_MS = 250
_SKEW = timedelta(seconds=2)
"""Tokens bear a minute; but the clocks of two machines that keep time differ by milliseconds."""
_LATE = timedelta(days=1)
_OWASP_KIB_PASSES = 19_456 * 2


@dataclass(frozen=True)
class Check:
    """What was found out about one thing."""

    name: str
    state: Literal["ok", "warning", "broken"]
    detail: str

    @property
    def ok(self) -> bool:
        """Tell whether the server can work with it."""
        return self.state != "broken"


@plain_command
def doctor() -> Answer:
    """Check settings, database, Redis, keys, clock, hashing and pruning; exit status 1 if something is broken."""
    try:
        settings = command.load_settings()
    except AuthserverError as unusable:
        return _answer([Check("settings", "broken", str(unusable))])
    return _answer([_settings(settings), *asyncio.run(_look(settings))])


async def _look(settings: "Settings") -> list[Check]:
    from authserver.services import Services

    checks: dict[str, Callable[[Services], Awaitable[Check]]] = {
        "database": _database,
        "migrations": _migrations,
        "clock": _clock,
        "keys": _keys,
        "redis": _redis,
        "hashing": _hashing,
        "pruning": _pruning,
    }
    found = []
    async with Services.open(settings) as services:
        for name, check in checks.items():
            try:
                found.append(await check(services))
            except AuthserverError as failure:
                found.append(Check(name, "broken", command.reason(failure)))
    return found


def _settings(settings: "Settings") -> Check:
    """Say what production would refuse, or what is odd there."""
    from authserver.settings import DEVELOPMENT_SECRET_KEY

    odd = []
    if settings.secret_key.get_secret_value() == DEVELOPMENT_SECRET_KEY:
        odd.append("SECRET_KEY is the well-known default")
    if urlsplit(settings.issuer).scheme == "http":
        odd.append(f"ISSUER is http ({settings.issuer})")
    if settings.debug:
        odd.append("DEBUG is on")
    if not settings.throttle_enabled:
        odd.append("THROTTLE_ENABLED is off")
    if settings.is_development:
        odd.insert(0, "ENVIRONMENT is development")
    detail = f"not ready for production: {'; '.join(odd)}" if odd else f"production, {settings.issuer}"
    return Check("settings", "warning" if odd else "ok", detail)


async def _database(services: "Services") -> Check:
    from sqlalchemy import text

    query = "SELECT sqlite_version()" if services.db.is_sqlite else "SHOW server_version"
    async with services.db.read() as tx:
        version = await tx.scalar(text(query))
    if not services.db.is_sqlite:
        return Check("database", "ok", f"PostgreSQL {version}")
    state: Literal["ok", "warning"] = "ok" if services.settings.is_development else "warning"
    return Check("database", state, f"SQLite {version}: for one node")


async def _migrations(services: "Services") -> Check:
    from authserver import migrations, schema

    revision, head = await asyncio.to_thread(migrations.current, services.settings), migrations.head()
    if revision == head:
        return Check("migrations", "ok", f"at {revision}")
    if schema.is_behind(revision):
        detail = f"at {revision or 'no revision'}, this version needs {head}: run `authserver db upgrade`"
        return Check("migrations", "broken", detail)
    return Check("migrations", "warning", f"at {revision}, which a newer version made; this one knows {head}")


async def _clock(services: "Services") -> Check:
    if services.db.is_sqlite:
        return Check("clock", "ok", "the database has the clock of this machine")
    from sqlalchemy import text

    async with services.db.read() as tx:
        await tx.execute(text("SELECT 1"))  # connecting takes its time, too
        before = clock.now()
        theirs = await tx.scalar(text("SELECT clock_timestamp()"))
        after = clock.now()
    assert theirs is not None
    skew = theirs - (before + (after - before) / 2)
    detail = f"{abs(skew.total_seconds()):.3f} s {'behind' if skew > timedelta(0) else 'ahead of'} the database"
    return Check("clock", "warning" if abs(skew) > _SKEW else "ok", detail)


async def _keys(services: "Services") -> Check:
    from authserver.keys.pairs import ES256

    found = await keys.load(services)
    if not found:
        return Check("keys", "ok", "none yet; the first start makes one")
    readable = [key for key in found if key.private]
    if not readable:
        return Check(
            "keys", "broken", "SECRET_KEY is not the one that encrypted them; `keys rotate --now` makes a new one"
        )
    outlooks = {outlook.key.algorithm: outlook for outlook in services.keyring.outlooks()}
    if ES256 not in outlooks:
        waiting = next((key for key in readable if key.algorithm == ES256), readable[0])
        return Check("keys", "broken", f"the only one that can be read signs from {output.text(waiting.signs_from)} on")
    signing = [
        f"{algorithm} for {outlook.age.days} days"
        + (f", the next one from {output.text(outlook.next_rotation)}" if outlook.next_rotation else "")
        for algorithm, outlook in outlooks.items()
    ]
    detail = f"{len(readable)} of {len(found)} readable; signing: {'; '.join(signing)}"
    is_late = any(at is not None and at < clock.now() - _LATE for at in (o.next_rotation for o in outlooks.values()))
    if is_late:
        return Check("keys", "warning", f"{detail}: which has passed; no server runs that rotates them?")
    return Check("keys", "ok", detail)


async def _redis(services: "Services") -> Check:
    if not services.redis.is_configured:
        return Check("redis", "ok", "none: the database answers for it")
    info = await services.redis.ask(lambda redis: redis.info("everything"))
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version")
    policy = info.get("maxmemory_policy")
    if policy != "noeviction":
        return Check(
            "redis", "warning", f"{product} {version} with maxmemory-policy {policy}; noeviction loses nothing"
        )
    return Check("redis", "ok", f"{product} {version}, noeviction")


async def _hashing(services: "Services") -> Check:
    settings = services.settings
    await services.hasher.hash("the first one also makes the thread")
    began = time.perf_counter()
    await services.hasher.hash("how long does one take?")
    milliseconds = (time.perf_counter() - began) * 1000
    memory, passes = settings.argon2_memory_kib, settings.argon2_time_cost
    detail = f"argon2id takes {milliseconds:.0f} ms a password with {memory} KiB, {passes} passes"
    if memory * passes < _OWASP_KIB_PASSES:
        return Check("hashing", "warning", f"{detail}: weaker than the default")
    return Check("hashing", "warning" if milliseconds > _SLOW_HASH_MS else "ok", detail)


async def _pruning(services: "Services") -> Check:
    late = await services.pruner.late(_LATE)
    if late:
        detail = f"over for more than a day and still there: {', '.join(late)}; no server runs with PRUNE_ENABLED?"
        return Check("pruning", "warning", detail)
    return Check("pruning", "ok", "nothing that is over has waited for a day")


def _answer(checks: list[Check]) -> Answer:
    broken = [check for check in checks if not check.ok]
    document = {"ok": not broken, "checks": [asdict(check) | {"ok": check.ok} for check in checks]}
    refused = "Broken: " + ", ".join(check.name for check in broken) + "." if broken else None
    return Answer(document, rows=[asdict(check) for check in checks], refused=refused)
