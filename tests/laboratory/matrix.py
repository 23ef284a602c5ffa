"""Asks every endpoint of a node, and compares with the table in docs/operations.md, "When a store is down"."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

import httpx

from tests.factories import basic, bearer
from tests.laboratory.asking import Asker, Token, Tokens
from tests.laboratory.checker import LIMIT_SECONDS, Rule, Violation
from tests.laboratory.nodes import Laboratory, Node

ROWS = {  # with the database; without it; without it and without Redis
    "introspect a revoked token": ("inactive", "inactive or 503", "503"),
    "introspect a live token": ("active", "503", "503"),
    "introspect garbage": ("inactive", "inactive or 503", "inactive or 503"),
    "userinfo with a revoked token": ("401", "401 or 503", "503"),
    "users/me with a revoked token": ("401", "401 or 503", "503"),
    "userinfo with a live token": ("200", "503", "503"),
    "users/me with a live token": ("200", "503", "503"),
    "revoke an access token": ("200", "503", "503"),
    "revoke a refresh token": ("200", "503", "503"),
    "refresh": ("200", "503", "503"),
    "sign in": ("200", "503", "503"),
    "register": ("201", "503", "503"),
    "change the password": ("204", "503", "503"),
    "list sessions": ("200", "503", "503"),
    "an unknown client": ("401", "503", "503"),
    "an unknown client signs in": ("401", "503", "503"),
    "the public keys": ("200", "200", "200"),
    "the metadata": ("200", "200", "200"),
    "live": ("200", "200", "200"),
    "ready": ("ok", "unavailable", "unavailable"),
}


@dataclass(frozen=True)
class Prepared:
    """A user with sessions for all questions to one node."""

    user: str
    password: str
    revoked: Token
    live: Token
    to_revoke: Tokens
    to_end: Tokens
    to_refresh: Tokens


async def prepare(lab: Laboratory) -> dict[str, Prepared]:
    """Make users and tokens, by node, while all is well."""
    return {node.name: await _prepare(Asker(lab.app), node) for node in lab.nodes}


async def ask(lab: Laboratory, node: Node, prepared: dict[str, Prepared], cut: tuple[str, ...]) -> None:
    """Ask everything; what is not as the table says is `lab.found`."""
    has_database, has_redis = (f"{node.name}-{store}" not in cut for store in ("postgres", "redis"))
    column = 0 if has_database else 1 if has_redis else 2
    for name, question in _questions(lab, node, prepared[node.name]).items():
        expected = ROWS[name][column]
        if name == "ready" and has_database and not has_redis:
            expected = "degraded"
        began = monotonic()
        try:
            answer = _short(await question())
        except httpx.TransportError as failure:
            answer = type(failure).__name__
        seconds = monotonic() - began
        if answer not in expected.split(" or "):
            lab.found.append(Violation(Rule.MATRIX, f"{name} on {node.name}: {answer}, not {expected}"))
        if seconds > LIMIT_SECONDS:
            lab.found.append(Violation(Rule.IN_TIME, f"{name} on {node.name}: {seconds:.2f} seconds"))


async def _prepare(asker: Asker, node: Node) -> Prepared:
    user, password = f"user-{secrets.token_hex(6)}", f"a long sentence {secrets.token_hex(8)}"
    await asker.register(node, user, password)
    given = [tokens for _, tokens in [await asker.sign_in(node, user, password) for _ in range(5)] if tokens]
    revoked, live, *others = given
    await asker.revoke(node, revoked.refresh)
    return Prepared(user, password, revoked.access, live.access, *others)


def _questions(lab: Laboratory, node: Node, own: Prepared) -> dict[str, Callable[[], Awaitable[httpx.Response]]]:
    http, app, stranger = node.http, basic(lab.app), httpx.BasicAuth("nobody", "nothing")
    name = f"user-{secrets.token_hex(6)}"
    new_user = {"username": name, "email": f"{name}@example.com", "password": own.password}
    sign_in = {"grant_type": "password", "username": own.user, "password": own.password}
    refresh = {"grant_type": "refresh_token", "refresh_token": own.to_refresh.refresh.text}
    change = {"current_password": own.password, "new_password": f"a long sentence {secrets.token_hex(8)}"}

    def form(path: str, data: dict[str, str], auth: httpx.BasicAuth = app) -> Callable[[], Awaitable[httpx.Response]]:
        return lambda: http.post(path, data=data, auth=auth)

    def get(path: str, token: Token | None = None) -> Callable[[], Awaitable[httpx.Response]]:
        return lambda: http.get(path, headers=bearer(token.text) if token else None)

    return {
        "introspect a revoked token": form("/introspect", {"token": own.revoked.text}),
        "introspect a live token": form("/introspect", {"token": own.live.text}),
        "introspect garbage": form("/introspect", {"token": "garbage"}),
        "userinfo with a revoked token": get("/userinfo", own.revoked),
        "users/me with a revoked token": get("/users/me", own.revoked),
        "userinfo with a live token": get("/userinfo", own.live),
        "users/me with a live token": get("/users/me", own.live),
        "list sessions": get("/users/me/sessions", own.live),
        "revoke an access token": form("/revoke", {"token": own.to_revoke.access.text}),
        "revoke a refresh token": form("/revoke", {"token": own.to_end.refresh.text}),
        "refresh": form("/token", refresh),
        "sign in": form("/token", sign_in),
        "register": lambda: http.post("/register", json=new_user),
        "change the password": lambda: http.post("/users/me/password", json=change, headers=bearer(own.live.text)),
        "an unknown client": form("/introspect", {"token": own.live.text}, stranger),
        "an unknown client signs in": form("/token", sign_in, stranger),
        "the public keys": get("/.well-known/jwks.json"),
        "the metadata": get("/.well-known/openid-configuration"),
        "live": get("/health/live"),
        "ready": get("/health/ready"),
    }


def _short(response: httpx.Response) -> str:
    """Return what an answer says in one word; a 503 without Retry-After is another word."""
    path, status = response.request.url.path, response.status_code
    if path == "/health/ready":
        return str(response.json()["status"])
    if status == 503 and not response.headers.get("retry-after", "").isdecimal():
        return "503 without Retry-After"
    if path == "/introspect" and status == 200:
        return "active" if response.json()["active"] else "inactive"
    return str(status)
