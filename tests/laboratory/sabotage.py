"""Starts a server that breaks a promise on purpose, so that the laboratory can show that it would notice.

`python -m tests.laboratory.sabotage redis-only serve …` is `authserver serve …` with that part replaced. What stands
here are the mistakes that servers make; nothing of it is in the package.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial

from redis.asyncio import Redis as Client
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import cli, clock, services
from authserver.db import Database
from authserver.errors import StoreUnavailable
from authserver.observability import metrics
from authserver.redis import Redis
from authserver.sessions import refresh_token
from authserver.sessions.lifecycle import Sessions, SignIn
from authserver.sessions.models import UserSession
from authserver.settings import Settings
from authserver.tokens import access_token
from authserver.tokens.denylist import Denylist, session_entry, token_entry
from authserver.tokens.protocol import State

_ENTRIES = "entries"


class RedisOnly(Denylist):
    """The list is in Redis, and nowhere else: what is not there is good."""

    def __init__(self, settings: Settings, db: Database, redis: Redis) -> None:
        super().__init__(settings, db, redis)
        self._database, self._redis = db, redis

    async def is_revoked(self, jti: str, session_id: str | None) -> bool:
        entries = (token_entry(jti), session_entry(session_id))
        return bool(await self._redis.ask(lambda client: client.exists(*entries)))

    @asynccontextmanager
    async def revoking(self) -> AsyncIterator[AsyncSession]:
        async with self._database.write() as tx:
            entries = tx.info[_ENTRIES] = {}
            yield tx
        for entry, last_exp in entries.items():
            await self._redis.ask(partial(_remember, entry, last_exp))

    async def deny(self, tx: AsyncSession, entries: Mapping[str, datetime]) -> None:
        tx.info[_ENTRIES].update(entries)

    async def deny_one(self, entry: str, last_exp: datetime) -> None:
        await self._redis.ask(partial(_remember, entry, last_exp))

    async def publish(self, _state: State, entries: Mapping[str, datetime]) -> None:
        for entry, until in entries.items():
            await self._redis.ask(partial(_remember, entry, until))

    async def watch(self) -> None:
        while True:
            metrics.DENYLIST_TRUSTED.set(1)
            await asyncio.sleep(1)


async def _remember(entry: str, until: datetime, client: Client) -> None:
    await client.set(entry, "1", exat=until)


class FailOpen(Denylist):
    """Who cannot be asked has nothing against it."""

    async def is_revoked(self, jti: str, session_id: str | None) -> bool:
        try:
            return await super().is_revoked(jti, session_id)
        except StoreUnavailable:
            return False


class SaveThenRevoke(Sessions):
    """Looks whether a refresh token is good, makes a new one, and puts it in the old one's place."""

    async def rotate(self, text: str, client_id: str) -> SignIn | None:
        found = await self.find(text)
        if found is None or not found.is_good or found.session.client_id != client_id:
            return None
        successor, jti, until = refresh_token.first(), access_token.new_jti(), clock.now() + self._access_life
        change = update(UserSession).where(UserSession.id == found.session.id)
        async with self._db.write() as tx:
            await tx.execute(
                change.values(refresh_hash=successor.family_hash, generation=0, token_jti=jti, tokens_expire_at=until)
            )
        session = found.session
        written = refresh_token.write(self._key, successor)
        return SignIn(session.id, session.user_id, found.username, session.scope, jti, until, written)


def _replace(name: str, by: type) -> Callable[[], None]:
    return lambda: setattr(services, name, by)


VARIANTS = {
    "redis-only": _replace("Denylist", RedisOnly),
    "save-then-revoke": _replace("Sessions", SaveThenRevoke),
    "fail-open": _replace("Denylist", FailOpen),
}


def launcher(variant: str) -> tuple[str, ...]:
    """Return the arguments of Python, before `serve`, that start the variant."""
    return ("-m", "tests.laboratory.sabotage", variant)


if __name__ == "__main__":
    VARIANTS[sys.argv.pop(1)]()
    cli.main()
