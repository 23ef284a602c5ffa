"""Who is meant: a user by id, username or e-mail address. Asked at every sign-in and by every bearer of a token."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, String, Uuid, bindparam, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from authserver import patience, text
from authserver.db import Database
from authserver.gathering import Gathering
from authserver.statement import Statement
from authserver.users.models import User

_ALL = select(*User.__table__.columns)
_BY_ID = Statement(_ALL.where(User.id == bindparam("this", type_=Uuid)))
_BY_IDS = Statement(_ALL.where(User.id == func.any(bindparam("these", type_=ARRAY(Uuid)))))
_AT_ONCE = 100
_BY_USERNAME = Statement(_ALL.where(User.username_key == bindparam("this", type_=String)))
_BY_EMAIL = Statement(_ALL.where(User.email_key == bindparam("this", type_=String)))
_BY_NAMES = Statement(
    _ALL.where(
        or_(
            User.username_key == func.any(bindparam("usernames", type_=ARRAY(String))),
            User.email_key == func.any(bindparam("emails", type_=ARRAY(String))),
        )
    )
)


class Users:
    """Finds users for busy endpoints: all that are asked for at the same time, with one question on PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._finding_by_id: Gathering[UUID, User | None] = Gathering(self._find_by_id, _AT_ONCE)
        self._finding_by_name: Gathering[str, User | None] = Gathering(self._find_by_name, _AT_ONCE)

    async def by_id(self, user_id: UUID) -> User | None:
        """Return what `by_id` returns; the database is asked after this was called, never before."""
        if self._db.is_sqlite:
            return await by_id(self._db, user_id)
        return await patience.ask(self._finding_by_id.ask(user_id))

    async def by_name(self, identifier: str) -> User | None:
        """Return what `by_name` returns; the database is asked after this was called, never before."""
        if self._db.is_sqlite:
            return await by_name(self._db, identifier)
        return await patience.ask(self._finding_by_name.ask(text.fold(identifier)))

    async def _find_by_id(self, user_ids: Sequence[UUID]) -> Sequence[User | None]:
        rows = await self._db.ask_all(_BY_IDS, {"these": list(set(user_ids))})
        found = {row["id"]: row for row in rows}
        return [User(**found[user_id]) if user_id in found else None for user_id in user_ids]

    async def _find_by_name(self, names: Sequence[str]) -> Sequence[User | None]:
        usernames, emails = ([name for name in set(names) if _is_email(name) == are] for are in (False, True))
        rows = await self._db.ask_all(_BY_NAMES, {"usernames": usernames, "emails": emails})
        users = [User(**row) for row in rows]
        found = {user.username_key: user for user in users} | {user.email_key: user for user in users}
        return [found.get(name) for name in names]


async def by_id(db: Database, user_id: UUID) -> User | None:
    """Return the user as the database has it now, for reading only; changes are made with accounts.locked."""
    row = await db.ask(_BY_ID, {"this": user_id})
    return User(**row) if row else None


async def by_name(db: Database, identifier: str) -> User | None:
    """Return the user with a username or an e-mail address, for reading only."""
    folded = text.fold(identifier)
    row = await db.ask(_BY_EMAIL if _is_email(folded) else _BY_USERNAME, {"this": folded})
    return User(**row) if row else None


def is_named(identifier: str) -> ColumnElement[bool]:
    """Return the condition for the user with a username or an e-mail address."""
    folded = text.fold(identifier)
    return (User.email_key if _is_email(folded) else User.username_key) == folded


def _is_email(folded: str) -> bool:
    return "@" in folded  # no username has one
