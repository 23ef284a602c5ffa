"""Months of traffic on an accelerated clock: rows and Redis' memory stop growing (docs/operations.md, Pruning).

Every day people sign in, refresh, sign out, revoke, mistype and change passwords, strangers guess, and pruning runs
once. All of it goes through HTTP; only the dates are not today's. `scripts/growth` lives longer, and prints each day.
"""

import asyncio
import logging
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy import func, select

from authserver import clock, migrations, pruning
from authserver.clients import registration
from authserver.db import Base, Database
from authserver.services import Services
from authserver.sessions import logout_notices
from authserver.sessions.logout_delivery import LogoutDelivery
from authserver.settings import Settings
from authserver.tokens import copy
from authserver.users import attempts, finding
from tests import application
from tests.application import client_of
from tests.code_flow import CALLBACK, sent_back
from tests.factories import PASSWORD, App, Person, agreed, basic, bearer, signed_in_browser
from tests.stores import Backend, Stores

DAY = 86_400
SHORT_LIVES = {
    "refresh_token_idle_seconds": 3 * DAY,
    "session_max_seconds": 5 * DAY,
    "browser_session_seconds": 3 * DAY,
    "audit_retention_seconds": 8 * DAY,
}
KNOWN_FOR = timedelta(days=7)
LONGEST_DAYS = 10
"""Days until the first of the longest-living rows have gone."""
ROTATION_DAYS = 5
GROWING = {"users", "clients", "denylist_state"}
TRAFFIC_SETTINGS: dict[str, Any] = {
    "trusted_proxies": ["192.0.2.1"],
    "throttle_enabled": True,
    "throttle_address_failures_per_minute": 1_000_000,
    "throttle_client_failures_per_minute": 1_000_000,
    "prune_enabled": False,
    "prune_pause_seconds": 0,
    "argon2_memory_kib": 8,
    "argon2_time_cost": 1,
}


@contextmanager
def travelling() -> Iterator["Travel"]:
    """Give this process, and what it takes for the database's clock, a date that can be moved."""
    travel = Travel()

    class Travelled(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + travel.by

    async def now(_self: Database, _tx: object) -> datetime:
        return clock.now()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "datetime", Travelled)
        patch.setattr(Database, "now", now)
        yield travel


@dataclass
class Travel:
    """How far from today."""

    by: timedelta = timedelta(0)


@dataclass
class Town:
    """A server with a few people, who do each day what people do."""

    client: httpx.AsyncClient
    services: Services
    app: App
    names: list[str]
    sessions: list[dict[str, str]] = field(default_factory=list)
    """The tokens of those who stay signed in."""

    async def live_a_day(self, travel: Travel, day: int) -> None:
        """Do it all, spread over the day."""
        travel.by = timedelta(days=day)
        self.sessions = [await self.refreshed(tokens) for tokens in self.sessions[-2 * len(self.names) :]]
        self.sessions.append(await self.signed_in_by_browser(self.names[0]))
        for name in self.names:
            await self.post(
                "/token", 400, grant_type="password", username=name, password="wrong", address=some_address()
            )
            self.sessions.append(await self.signed_in(name))
        revoked, ended = [await self.signed_in(self.names[0]) for _ in range(2)]
        await self.post("/revoke", 200, token=revoked["access_token"])
        await self.post("/revoke", 200, token=ended["refresh_token"])
        travel.by += timedelta(hours=12)
        stolen = self.sessions[-1]
        self.sessions[-1] = await self.refreshed(stolen)
        travel.by += timedelta(minutes=1)
        await self.post("/token", 400, grant_type="refresh_token", refresh_token=stolen["refresh_token"])
        self.sessions.pop()
        await self.post("/token", 400, grant_type="password", username=secrets.token_hex(8), password="guessed")
        assert await self.services.clients.use_once(self.app.client_id, f"day {day}", clock.now() + timedelta(hours=1))
        left = await self.signed_in_by_browser(self.names[0])
        await self.post("/revoke", 200, token=left["refresh_token"])  # the application is told, and never listens
        await self.change_password(self.names[-1])  # nobody keeps a session of theirs
        if day % ROTATION_DAYS == 0:
            await self.services.keyring.rotate()

    async def signed_in(self, name: str) -> dict[str, str]:
        form = {"grant_type": "password", "username": name, "password": PASSWORD, "scope": "openid"}
        return await self.post("/token", 200, address=some_address(), **form)

    async def signed_in_by_browser(self, name: str) -> dict[str, str]:
        """Go through the code flow, in a new browser; another time the person goes away before the end."""
        user = await finding.by_name(self.services.db, name)
        assert user is not None
        person = Person(user.id, name, user.email)
        await signed_in_browser(self.services, self.client, person)
        await agreed(self.services, person, self.app, "openid")
        request = {"response_type": "code", "redirect_uri": CALLBACK, "scope": "openid"}
        await self.post("/par", 201, **request)
        pushed = await self.post("/par", 201, **request)
        way = {"client_id": self.app.client_id, "request_uri": pushed["request_uri"]}
        code = sent_back(await self.client.get("/authorize", params=way))["code"]
        await self.client.get("/authorize", params=request | {"client_id": self.app.client_id})
        return await self.post("/token", 200, grant_type="authorization_code", code=code, redirect_uri=CALLBACK)

    async def refreshed(self, tokens: dict[str, str]) -> dict[str, str]:
        return await self.post("/token", 200, grant_type="refresh_token", refresh_token=tokens["refresh_token"])

    async def change_password(self, name: str) -> None:
        token = (await self.signed_in(name))["access_token"]
        passwords = {"current_password": PASSWORD, "new_password": PASSWORD}
        answer = await self.client.post("/users/me/password", json=passwords, headers=bearer(token))
        assert answer.status_code == 204, answer.text

    async def post(self, path: str, status: int, *, address: str = "192.0.2.1", **form: str) -> dict[str, str]:
        headers = {"X-Forwarded-For": address}
        answer = await self.client.post(path, data=form, auth=basic(self.app), headers=headers)
        assert answer.status_code == status, answer.text
        document: dict[str, str] = answer.json()
        return document

    async def prune(self, travel: Travel) -> None:
        """Let a night pass."""
        travel.by += timedelta(hours=8)
        for notice in await logout_notices.pick(self.services.db, 100, but_of=[]):
            await logout_notices.failed(self.services.db, notice, "nobody listens")
        await self.services.pruner.run(lambda _kind, _count: None)

    async def size(self) -> dict[str, int]:
        """Return the rows of each table that could grow with traffic, and what the copy in Redis has and takes."""
        tables = [table for table in Base.metadata.sorted_tables if table.name not in GROWING]
        async with self.services.db.read() as tx:
            size = {t.name: await tx.scalar(select(func.count()).select_from(t)) or 0 for t in tables}
        if self.services.redis.is_configured:
            size["in redis"] = await self.services.redis.ask(lambda redis: redis.zcard(copy.KEY))
            size["bytes in redis"] = await self.services.redis.ask(bytes_of_the_copy)
        return size


async def bytes_of_the_copy(redis: Redis) -> int:
    return await redis.memory_usage(copy.KEY) or 0


def some_address() -> str:
    return f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.{secrets.randbelow(256)}"


@asynccontextmanager
async def a_town(settings: Settings, people: int) -> AsyncIterator[Town]:
    async with application.running(settings) as app, client_of(app) as client:
        services: Services = app.state.services
        async with services.db.write() as tx:
            grants = ["authorization_code", "password", "refresh_token"]
            new = registration.NewClient(
                name="App", grants=grants, redirect_uris=[CALLBACK], require_pkce=False,
                backchannel_logout_uri="http://127.0.0.1:9/",
            )  # fmt: skip
            made, secret = registration.create(tx, services.clients, new)
        names = [f"user-{secrets.token_hex(6)}" for _ in range(people)]
        for name in names:
            account = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
            assert (await client.post("/register", json=account)).status_code == 201
        yield Town(client, services, App(made.id, secret), names)


async def test_nothing_grows_any_more_after_the_longest_life(
    settings: Settings, databases: Stores, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The town fails to deliver by itself, once a night: the server would do so whenever it comes to it.
    monkeypatch.setattr(LogoutDelivery, "_is_any_due", AsyncMock(return_value=False))
    monkeypatch.setattr(copy, "KEY", f"{copy.KEY}:growth")
    for module in (attempts, pruning):
        monkeypatch.setattr(module, "KNOWN_FOR", KNOWN_FOR)
    url = await databases.new_database(backend)
    changes = {"database_url": url, **SHORT_LIVES, **TRAFFIC_SETTINGS}
    sizes: list[dict[str, int]] = []
    async with a_town(Settings(_env_file=None, **(settings.model_dump() | changes)), people=2) as town:
        with travelling() as travel:
            for day in range(LONGEST_DAYS + 2 * ROTATION_DAYS):
                await town.live_a_day(travel, day)
                sizes.append(await town.size())
                await town.prune(travel)
    before, after = sizes[-2 * ROTATION_DAYS : -ROTATION_DAYS], sizes[-ROTATION_DAYS:]
    for what in sizes[-1]:
        most = max(size[what] for size in before)
        assert most > 0, what
        assert max(size[what] for size in after) <= most * (1.2 if what == "bytes in redis" else 1), what


async def live(days: int) -> None:
    """Print how large everything is every tenth day, with the lifetimes that are the default."""
    settings = Settings(_env_file=None, audit_retention_seconds=60 * DAY, **TRAFFIC_SETTINGS)
    await asyncio.to_thread(migrations.upgrade, settings)
    async with a_town(settings, people=10) as town:
        with travelling() as travel:
            for day in range(days):
                await town.live_a_day(travel, day)
                if day % 10 == 9:
                    size = await town.size()
                    if day == 9:
                        sys.stdout.write("\t".join(["day", *size]) + "\n")
                    sys.stdout.write("\t".join(map(str, [day + 1, *size.values()])) + "\n")
                    sys.stdout.flush()
                await town.prune(travel)


if __name__ == "__main__":
    logging.disable(logging.INFO)
    asyncio.run(live(int(sys.argv[1])))
