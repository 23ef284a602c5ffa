"""What people do to their own account: one rule, whether they come with an access token or from a browser."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, select

from authserver import audit
from authserver.clients.models import Client
from authserver.errors import Forbidden, WrongPassword
from authserver.services import Services
from authserver.sessions.browser import SignedIn
from authserver.sessions.models import UserSession
from authserver.throttle import REGISTRATIONS, address_key
from authserver.users import accounts, registration
from authserver.users.authentication import VerifiedPassword
from authserver.users.models import User


async def register(house: Services, *, username: str, email: str, password: str, ip: str | None) -> User:
    """Add a user; Forbidden where registration is switched off, and what registration.register raises."""
    if not house.settings.registration_enabled:
        raise Forbidden("Registration is switched off.")
    new = registration.validated(house.settings, username=username, email=email, password=password)
    await house.throttle.check(REGISTRATIONS, address_key(ip))
    await house.throttle.count(REGISTRATIONS, address_key(ip))
    return await registration.register(house.db, house.hasher, new, ip=ip)


async def change_password(
    house: Services,
    user: User,
    *,
    current: str,
    new: str,
    ip: str | None,
    ended: ColumnElement[bool],
    browser: SignedIn | None = None,
) -> str | None:
    """Prove the current password and set a new one; InvalidInput or WrongPassword.

    All other browsers are signed out, and those sessions of the user `ended` that meet the condition. Returns the new
    cookie of `browser`, which stays signed in.
    """
    accounts.check_new_password(house.settings, user, new)
    verified = await confirm_password(house, user.id, current, ip)
    hashed = await house.hasher.hash(new)
    async with house.denylist.revoking() as tx:
        owner = await accounts.locked(tx, user.id)
        if owner is None or not await house.authentication.admit(tx, verified, to_write=True):
            raise WrongPassword("The account changed meanwhile. Give the password that you sign in with now.")
        await accounts.set_password(tx, owner, hashed, ip=ip)
        cookie = None
        if browser is not None:
            cookie = await house.browser_sessions.renew(tx, browser, generation=owner.generation)
        await house.sessions.end(tx, UserSession.user_id == owner.id, ended, because="password changed")
    return cookie


async def confirm_password(house: Services, user_id: UUID, password: str, ip: str | None) -> VerifiedPassword:
    """Have somebody who is signed in prove it again; WrongPassword."""
    verified = await house.authentication.confirm_password(user_id=user_id, password=password, ip=ip)
    if verified is None:
        raise WrongPassword("Give the password that you sign in with now.")
    return verified


async def delete(house: Services, user_id: UUID, *, ip: str | None, verified: VerifiedPassword | None = None) -> bool:
    """Delete the account and end all its sessions, for good; False if it was gone.

    WrongPassword if the account has changed since its password was `verified`.
    """
    async with house.denylist.revoking() as tx:
        user = await accounts.locked(tx, user_id)
        if verified is not None and not await house.authentication.admit(tx, verified, to_write=True):
            raise WrongPassword("The account changed meanwhile. Give the password that you sign in with now.")
        if user is not None:
            await house.sessions.end(tx, UserSession.user_id == user.id, because="account deleted")
            await accounts.delete(tx, user, ip=ip)
    return user is not None


async def sign_ins(house: Services, user_id: UUID, limit: int | None = None) -> Sequence[tuple[UserSession, str]]:
    """Return the living sessions, newest first, each with the name of its client."""
    async with house.db.read() as tx:
        alive = await house.sessions.alive(tx, UserSession.user_id == user_id, limit=limit)
        clients = select(Client.id, Client.name).where(Client.id.in_({session.client_id for session in alive}))
        names = {row.id: row.name for row in await tx.execute(clients)}
    return [(session, names.get(session.client_id, session.client_id)) for session in alive]


async def end_sign_in(house: Services, user_id: UUID, session_id: UUID) -> bool:
    """End one living session of the user; False if they have none such."""
    which = (UserSession.id == session_id, UserSession.user_id == user_id)
    async with house.denylist.revoking() as tx:
        ended = await house.sessions.end(tx, *which, because="signed out")
        if ended:
            audit.record(tx, "signed_out", user_id=user_id, session_id=session_id)
    return bool(ended)


async def sign_out_everywhere(house: Services, user_id: UUID) -> bool:
    """End all sessions, in browsers too; False if the account is gone."""
    async with house.denylist.revoking() as tx:
        user = await accounts.locked(tx, user_id)
        if user is not None:
            accounts.sign_out_everywhere(tx, user)
            await house.sessions.end(tx, UserSession.user_id == user.id, because="signed out everywhere")
    return user is not None
