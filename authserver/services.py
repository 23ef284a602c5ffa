"""Everything that a request or a command may need, built once for a process from the settings."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self, cast

from starlette.requests import HTTPConnection

from authserver.clients.authentication import Clients
from authserver.db import Database
from authserver.keys.keyring import Keyring
from authserver.pruning import Pruner
from authserver.redis import Redis
from authserver.sessions.authorization_code import AuthorizationCodes
from authserver.sessions.browser import BrowserSessions
from authserver.sessions.lifecycle import Sessions
from authserver.sessions.logout_delivery import LogoutDelivery
from authserver.settings import Settings
from authserver.throttle import Throttle
from authserver.tokens.access_token import AccessTokens
from authserver.tokens.denylist import Denylist
from authserver.tokens.id_token import IdTokens
from authserver.tokens.logout_token import LogoutTokens
from authserver.users.authentication import Authentication
from authserver.users.finding import Users
from authserver.users.passwords import Hasher

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0
"""Until a job of the background that has failed is begun again."""


@dataclass(frozen=True)
class Services:
    """The domain's parts, each knowing only those to its right in docs/architecture.md."""

    settings: Settings
    db: Database
    redis: Redis
    throttle: Throttle
    hasher: Hasher
    users: Users
    authentication: Authentication
    clients: Clients
    keyring: Keyring
    access_tokens: AccessTokens
    id_tokens: IdTokens
    denylist: Denylist
    sessions: Sessions
    browser_sessions: BrowserSessions
    authorization_codes: AuthorizationCodes
    logout_delivery: LogoutDelivery
    pruner: Pruner

    @classmethod
    def build(cls, settings: Settings) -> Self:
        """Wire the parts; touches no store yet."""
        db, redis = Database(settings), Redis(settings)
        throttle, hasher, users = Throttle(settings, redis), Hasher(settings), Users(db)
        keyring = Keyring(settings, db)
        denylist = Denylist(settings, db, redis)
        sessions = Sessions(settings, db, denylist)
        return cls(
            settings=settings,
            db=db,
            redis=redis,
            throttle=throttle,
            hasher=hasher,
            users=users,
            authentication=Authentication(settings, db, users, hasher, throttle),
            clients=Clients(settings, db),
            keyring=keyring,
            access_tokens=AccessTokens(settings, keyring),
            id_tokens=IdTokens(settings, keyring),
            denylist=denylist,
            sessions=sessions,
            browser_sessions=BrowserSessions(settings, db, sessions),
            authorization_codes=AuthorizationCodes(settings, db, denylist, sessions),
            logout_delivery=LogoutDelivery(settings, db, LogoutTokens(settings, keyring)),
            pruner=Pruner(settings, db, denylist),
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        """Build for a command of the CLI, and close at the end; nothing runs in the background."""
        services = cls.build(settings)
        try:
            yield services
        finally:
            await services.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the background tasks of a serving process, and close at the end."""
        tasks = [
            asyncio.create_task(job, name=name)
            for name, job in (
                ("watch database", _for_ever(self.db.watch)),
                ("watch redis", _for_ever(self.redis.watch)),
                ("watch keys", self._when_migrated(self.keyring.watch)),
                ("watch denylist", self._when_migrated(self.denylist.watch)),
                ("deliver notices of logout", self._when_migrated(self.logout_delivery.watch)),
                ("prune", self._when_migrated(self.pruner.watch)),
            )
        ]
        try:
            yield
        finally:
            pending = set(tasks)
            while pending:  # redis-py loses a cancellation that comes while it connects: say it until it is heard
                for task in pending:
                    task.cancel()
                _, pending = await asyncio.wait(pending, timeout=0.2)
            await self.close()

    async def _when_migrated(self, job: Callable[[], Awaitable[None]]) -> None:
        """Begin when the job can be done: nobody shall look through complaints for what is really wrong."""
        await self.db.migrated()
        await _for_ever(job)

    async def close(self) -> None:
        """Give back every connection and thread."""
        self.hasher.close()
        await self.denylist.close()
        await self.redis.close()
        await self.db.close()


async def _for_ever(job: Callable[[], Awaitable[None]]) -> None:
    """Do a job of the background, and again if it ends: a mistake of ours must not stop what keeps answers right."""
    while True:
        try:
            await job()
        except Exception:  # whatever it was: without this job the answers would get wrong or old
            log.exception("background_job_failed")
        await asyncio.sleep(_PAUSE_SECONDS)


def of(connection: HTTPConnection) -> Services:
    """Return the services of the application that a request came to."""
    return cast("Services", connection.app.state.services)
