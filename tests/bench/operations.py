"""The operations that are measured: what is sent for each, and what a good answer is."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

from joserfc import jwt
from joserfc.jwk import ECKey

from authserver.keys.pairs import ES256
from tests.bench import load
from tests.bench.contest import Sample
from tests.bench.load import CONNECTIONS, Load, chain, forms, http
from tests.bench.population import SCOPE, Population
from tests.bench.processes import idle, used_by
from tests.bench.servers import Stores
from tests.bench.site import Site
from tests.factories import PASSWORD

KEPT_TOKENS = 1000
"""So many different live tokens are asked about in turn."""
_MOST_A_SECOND = 16_000
"""More than any operation that uses a token up reaches."""
_MOST_HASHES_A_SECOND = 400

Answer = tuple[int, Any]


@dataclass(frozen=True)
class Kind:
    """One operation, whatever server it is sent to."""

    title: str
    prepare: Callable[[Population, float], Awaitable[Load]]
    """What is sent for so many seconds."""
    is_good: Callable[[Answer], bool]


class WrongAnswer(Exception):
    """The server does not do what is to be measured."""


class Unsupported(Exception):
    """The server has no such operation."""


@dataclass(frozen=True)
class Operation:
    """One operation on one server."""

    name: str
    kind: Kind
    site: Site

    @property
    def title(self) -> str:
        """What people call it."""
        return self.kind.title

    async def measure(self, seconds: float) -> Sample:
        """Send it over all connections for so long."""
        return await self.driven(await self.prepared(seconds), seconds)

    async def driven(self, prepared: Load, seconds: float) -> Sample:
        """Send what was prepared, of which the first has been sent already."""
        node = self.site.node
        return await driven(node.port, prepared.rest(), seconds, node.workers(), self.site.stores)

    async def prepared(self, seconds: float) -> Load:
        """Make what is to be sent in so many seconds, and see that the first of it gets a good answer."""
        await self.site.population.services.keyring.load()  # nobody else does it here, and keys must not be old
        sent = await self.kind.prepare(self.site.population, seconds)
        status, answer = await asyncio.to_thread(load.ask, self.site.node.port, sent.first())
        if isinstance(answer, dict) and answer.get("error") in ("unsupported_grant_type", "unauthorized_client"):
            raise Unsupported(f"{self.title}: {answer['error']}")
        if not self.kind.is_good((status, answer)):
            raise WrongAnswer(f"{self.title}: {status} {answer}")
        return sent


async def supported(site: Site, names: Sequence[str], say: Callable[[str], None]) -> list[Operation]:
    """Return the named operations of a server, without those that it does not have."""
    found = []
    for name in names:
        operation = Operation(name, KINDS[name], site)
        try:
            await operation.prepared(0.01)
        except Unsupported as unsupported:
            say(f"left out: {unsupported}")
        else:
            found.append(operation)
    return found


async def driven(
    port: int,
    sent: Load,
    seconds: float,
    workers: Sequence[int],
    stores: Stores | None,
    *,
    connections: int = CONNECTIONS,
) -> Sample:
    """Have the generator send it to a server, and count what its workers and the stores use meanwhile.

    Returns when the workers have done what was under way at the end.
    """

    def used() -> tuple[float, float]:
        return used_by(workers), used_by(stores.processes()) if stores else 0.0

    before, stores_before = used()
    run = await load.drive(port, sent, seconds, connections=connections)
    after, stores_after = used()
    await idle(workers)
    requests = max(1, run.requests)
    notes = []
    if run.sent_again and not sent.may_repeat:
        notes.append("all requests were used up, some were sent again")
    return Sample(
        per_second=(run.requests - run.refused) / run.seconds,
        p50_ms=run.p50_ms,
        p99_ms=run.p99_ms,
        server_us=(after - before) / requests * 1e6,
        stores_us=(stores_after - stores_before) / requests * 1e6 if stores else None,
        generator_share=run.processor_seconds / run.seconds,
        failures=run.refused + run.lost,
        notes=notes,
    )


def _asking(population: Population, tokens: Sequence[str], *, may_repeat: bool = True) -> Load:
    return forms("/introspect", tokens, population.credentials, may_repeat=may_repeat)


async def _live(population: Population, _: float) -> Load:
    return _asking(population, population.tokens(KEPT_TOKENS))


async def _new(population: Population, seconds: float) -> Load:
    return _asking(population, population.tokens(1 + round(seconds * _MOST_A_SECOND)), may_repeat=False)


async def _revoked(population: Population, _: float) -> Load:
    return _asking(population, await population.revoked_tokens(KEPT_TOKENS))


async def _expired(population: Population, _: float) -> Load:
    return _asking(population, population.tokens(KEPT_TOKENS, life=timedelta(seconds=-60)))


async def _garbage(population: Population, _: float) -> Load:
    """Three parts, like a token, and nothing in them."""
    return _asking(population, [".".join(secrets.token_urlsafe(180) for _ in range(3)) for _ in range(KEPT_TOKENS)])


async def _forged(population: Population, _: float) -> Load:
    """Our own key's name, somebody else's signature."""
    ours = population.services.keyring.signing_key().kid
    return _asking(population, _signed_elsewhere(population, ours))


async def _foreign(population: Population, _: float) -> Load:
    """Another server's tokens, signed with a key that we never heard of."""
    return _asking(population, _signed_elsewhere(population, ECKey.generate_key("P-256").thumbprint()))


def _signed_elsewhere(population: Population, kid: str) -> list[str]:
    header = {"alg": ES256, "typ": "at+jwt", "kid": kid}
    claims = jwt.decode(population.tokens(1)[0], population.services.keyring.signing_key().public).claims
    key = ECKey.generate_key("P-256")
    return [jwt.encode(header, claims | {"jti": str(uuid4())}, key) for _ in range(KEPT_TOKENS)]


async def _refresh_token(population: Population, _: float) -> Load:
    return _asking(population, [sign_in.refresh_token or "" for sign_in in population.sign_ins])


def _refreshing(*, in_browser: bool) -> Callable[[Population, float], Awaitable[Load]]:
    """As many sessions as keep every connection busy: each answer brings the token of a later request."""

    async def prepare(population: Population, _: float) -> Load:
        tokens = await population.refresh_tokens(CONNECTIONS * 8, in_browser=in_browser)
        return chain("/token", tokens, population.credentials)

    return prepare


async def _revoke(population: Population, seconds: float) -> Load:
    tokens = population.tokens(1 + round(seconds * _MOST_A_SECOND))
    return forms("/revoke", tokens, population.credentials, may_repeat=False)


async def _client_credentials(population: Population, _: float) -> Load:
    return Load([http("POST", "/token", form={"grant_type": "client_credentials"}, basic=population.credentials)])


async def _password(population: Population, _: float) -> Load:
    form = {"grant_type": "password", "password": PASSWORD}
    return Load([http("POST", "/token", form=form | {"username": user.username}, basic=population.credentials)
                 for user in population.users])  # fmt: skip


async def _register(_: Population, seconds: float) -> Load:
    names = [f"new-{secrets.token_hex(8)}" for _ in range(1 + round(seconds * _MOST_HASHES_A_SECOND))]
    return Load([http("POST", "/register", document={"username": name, "email": f"{name}@example.com",
                                                     "password": PASSWORD}) for name in names],
                may_repeat=False)  # fmt: skip


def _bearer(path: str) -> Callable[[Population, float], Awaitable[Load]]:
    async def prepare(population: Population, _: float) -> Load:
        return Load([http("GET", path, bearer=token) for token in population.tokens(KEPT_TOKENS)])

    return prepare


def _document(path: str) -> Callable[[Population, float], Awaitable[Load]]:
    async def prepare(_: Population, __: float) -> Load:
        return Load([http("GET", path)])

    return prepare


def _has(status: int, **members: object) -> Callable[[Answer], bool]:
    def is_good(answer: Answer) -> bool:
        return answer[0] == status and all(answer[1].get(name) == value for name, value in members.items())

    return is_good


def _has_id_token(answer: Answer) -> bool:
    return _ISSUED(answer) and "id_token" in answer[1]


_DEAD = _has(200, active=False)
_ISSUED = _has(200, token_type="Bearer")

KINDS = {
    "introspect": Kind("introspect, live token", _live, _has(200, active=True, scope=SCOPE)),
    "introspect-new": Kind("introspect, token never seen before", _new, _has(200, active=True)),
    "introspect-revoked": Kind("introspect, revoked token", _revoked, _DEAD),
    "introspect-expired": Kind("introspect, expired token", _expired, _DEAD),
    "introspect-garbage": Kind("introspect, garbage", _garbage, _DEAD),
    "introspect-forged": Kind("introspect, forged signature", _forged, _DEAD),
    "introspect-foreign": Kind("introspect, another server's token", _foreign, _DEAD),
    "introspect-refresh": Kind("introspect, refresh token", _refresh_token, _has(200, token_type="refresh_token")),
    "introspect-no-redis": Kind("introspect, live token, Redis gone", _live, _has(200, active=True)),
    "refresh": Kind("refresh with rotation", _refreshing(in_browser=False), _ISSUED),
    "refresh-openid": Kind("refresh with rotation and ID token", _refreshing(in_browser=True), _has_id_token),
    "revoke": Kind("revoke", _revoke, _has(200)),
    "client_credentials": Kind("client_credentials", _client_credentials, _ISSUED),
    "userinfo": Kind("userinfo", _bearer("/userinfo"), _has(200)),
    "users-me": Kind("/users/me", _bearer("/users/me"), _has(200)),
    "jwks": Kind("JWKS", _document("/.well-known/jwks.json"), _has(200)),
    "metadata": Kind("metadata", _document("/.well-known/openid-configuration"), _has(200)),
    "password": Kind("password grant", _password, _ISSUED),
    "password-throttled": Kind("password grant, guesses counted", _password, _ISSUED),
    "register": Kind("register", _register, _has(201)),
}
WITHOUT_REDIS = "introspect-no-redis"
THROTTLED = "password-throttled"
