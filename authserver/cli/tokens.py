"""`authserver token`: what a token is, and whether it is good. The token itself is never printed or logged."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from authserver import clock
from authserver.cli import keys, output, terminal
from authserver.cli.command import command
from authserver.cli.output import Answer

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from authserver.services import Services
    from authserver.sessions.models import UserSession
    from authserver.tokens.explanation import Explanation

app = typer.Typer(help="Look into a token.", no_args_is_help=True)

_NAMES = {
    "access token": "An access token",
    "ID token": "An ID token",
    "logout token": "A logout token",
    "refresh token": "A refresh token",
    "client secret": "A client secret",
    "JWT": "A JWT",
    "unknown": "Something unknown",
}
_FOR_CLIENTS = frozenset({"ID token", "logout token"})
"""A logout token is good while its session is not; both go to the one client in `aud`."""


@app.command()
@command
async def explain(
    services: "Services",
    token: Annotated[
        str | None, typer.Argument(help="Better on stdin: arguments are seen by others.", show_default=False)
    ] = None,
) -> Answer:
    """Say what a token or client secret is, whose, and whether it is good. Its signature is left out."""
    from authserver.clients.authentication import SECRET_PREFIX
    from authserver.sessions import refresh_token
    from authserver.tokens.explanation import explain as decoded

    text = terminal.token() if token is None else token.strip()
    if text.startswith(refresh_token.PREFIX):
        return _answer(await _refresh_token(services, text))
    if text.startswith(SECRET_PREFIX):
        return _answer(await _client_secret(services, text))
    jwt = decoded(text, await keys.load(services))
    if jwt is None:
        return _answer({"kind": "unknown", "good": False, "because": ["it is nothing that this server makes"]})
    return _answer(await _jwt(services, text, jwt))


async def _jwt(services: "Services", text: str, jwt: "Explanation") -> dict[str, Any]:
    kind = _kind(jwt)
    decoded: dict[str, Any] = {"kind": kind, "header": jwt.header, "claims": jwt.claims, "signed_by_us": jwt.is_ours}
    if not jwt.is_ours:
        return decoded | {"good": False, "because": ["no key of ours that still verifies has signed it"]}
    claims = jwt.claims
    expires_at = _date(claims.get("exp"))
    is_expired = expires_at is None or expires_at <= clock.now()
    because = ["it has expired"] if is_expired else []
    if claims.get("iss") != services.settings.issuer:
        because.append("its issuer is not ours as it is set now")
    session_id = claims.get("sid")
    is_revoked = kind != "logout token" and await services.denylist.is_revoked(
        str(claims.get("jti")), session_id and str(session_id)
    )
    if is_revoked:
        because.append("it has been revoked")
    if not because and kind not in _FOR_CLIENTS and await services.access_tokens.read(text) is None:
        because.append("it is no access token of ours")
    client_id = claims.get("aud") if kind in _FOR_CLIENTS else claims.get("client_id")
    async with services.db.read() as tx:
        decoded |= await _parties(tx, _id(claims.get("sub")), client_id, _id(session_id))
    dates = {"issued_at": _date(claims.get("iat")), "expires_at": expires_at}
    return decoded | dates | {"expired": is_expired, "revoked": is_revoked, "good": not because, "because": because}


def _kind(jwt: "Explanation") -> str:
    match str(jwt.header.get("typ")).lower().removeprefix("application/"):
        case "at+jwt":
            return "access token"
        case "logout+jwt":
            return "logout token"
        case "jwt" if "auth_time" in jwt.claims:
            return "ID token"
    return "JWT"


async def _refresh_token(services: "Services", text: str) -> dict[str, Any]:
    kind = {"kind": "refresh token"}
    async with services.db.read() as tx:
        found = await services.sessions.find(text, tx)
        if found is None:
            why = "its session is long over, or this server has not made it"
            return kind | {"good": False, "because": [why]}
        session = found.session
        parties = await _parties(tx, session.user_id, session.client_id, session.id)
    because = _session_faults(session)
    if found.token.generation < session.generation:
        because.append("it has been used; whoever uses it again ends the session, but for a retry within seconds")
    elif found.token.generation > session.generation:
        because.append("it is newer than the session here: the database has been restored, or this is a copy")
    if not parties["client"]["active"]:
        because.append("the client is disabled")
    generations = {"generation": found.token.generation, "current_generation": session.generation}
    return kind | generations | parties | {"good": not because, "because": because}


async def _client_secret(services: "Services", text: str) -> dict[str, Any]:
    from sqlalchemy import or_, select

    from authserver.clients.models import Client

    async with services.db.read() as tx:
        hashed = services.clients.hash_secret(text)
        has_it = or_(Client.secret_hash == hashed, Client.old_secret_hash == hashed)
        client = await tx.scalar(select(Client).where(has_it))
    kind = {"kind": "client secret"}
    if client is None:
        return kind | {"good": False, "because": ["no client has it (any more)"]}
    because = [] if client.is_active else ["the client is disabled"]
    described: dict[str, Any] = {"client_id": client.id, "name": client.name, "active": client.is_active}
    if client.secret_hash != hashed:
        described["good_until"] = client.old_secret_until
        if not client.old_secret_is_good:
            because.append("there is a newer secret, and the time for which this one was kept is over")
    return kind | {"client": described, "good": not because, "because": because}


async def _parties(
    tx: "AsyncSession", user_id: UUID | None, client_id: object, session_id: UUID | None
) -> dict[str, Any]:
    """Say who and what a token speaks of, as they are now; None for what is gone."""
    from authserver.clients import registration
    from authserver.sessions.models import UserSession
    from authserver.users.models import User

    user = await tx.get(User, user_id) if user_id else None
    client = await registration.find(tx, client_id) if isinstance(client_id, str) else None
    session = await tx.get(UserSession, session_id) if session_id else None
    return {
        "user": user and {"id": user.id, "username": user.username, "is_active": user.is_active},
        "client": client and {"client_id": client.id, "name": client.name, "active": client.is_active},
        "session": session and _described(session),
    }


def _described(session: "UserSession") -> dict[str, Any]:
    return {
        "id": session.id,
        "created_at": session.created_at,
        "last_used_at": session.last_used_at,
        "expires_at": session.expires_at,
        "revoked_at": session.revoked_at,
        "revoked_because": session.revoked_because,
    }


def _session_faults(session: "UserSession") -> list[str]:
    if session.revoked_at is not None:
        return [f"its session has ended: {session.revoked_because}"]
    return ["its session has run out"] if session.expires_at <= clock.now() else []


def _answer(explained: dict[str, Any]) -> Answer:
    verdict = "good" if explained["good"] else "not good: " + "; ".join(explained["because"])
    lines = [f"{_NAMES[explained['kind']]}, {verdict}."]
    for name, value in explained.items():
        if name not in {"kind", "good", "because"}:
            lines.append(f"{name}: {json.dumps(value, default=output.text, indent=2)}")
    return Answer(explained, "\n".join(lines))


def _date(seconds: object) -> datetime | None:
    """Return a NumericDate (RFC 7519 §2) as a date, if it is one."""
    if not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _id(text: object) -> UUID | None:
    try:
        return UUID(str(text))
    except ValueError:
        return None
