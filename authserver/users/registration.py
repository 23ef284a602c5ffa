"""A new account: what it must look like, and who gets a name that many want at once."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import audit, clock
from authserver.db import Database
from authserver.errors import Conflict, EmailTaken, Fault, InvalidInput, UsernameTaken
from authserver.settings import Settings
from authserver.users import names, policy
from authserver.users.models import User
from authserver.users.names import Name
from authserver.users.passwords import Hasher


@dataclass(frozen=True)
class NewUser:
    """Somebody who may be registered, if the names are free."""

    username: Name
    email: Name
    password: str


def validated(settings: Settings, *, username: str, email: str, password: str) -> NewUser:
    """Return the new user; InvalidInput says all that is wrong at once."""
    shown_username, shown_email = names.username(username), names.email(email)
    faults = [fault for fault in (shown_username, shown_email) if isinstance(fault, Fault)]
    faults += policy.faults(password, settings, username=username, email=email)
    if faults:
        raise InvalidInput(faults)
    assert isinstance(shown_username, Name)
    assert isinstance(shown_email, Name)
    return NewUser(shown_username, shown_email, password)


async def register(
    db: Database, hasher: Hasher, new: NewUser, *, is_superuser: bool = False, ip: str | None = None
) -> User:
    """Add the user; UsernameTaken or EmailTaken, Busy, StoreUnavailable. The unique keys of the table decide races."""
    async with db.read() as tx:
        await refuse_taken(tx, new.username, new.email)
    hashed = await hasher.hash(new.password)
    now = clock.now()
    insert = sqlite_insert if db.is_sqlite else postgresql_insert
    statement = insert(User).values(
        username=new.username.shown,
        username_key=new.username.key,
        email=new.email.shown,
        email_key=new.email.key,
        hashed_password=hashed,
        is_superuser=is_superuser,
        created_at=now,
        updated_at=now,
    )
    async with db.write() as tx:
        user = (await tx.scalars(statement.on_conflict_do_nothing().returning(User))).one_or_none()
        if user is None:
            await refuse_taken(tx, new.username, new.email)
            raise Conflict("Somebody had the username or e-mail address until now; try again.")
        audit.record(tx, "user_registered", user_id=user.id, ip=ip)
    return user


async def refuse_taken(
    tx: AsyncSession, username: Name | None, email: Name | None, *, but_by: UUID | None = None
) -> None:
    """Raise UsernameTaken or EmailTaken if an account (other than `but_by`) has the name in some spelling."""
    same = [User.username_key == username.key] if username else []
    same += [User.email_key == email.key] if email else []
    rows = await tx.execute(select(User.username_key, User.email_key).where(or_(*same), User.id != but_by))
    taken = rows.all()
    if username and any(row.username_key == username.key for row in taken):
        raise UsernameTaken("Choose another username.")
    if taken:
        raise EmailTaken("There is an account with this e-mail address already.")
