"""The statements of the busiest moments of a session's life, each a decision and a commit (lifecycle.py says when)."""

from datetime import datetime
from typing import cast
from uuid import UUID

from sqlalchemy import (
    CTE,
    JSON,
    BindParameter,
    ColumnElement,
    Integer,
    Interval,
    String,
    Table,
    Uuid,
    and_,
    bindparam,
    case,
    func,
    insert,
    join,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy import cast as cast_to
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from authserver.clients.models import Client
from authserver.db import UTCDateTime
from authserver.sessions.models import LogoutNotice, UserSession
from authserver.statement import Given, Kinds, Statement, columns, many, one
from authserver.tokens.models import DenylistEntry
from authserver.tokens.truth import SHARING, STATE_COLUMNS
from authserver.users.models import User


def is_alive(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Return the condition for a session that has neither been ended nor run out."""
    return and_(UserSession.revoked_at.is_(None), UserSession.expires_at > now)


def has_scope(name: str) -> ColumnElement[bool]:
    """Return the condition for a session that was granted a scope."""
    return (" " + UserSession.scope + " ").contains(f" {name} ", autoescape=True)


def _later(column: ColumnElement[datetime] | object, value: ColumnElement[datetime]) -> ColumnElement[datetime]:
    return case((column > value, column), else_=value)


def _earlier(column: ColumnElement[datetime] | object, value: ColumnElement[datetime]) -> ColumnElement[datetime]:
    return case((column < value, column), else_=value)


def _date(name: str) -> BindParameter[datetime]:
    return bindparam(name, type_=UTCDateTime)


_STARTS_WITH: Kinds = {
    "session_id": Uuid,
    "of_user": Uuid,
    "of_generation": Integer,
    "of_client": String,
    "by_grant": String,
    "scope": String,
    "jti": String,
    "access_expires_at": UTCDateTime,
    "family_hash": String,
    "ip": String,
    "user_agent": String,
    "now": UTCDateTime,
    "idle_until": UTCDateTime,
    "max_expires_at": UTCDateTime,
    "browser_session_id": Uuid,
    "audience": JSON(none_as_null=True),
    "userinfo_claims": JSON(none_as_null=True),
    "id_token_claims": JSON(none_as_null=True),
    "authenticated_at": UTCDateTime,
    "amr": String,
}
"""What a session is made from."""


def _start(given: Given, together: CTE | None = None) -> ReturningInsert[tuple[UUID]]:
    """Write a row for each sign-in whose user and client are still what they were; both stay so until the commit."""
    row = {
        "id": given["session_id"],
        "user_id": User.id,
        "client_id": Client.id,
        "grant": given["by_grant"],
        "token_jti": given["jti"],
        "tokens_expire_at": given["access_expires_at"],
        "refresh_hash": given["family_hash"],
        "generation": literal(0),
        "created_at": given["now"],
        "last_used_at": given["now"],
        "expires_at": given["idle_until"],
        **{name: given[name] for name in _STARTS_WITH if name in UserSession.__table__.columns},
    }
    is_user = User.id == given["of_user"]
    rows = (
        select(*row.values())
        .select_from(User if together is None else join(together, User, is_user))
        .join(Client, Client.id == given["of_client"])
        .where(is_user, User.is_active, User.generation == given["of_generation"], Client.is_active)
        .with_for_update(read=True, of=[User, Client], skip_locked=together is not None)
    )
    table = cast("Table", UserSession.__table__)
    return insert(table).from_select(list(row), rows, include_defaults=False).returning(UserSession.id)


START = Statement(_start(one(_STARTS_WITH)))
_wanted = many(_STARTS_WITH, "wanted")
START_TOGETHER = Statement(_start(columns(_wanted), _wanted))
"""START for some sign-ins, on PostgreSQL. One whose user or client somebody else works on is left out, for nobody waits
here: one account does not hold up the others."""


def _rotation(
    of: ColumnElement[bool], presented: ColumnElement[int], jti: ColumnElement[str]
) -> ReturningUpdate[tuple[object, ...]]:
    """Move sessions on by one generation, if the refresh token presented for each is its newest."""
    return (
        update(UserSession)
        .where(
            of,
            # `<`: the newest token may be ahead of a database that has lost its last commits.
            UserSession.generation <= presented,
            is_alive(_date("now")),
        )
        .values(
            generation=presented + 1,
            rotated_at=_date("now"),
            token_jti=jti,
            tokens_expire_at=_later(UserSession.tokens_expire_at, _date("access_expires_at")),
            expires_at=_earlier(UserSession.max_expires_at, _date("idle_until")),
            last_used_at=_date("now"),
        )
        .returning(
            UserSession.id,
            UserSession.user_id,
            select(User.username).where(User.id == UserSession.user_id).scalar_subquery().label("username"),
            UserSession.scope,
            UserSession.token_jti,
            UserSession.max_expires_at,
            UserSession.audience,
            UserSession.userinfo_claims,
            UserSession.id_token_claims,
            UserSession.authenticated_at,
            UserSession.amr,
            UserSession.refresh_hash,
        )
        .execution_options(synchronize_session=False)
    )


ROTATE = Statement(
    _rotation(
        and_(UserSession.refresh_hash == bindparam("family_hash"), UserSession.client_id == bindparam("of_client")),
        bindparam("presented", type_=Integer),
        bindparam("jti", type_=String),
    )
)
"""The compare-and-set: the whole refresh, and its one commit. It waits for whoever works on the session."""

_presented = many({"family_hash": String, "of_client": String, "presented": Integer, "jti": String}, "presented")
_free = (
    # The client is compared here, and not looked for: its index finds all sessions that it has.
    select(
        UserSession.id,
        (UserSession.client_id == _presented.c.of_client).label("is_of_client"),
        _presented.c.presented,
        _presented.c.jti,
    )
    .join(_presented, UserSession.refresh_hash == _presented.c.family_hash)
    .with_for_update(of=UserSession, skip_locked=True)
    .cte("free")
)
ROTATE_TOGETHER = Statement(
    _rotation(and_(UserSession.id == _free.c.id, _free.c.is_of_client), _free.c.presented, _free.c.jti)
)
"""ROTATE for some sessions, each once, on PostgreSQL. One that somebody else works on is left out: nobody waits here,
so one session does not hold up the others, and two of these statements do not wait in a circle."""

FIND = Statement(
    select(*UserSession.__table__.columns, User.username)
    .join(User, User.id == UserSession.user_id)
    .where(UserSession.refresh_hash == bindparam("family_hash", type_=String))
)

_these = (
    select(UserSession.id)
    .where(UserSession.id == func.any(bindparam("these", type_=ARRAY(Uuid))), SHARING)
    .order_by(UserSession.id)  # in one order for everybody: nobody waits in a circle
    .with_for_update()
)
_ended = (
    update(UserSession)
    .where(
        UserSession.id.in_(_these),
        or_(
            UserSession.revoked_at.is_(None),
            UserSession.tokens_expire_at > _date("now") - bindparam("margin", type_=Interval),
        ),
    )
    .values(
        revoked_at=func.coalesce(UserSession.revoked_at, _date("now")),
        revoked_because=func.coalesce(UserSession.revoked_because, bindparam("because", type_=String)),
    )
    .returning(
        (literal("s:") + cast_to(UserSession.id, String)).label("entry"),
        (UserSession.tokens_expire_at + bindparam("margin", type_=Interval)).label("forget_at"),
        UserSession.id,
        UserSession.user_id,
        UserSession.client_id,
        and_(
            UserSession.revoked_at == _date("now"), UserSession.browser_session_id.is_not(None), has_scope("openid")
        ).label("is_heard_of"),
    )
    .cte("ended")
)
_noticed = (
    insert(LogoutNotice)
    .from_select(
        ["id", "client_id", "user_id", "session_id", "created_at", "attempts", "next_try_at"],
        select(
            func.gen_random_uuid(),
            _ended.c.client_id,
            _ended.c.user_id,
            _ended.c.id,
            func.now(),
            literal(0),
            func.now(),
        )
        .join(Client, Client.id == _ended.c.client_id)
        .where(_ended.c.is_heard_of, Client.backchannel_logout_uri.is_not(None)),
        include_defaults=False,
    )
    .cte("noticed")
)
"""What logout_notices.write does. Those who ended a session before us have written theirs."""
END = Statement(
    select(
        select(func.array_agg(_ended.c.entry)).scalar_subquery().label("entries"),
        select(func.array_agg(_ended.c.forget_at)).scalar_subquery().label("forget_at"),
        *STATE_COLUMNS,
    ).add_cte(
        postgresql_insert(DenylistEntry)
        .from_select(
            ["entry", "forget_at"],
            select(_ended.c.entry, _ended.c.forget_at).order_by(_ended.c.entry),
            include_defaults=False,
        )
        .on_conflict_do_nothing()
        .cte("written"),
        _noticed,
    )
)
"""lifecycle.end for some sessions, and denylist.deny (denylist.deny_by), on PostgreSQL."""
