"""Guesses of one moment: they share the statements, none is lost, and nobody waits in a circle or for a stranger."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import func, select

from authserver import own_account
from authserver.services import Services
from authserver.sessions import statements as beginning
from authserver.statement import Statement
from authserver.throttle import address_key
from authserver.users import accounts, attempts
from authserver.users import statements as counting
from authserver.users.models import AccountAttempts, KnownAddress, User
from tests.application import client_of
from tests.factories import NewClient, NewUser, sign_in
from tests.test_attempts import PATIENT
from tests.test_throttling import WRONG, AppWith, an_address, assert_throttled, guess
from tests.test_token_form import assert_oauth_error


async def test_guesses_of_one_moment_are_counted_each_at_its_own_account(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    """PostgreSQL is asked once for all: whose account must wait, waits alone, and not at the user's own address."""
    node, app, users = await app_with(**PATIENT), await new_client(), [await new_user() for _ in range(6)]
    homes = [an_address() for _ in users]
    async with AsyncExitStack() as stack:
        at_home = [await stack.enter_async_context(client_of(node, home)) for home in homes]
        stranger = await stack.enter_async_context(client_of(node, an_address()))
        for client, user in zip(at_home, users, strict=True):
            assert (await sign_in(client, app, user)).status_code == 200
        await guess(stranger, app, users[1], 11)
        await guess(at_home[2], app, users[2], 11)
        await guess(stranger, app, users[3], 6)
        for _ in range(3):
            answers = await asyncio.gather(
                *(sign_in(stranger, app, users[one], password=WRONG) for one in (0, 1, 3)),
                *(sign_in(at_home[one], app, users[one]) for one in (4, 1, 2, 5, 3, 4)),
            )
            assert [answer.status_code for answer in answers] == [400, 429, 400, 200, 200, 429, 200, 200, 200]
        # What was right at home has not made good what strangers did, and what they did was counted at one account.
        await guess(stranger, app, users[0], 8)
        assert_throttled(await sign_in(stranger, app, users[0]))
        await guess(stranger, app, users[3], 2)
        assert_throttled(await sign_in(stranger, app, users[3]))
        await guess(stranger, app, users[4], 10)


@pytest.mark.parametrize("row", ["of the account", "of its guesses", "of its guesses, afterwards"])
async def test_an_account_that_is_being_worked_on_keeps_only_its_own_sign_in_waiting(
    app_with: AppWith, new_client: NewClient, new_user: NewUser, monkeypatch: pytest.MonkeyPatch, row: str
) -> None:
    node, app = await app_with(**PATIENT), await new_client()
    held, free = await new_user(), [await new_user() for _ in range(3)]
    services: Services = node.state.services
    verify, is_verified, is_held = services.hasher.verify, asyncio.Event(), asyncio.Event()
    of_account = select(User.id).where(User.id == held.id)
    its_guesses = AccountAttempts.key == attempts._key(held.id, "")

    async def verify_slowly(hashed: str | None, password: str) -> bool:
        answer = await verify(hashed, password)
        is_verified.set()
        await is_held.wait()
        return answer

    async with client_of(node, an_address()) as client:
        for user in (held, *free):
            assert (await sign_in(client, app, user)).status_code == 200
        async with services.db.read() as tx:  # on SQLite nobody who reads keeps anybody waiting
            if row.endswith("afterwards"):
                with monkeypatch.context() as patched:
                    patched.setattr(services.hasher, "verify", verify_slowly)
                    waiting = asyncio.create_task(sign_in(client, app, held))
                    await is_verified.wait()
            held_row = of_account if row == "of the account" else select(AccountAttempts.key).where(its_guesses)
            await tx.execute(held_row.with_for_update())
            is_held.set()
            if not row.endswith("afterwards"):
                waiting = asyncio.create_task(sign_in(client, app, held))
            async with asyncio.timeout(0.8):  # less than anybody waits for a lock
                others = await asyncio.gather(*(sign_in(client, app, user) for user in free))
            assert [answer.status_code for answer in others] == [200, 200, 200]
            assert services.db.is_sqlite or not waiting.done()
        assert (await waiting).status_code == 200
    async with services.db.read() as tx:
        assert await tx.scalar(select(AccountAttempts.attempts).where(its_guesses)) == 0


async def test_people_who_sign_in_at_the_same_moment_share_the_statements(
    app_with: AppWith, new_client: NewClient, new_user: NewUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL; also when they have never signed in before."""
    node, app, people = await app_with(**PATIENT), await new_client(), [await new_user() for _ in range(10)]
    db, asked = node.state.services.db, []
    ask, ask_all = db.ask, db.ask_all

    async def noted(statement: Statement, *more: Any) -> Any:
        asked.append(statement)
        return await ask(statement, *more)

    async def noted_together(statement: Statement, *more: Any) -> Any:
        asked.append(statement)
        return await ask_all(statement, *more)

    monkeypatch.setattr(db, "ask", noted)
    monkeypatch.setattr(db, "ask_all", noted_together)
    blame: counting.Blame = node.state.services.authentication._attempts._blame
    async with client_of(node, an_address()) as client:
        answers = await asyncio.gather(*(sign_in(client, app, person) for person in people))
        assert {answer.status_code for answer in answers} == {200}
        answers = await asyncio.gather(*(sign_in(client, app, person, password=WRONG) for person in people))
        assert {answer.status_code for answer in answers} == {400}
    alone = (counting.BEGIN, counting.SUCCEED, beginning.START, blame.both)
    together = (counting.BEGIN_TOGETHER, counting.SUCCEED_TOGETHER, beginning.START_TOGETHER, blame.together)
    if not db.is_sqlite:
        assert [asked.count(statement) for statement in alone] == [0, 0, 0, 0]
        # Hashes end at moments of their own: one of each kind would be luck.
        assert all(1 <= asked.count(statement) < 2 * len(people) for statement in together)
        assert sum(asked.count(statement) for statement in together) < 5 * len(people)


async def test_wrong_passwords_of_one_moment_at_one_account_are_each_counted(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    """At the user's own address too. On PostgreSQL the first is counted with others' ones, the others each alone."""
    node, app, user, home = await app_with(**PATIENT), await new_client(), await new_user(), an_address()
    services: Services = node.state.services
    async with client_of(node, home) as client:
        assert (await sign_in(client, app, user)).status_code == 200
    guesses = services.authentication._attempts
    begun = [await guesses.begin(user_id=user.id, name="", address=address_key(home)) for _ in range(3)]
    await asyncio.gather(*(guesses.failed(guess) for guess in begun))
    async with services.db.read() as tx:
        of_account = AccountAttempts.key == attempts._key(user.id, "")
        assert await tx.scalar(select(AccountAttempts.failures).where(of_account)) == 3
        assert await tx.scalar(select(KnownAddress.failures).where(KnownAddress.user_id == user.id)) == 3


async def test_a_sign_in_and_a_password_change_do_not_wait_for_each_other_in_a_circle(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    node = await app_with(**PATIENT)
    app, user = await new_client(), await new_user()
    services: Services = node.state.services
    async with client_of(node, an_address()) as client:
        async with services.db.write() as tx:
            await accounts.locked(tx, user.id)
            signing_in = asyncio.create_task(sign_in(client, app, user))
            await asyncio.sleep(0.3)
            await attempts.forget(tx, user.id)
        assert (await signing_in).status_code == 200


async def test_a_right_password_ends_the_wait_that_guesses_beside_it_began(
    app_with: AppWith, new_client: NewClient, new_user: NewUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await app_with(**PATIENT)
    app, user = await new_client(), await new_user()
    services: Services = node.state.services
    hasher, verify = services.hasher, services.hasher.verify
    async with client_of(node, an_address()) as home, client_of(node, an_address()) as stranger:

        async def verify_while_others_guess(hashed: str | None, password: str) -> bool:
            with monkeypatch.context() as undone:
                undone.setattr(hasher, "verify", verify)
                await guess(stranger, app, user, 11)
                assert_throttled(await sign_in(stranger, app, user))
            return await verify(hashed, password)

        with monkeypatch.context() as patched:
            patched.setattr(hasher, "verify", verify_while_others_guess)
            assert (await sign_in(home, app, user)).status_code == 200
        await guess(stranger, app, user, 10)


async def test_many_right_sign_ins_at_a_time_are_no_guesses(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    node = await app_with(**PATIENT)
    app, user = await new_client(), await new_user()
    async with client_of(node, an_address()) as client:
        for _ in range(16):
            responses = await asyncio.gather(*(sign_in(client, app, user) for _ in range(8)))
            assert {response.status_code for response in responses} == {200}
        await guess(client, app, user, 10)


async def test_an_account_that_ends_while_its_password_is_verified_leaves_nothing_behind(
    app_with: AppWith, new_client: NewClient, new_user: NewUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await app_with(**PATIENT)
    app, user = await new_client(), await new_user()
    services: Services = node.state.services
    verify = services.hasher.verify

    async def verify_while_the_account_ends(hashed: str | None, password: str) -> bool:
        await own_account.delete(services, user.id, ip=None)
        return await verify(hashed, password)

    monkeypatch.setattr(services.hasher, "verify", verify_while_the_account_ends)
    async with client_of(node, an_address()) as client:
        assert_oauth_error(await sign_in(client, app, user), 400, "invalid_grant")
    async with services.db.read() as tx:
        assert await tx.scalar(select(func.count()).where(KnownAddress.user_id == user.id)) == 0
