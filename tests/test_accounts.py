"""users/accounts.py, for operators: accounts are found, listed, switched off and on."""

from uuid import uuid4

import httpx

from authserver.services import Services
from authserver.sessions.models import UserSession
from authserver.users import accounts
from authserver.users.models import User
from tests.factories import NewUser, sign_in
from tests.signed_in import SignedIn, assert_over, events


async def test_disabling_ends_sign_ins_in_progress(client: httpx.AsyncClient, services: Services, me: SignedIn) -> None:
    async with services.denylist.revoking() as tx:
        user = await accounts.locked(tx, me.user.id)
        assert user is not None
        accounts.set_active(tx, user, is_active=False)
        await services.sessions.end(tx, UserSession.user_id == user.id, because="disabled")
    await assert_over(client, me)
    assert (await sign_in(client, me.app, me.user)).status_code == 400
    async with services.db.write() as tx:
        user = await accounts.locked(tx, me.user.id)
        assert user is not None
        accounts.set_active(tx, user, is_active=True)
        accounts.set_active(tx, user, is_active=True)
    assert (await sign_in(client, me.app, me.user)).status_code == 200
    assert await events(services, me.user) == ["user_disabled", "user_enabled"]


async def test_accounts_are_found_by_any_of_their_names(services: Services, new_user: NewUser) -> None:
    person = await new_user()
    async with services.db.read() as tx:
        for name in (person.username, person.username.upper(), person.email, str(person.id)):
            found = await accounts.find(tx, name)
            assert found is not None
            assert found.id == person.id
        for name in ("", "nobody", "nobody@example.com", str(uuid4())):
            assert await accounts.find(tx, name) is None


async def test_accounts_are_listed_page_by_page(services: Services, new_user: NewUser) -> None:
    made = {(await new_user()).id for _ in range(5)}
    seen: list[User] = []
    async with services.db.read() as tx:
        while page := await accounts.page(tx, after=seen[-1].username_key if seen else "", limit=2):
            assert len(page) <= 2
            seen += page
        assert len(seen) == await accounts.count(tx)
    assert made <= {user.id for user in seen}
    assert len(seen) == len({user.id for user in seen})
