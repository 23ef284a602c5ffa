"""The statements of the busiest moments of a session's life, each a decision and a commit (lifecycle.py says when)."""

from datetime import datetime
from typing import cast

from sqlalchemy import (
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
    literal,
    or_,
    select,
    update,
)
from sqlalchemy import cast as cast_to
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.sql.dml import ReturningUpdate

from authserver.clients.models import Client
from authserver.db import UTCDateTime
from authserver.sessions.models import LogoutNotice, UserSession
from authserver.statement import Statement
from authserver.tokens.models import DenylistEntry
from authserver.tokens.truth import SHARING
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


START = Statement(
    insert(cast("Table", UserSession.__table__))
    .from_select(
        [
            "id", "user_id", "client_id", "grant", "scope", "token_jti", "tokens_expire_at", "refresh_hash",
            "generation", "ip", "user_agent", "created_at", "last_used_at", "expires_at", "max_expires_at",
            "browser_session_id", "audience", "userinfo_claims", "id_token_claims", "authenticated_at", "amr",
        ],
        select(
            bindparam("session_id", type_=Uuid),
            User.id,
            Client.id,
            bindparam("by_grant", type_=String),
            bindparam("scope", type_=String),
            bindparam("jti", type_=String),
            _date("access_expires_at"),
            bindparam("family_hash", type_=String),
            literal(0),
            bindparam("ip", type_=String),
            bindparam("user_agent", type_=String),
            _date("now"),
            _date("now"),
            _date("idle_until"),
            _date("max_expires_at"),
            bindparam("browser_session_id", type_=Uuid),
            bindparam("audience", type_=JSON(none_as_null=True)),
            bindparam("userinfo_claims", type_=JSON(none_as_null=True)),
            bindparam("id_token_claims", type_=JSON(none_as_null=True)),
            _date("authenticated_at"),
            bindparam("amr", type_=String),
        )
        .select_from(User)
        .join(Client, Client.id == bindparam("of_client", type_=String))
        .where(
            User.id == bindparam("of_user", type_=Uuid),
            User.is_active,
            User.generation == bindparam("of_generation", type_=Integer),
            Client.is_active,
        )
        .with_for_update(read=True, of=[User, Client]),
        include_defaults=False,
    )
    .returning(UserSession.id)
)  # fmt: skip
"""A row for a sign-in, if user and client are still what they were; both stay so until the row is committed."""


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

_presented = select(
    func.unnest(bindparam("family_hashes", type_=ARRAY(String))).label("family_hash"),
    func.unnest(bindparam("of_clients", type_=ARRAY(String))).label("of_client"),
    func.unnest(bindparam("generations", type_=ARRAY(Integer)), type_=Integer).label("presented"),
    func.unnest(bindparam("jtis", type_=ARRAY(String)), type_=String).label("jti"),
).cte("presented")
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
"""lifecycle.end for some sessions, and denylist.deny (truth.write_by), on PostgreSQL."""
