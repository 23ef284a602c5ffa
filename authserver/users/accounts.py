"""What can be done with an account once it is there; for its owner, and for operators.

Whatever must end sign-ins (a new password, disabling, deleting) locks the user's row first and raises its generation:
a sign-in in progress then sees it (authentication.admit). The caller ends the sessions in the same transaction, which
comes from `denylist.revoking()`.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from authserver import audit
from authserver.db import Database
from authserver.errors import Conflict, Fault, InvalidInput
from authserver.settings import Settings
from authserver.users import attempts, names, policy
from authserver.users.finding import is_named
from authserver.users.models import User
from authserver.users.names import Name
from authserver.users.registration import refuse_taken


async def find(tx: AsyncSession, name: str) -> User | None:
    """Return the user with this username, e-mail address or id."""
    found = (await tx.scalars(select(User).where(is_named(name)))).one_or_none()
    if found is not None:
        return found
    try:
        return await tx.get(User, UUID(name))
    except ValueError:
        return None


async def page(tx: AsyncSession, *, after: str = "", limit: int = 100) -> Sequence[User]:
    """Return users in the order of their `username_key`, those that come after the given one."""
    query = select(User).where(User.username_key > after).order_by(User.username_key).limit(limit)
    return (await tx.scalars(query)).all()


async def count(tx: AsyncSession) -> int:
    """Return how many users there are."""
    return await tx.scalar(select(func.count()).select_from(User)) or 0


async def locked(tx: AsyncSession, user_id: UUID) -> User | None:
    """Return the user as they are now, locked until the transaction ends; None if they are gone."""
    query = select(User).where(User.id == user_id).with_for_update().execution_options(populate_existing=True)
    return (await tx.scalars(query)).one_or_none()


async def rename(
    db: Database, user_id: UUID, *, username: str | None = None, email: str | None = None, ip: str | None = None
) -> User | None:
    """Change what is given; InvalidInput, UsernameTaken or EmailTaken. None if the user is gone."""
    new_username = None if username is None else names.username(username)
    new_email = None if email is None else names.email(email)
    faults = [fault for fault in (new_username, new_email) if isinstance(fault, Fault)]
    if faults:
        raise InvalidInput(faults)
    assert not isinstance(new_username, Fault)
    assert not isinstance(new_email, Fault)
    try:
        async with db.write() as tx:
            user = await locked(tx, user_id)
            if user is not None:
                _set_names(user, new_username, new_email)
                if tx.is_modified(user):
                    audit.record(tx, "user_changed", user_id=user_id, ip=ip)
                await tx.flush()
    except IntegrityError:
        async with db.read() as tx:
            await refuse_taken(tx, new_username, new_email, but_by=user_id)
        raise Conflict("Somebody had the username or e-mail address until now; try again.") from None
    return user


def check_new_password(settings: Settings, user: User, password: str, pointer: str = "/new_password") -> None:
    """Raise InvalidInput if the policy is against the password."""
    faults = policy.faults(password, settings, username=user.username, email=user.email, pointer=pointer)
    if faults:
        raise InvalidInput(faults)


async def set_password(tx: AsyncSession, user: User, hashed: str, *, ip: str | None = None) -> None:
    """Store the hash of a `locked` user's new password, which nobody has guessed at; the caller ends the sessions."""
    user.hashed_password = hashed
    user.generation += 1
    await attempts.forget(tx, user.id)
    audit.record(tx, "password_changed", user_id=user.id, ip=ip)


def set_active(tx: AsyncSession, user: User, *, is_active: bool) -> None:
    """Enable or disable a `locked` user; when disabling, the caller ends the sessions."""
    if user.is_active != is_active:
        user.is_active = is_active
        user.generation += 1
        audit.record(tx, "user_enabled" if is_active else "user_disabled", user_id=user.id)


def sign_out_everywhere(tx: AsyncSession, user: User) -> None:
    """Let no sign-in in progress of a `locked` user succeed; the caller ends the sessions."""
    user.generation += 1
    audit.record(tx, "signed_out_everywhere", user_id=user.id)


async def delete(tx: AsyncSession, user: User, *, ip: str | None = None) -> None:
    """Delete a `locked` user, after the caller has ended the sessions: their rows go too, the denylist stays."""
    audit.record(tx, "user_deleted", user_id=user.id, ip=ip)
    await tx.delete(user)


def _set_names(user: User, username: Name | None, email: Name | None) -> None:
    if username is not None:
        user.username, user.username_key = username.shown, username.key
    if email is not None:
        user.email, user.email_key = email.shown, email.key
