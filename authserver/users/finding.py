"""Who is meant: a user by id, username or e-mail address. Asked at every sign-in and by every bearer of a token."""

from uuid import UUID

from sqlalchemy import ColumnElement, String, Uuid, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import text
from authserver.db import Database
from authserver.statement import Statement
from authserver.users.models import User

_ALL = select(*User.__table__.columns)
_BY_ID = Statement(_ALL.where(User.id == bindparam("this", type_=Uuid)))
_BY_USERNAME = Statement(_ALL.where(User.username_key == bindparam("this", type_=String)))
_BY_EMAIL = Statement(_ALL.where(User.email_key == bindparam("this", type_=String)))


async def by_id(db: Database, user_id: UUID, tx: AsyncSession | None = None) -> User | None:
    """Return the user as the database has it now, for reading only; changes are made with accounts.locked."""
    row = await db.ask(_BY_ID, {"this": user_id}, tx)
    return User(**row) if row else None


async def by_name(db: Database, identifier: str, tx: AsyncSession | None = None) -> User | None:
    """Return the user with a username or an e-mail address, for reading only."""
    folded = text.fold(identifier)
    row = await db.ask(_BY_EMAIL if _is_email(folded) else _BY_USERNAME, {"this": folded}, tx)
    return User(**row) if row else None


def is_named(identifier: str) -> ColumnElement[bool]:
    """Return the condition for the user with a username or an e-mail address."""
    folded = text.fold(identifier)
    return (User.email_key if _is_email(folded) else User.username_key) == folded


def _is_email(folded: str) -> bool:
    return "@" in folded  # no username has one
