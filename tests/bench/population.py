"""Who uses the server that is measured: users, a client, sessions, tokens; made with the house's own parts."""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import clock, text
from authserver.clients import registration
from authserver.keys.pairs import ES256
from authserver.services import Services
from authserver.sessions.lifecycle import Authenticated, SignIn
from authserver.settings import Settings
from authserver.tokens import access_token
from authserver.tokens.denylist import token_entry
from authserver.users.models import User
from tests.factories import PASSWORD, Person

USERS = 100
SESSIONS = 1000
GRANTS = ("client_credentials", "password", "refresh_token")
SCOPE = "openid profile email"
_LIFE = timedelta(seconds=600)


@dataclass(frozen=True)
class Population:
    """All of one database, and what makes more of it."""

    services: Services
    credentials: tuple[str, str]
    """client_id and secret of a client that may do everything."""
    users: Sequence[Person]
    sign_ins: Sequence[SignIn]

    def tokens(self, count: int, *, life: timedelta = _LIFE) -> list[str]:
        """Sign so many different access tokens of the sessions."""
        return [self._token(self.sign_ins[number % len(self.sign_ins)], life)[1] for number in range(count)]

    async def revoked_tokens(self, count: int) -> list[str]:
        """Sign so many access tokens, and revoke each by itself."""
        expires_at = clock.now() + _LIFE
        made = [self._token(self.sign_ins[number % len(self.sign_ins)], _LIFE) for number in range(count)]
        async with self.services.denylist.revoking() as tx:
            await self.services.denylist.deny(tx, {token_entry(jti): expires_at for jti, _ in made})
        return [token for _, token in made]

    async def refresh_tokens(self, count: int, *, in_browser: bool = False) -> list[str]:
        """Begin so many sessions, each as if in a browser or not; return their refresh tokens."""
        sign_ins = await _sign_in(self.services, self.credentials[0], self.users, count, in_browser=in_browser)
        return [sign_in.refresh_token for sign_in in sign_ins if sign_in.refresh_token]

    def _token(self, sign_in: SignIn, life: timedelta) -> tuple[str, str]:
        jti = access_token.new_jti()
        return jti, self.services.access_tokens.issue(
            jti=jti, expires_at=clock.now() + life, subject=str(sign_in.user_id), client_id=self.credentials[0],
            scope=SCOPE, audience=[], session_id=str(sign_in.session_id), username=sign_in.username,
        )  # fmt: skip


@asynccontextmanager
async def populated(settings: Settings, *, sessions: int = SESSIONS) -> AsyncIterator[Population]:
    """Fill a database that a server with these settings has started on."""
    async with Services.open(settings) as services:
        await services.keyring.load()
        async with services.db.write() as tx:
            client, secret = registration.create(
                tx,
                services.clients,
                registration.NewClient("Benchmark", grants=GRANTS, may_introspect=True, id_token_alg=ES256),
            )
        assert secret
        users = await _add_users(services, USERS)
        sign_ins = await _sign_in(services, client.id, users, sessions)
        yield Population(services, (client.id, secret), users, sign_ins)


async def _add_users(services: Services, count: int) -> list[Person]:
    hashed = await services.hasher.hash(PASSWORD)
    people = [Person(UUID(bytes=secrets.token_bytes(16), version=4), name, f"{name}@example.com")
              for name in (f"user-{secrets.token_hex(6)}" for _ in range(count))]  # fmt: skip
    rows = [
        {"id": person.id, "username": person.username, "username_key": text.fold(person.username),
         "email": person.email, "email_key": text.fold(person.email), "hashed_password": hashed}
        for person in people
    ]  # fmt: skip
    async with services.db.write() as tx:
        await tx.execute(insert(User), rows)
    return people


async def _sign_in(
    services: Services, client_id: str, users: Sequence[Person], count: int, *, in_browser: bool = False
) -> list[SignIn]:
    made: list[SignIn] = []
    while len(made) < count:
        until = time.monotonic() + services.settings.database_timeout_seconds / 2  # a transaction has its time
        async with services.db.write() as tx:
            while len(made) < count and time.monotonic() < until:
                user = users[len(made) % len(users)]
                made.append(await _begin_session(tx, services, client_id, user, in_browser=in_browser))
    return made


async def _begin_session(
    tx: AsyncSession, services: Services, client_id: str, user: Person, *, in_browser: bool
) -> SignIn:
    sign_in = await services.sessions.start(
        user_id=user.id, username=user.username, generation=0, client_id=client_id, grant="password", scope=SCOPE,
        refreshable=True, ip="127.0.0.1", user_agent="benchmark", tx=tx,
        authenticated=Authenticated(clock.now(), "pwd") if in_browser else None,
    )  # fmt: skip
    assert sign_in
    return sign_in
