"""No account can be guessed, and no stranger locks its owner out: counted durably, for each account."""

import asyncio
import secrets
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from freezegun import freeze_time
from sqlalchemy import func, select

from authserver import clock, own_account
from authserver.errors import Busy, StoreUnavailable
from authserver.services import Services
from authserver.sessions import statements as beginning
from authserver.statement import Statement
from authserver.throttle import address_key
from authserver.users import accounts, attempts
from authserver.users import statements as counting
from authserver.users.models import AccountAttempts, KnownAddress, User
from tests.application import client_of
from tests.factories import PASSWORD, NewClient, NewUser, Person, bearer, sign_in
from tests.test_register import assert_problem
from tests.test_throttling import WRONG, AppWith, ClientWith, an_address, assert_throttled, guess, later
from tests.test_token_form import assert_oauth_error

PATIENT = {"throttle_enabled": True, "throttle_address_failures_per_minute": 10_000}
"""Only the account's own counter is in the way."""


async def test_after_ten_wrong_passwords_the_next_ones_wait_longer_and_longer(
    client_with: ClientWith, new_client: NewClient, new_user: NewUser
) -> None:
    client, app, user = await client_with(address=an_address(), **PATIENT), await new_client(), await new_user()
    await guess(client, app, user, 10)
    start, elapsed = clock.now(), 0.0
    for wait in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900):
        with freeze_time(start + timedelta(seconds=elapsed), tick=True, real_asyncio=True):
            await guess(client, app, user, 1)
            assert wait - 1 <= assert_throttled(await sign_in(client, app, user, password=WRONG)) <= wait
            # While it waits not even the right one is looked at: nobody learns that it was.
            assert_throttled(await sign_in(client, app, user))
        elapsed += wait + 1
    with freeze_time(start + timedelta(seconds=elapsed), tick=True, real_asyncio=True):
        assert (await sign_in(client, app, user)).status_code == 200
        for other in (await client_with(address=an_address(), **PATIENT), client):
            await guess(other, app, user, 10)


async def test_no_more_than_a_hundred_in_a_row_are_ever_evaluated(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    """However many try at a time, on however many nodes: the database counts before anything is hashed."""
    changes = PATIENT | {"throttle_account_free_failures": 100, "argon2_queue": 1000, "database_pool_size": 5}
    nodes = [await app_with(**changes), await app_with(**changes)]
    app, user = await new_client(), await new_user()
    statuses: list[int] = []
    at_a_time = asyncio.Semaphore(40)

    async def try_one(number: int) -> None:
        async with at_a_time, client_of(nodes[number % 2], an_address()) as client:
            response = await sign_in(client, app, user, password=f"{WRONG} {number}")
            while response.status_code == 503:  # a full connection pool is no answer
                await asyncio.sleep(0.1)  # as Retry-After asks: without a pause nobody, and no probe, gets a turn
                response = await sign_in(client, app, user, password=f"{WRONG} {number}")
            statuses.append(response.status_code)

    await asyncio.gather(*(try_one(number) for number in range(200)))
    assert set(statuses) == {400, 429}
    # 20 more are kept for the user's own addresses. (Some were evaluated and answered 503: the machine had much to do.)
    assert 20 <= statuses.count(400) <= 80
    async with client_of(nodes[0], an_address()) as client:
        assert assert_throttled(await sign_in(client, app, user)) >= 1


async def test_at_the_maximum_the_account_rests_for_a_day_and_begins_anew(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    node = await app_with(**PATIENT, throttle_account_max_failures=10, throttle_account_lock_seconds=3600)
    app, user = await new_client(), await new_user()
    async with client_of(node, an_address()) as home, client_of(node, an_address()) as stranger:
        assert (await sign_in(home, app, user)).status_code == 200
        await guess(stranger, app, user, 8)  # two are kept for the user's own addresses
        assert 3590 <= assert_throttled(await sign_in(stranger, app, user)) <= 3600
        with later(3500):
            assert (await sign_in(home, app, user)).status_code == 200
            assert_throttled(await sign_in(stranger, app, user))
        with later(3605):
            await guess(stranger, app, user, 8)
            assert_throttled(await sign_in(stranger, app, user))


async def test_mistakes_that_were_made_good_do_not_count(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    node = await app_with(**PATIENT)
    app, user = await new_client(), await new_user()
    async with client_of(node, an_address()) as home, client_of(node, an_address()) as elsewhere:
        for _ in range(11):
            assert (await sign_in(home, app, user)).status_code == 200
            await guess(home, app, user, 1)
        assert (await sign_in(home, app, user)).status_code == 200
        await guess(elsewhere, app, user, 10)


async def test_a_username_and_an_email_address_are_one_account(
    client_with: ClientWith, new_client: NewClient, new_user: NewUser
) -> None:
    client, app, user = await client_with(address=an_address(), **PATIENT), await new_client(), await new_user()
    await guess(client, app, user, 4)
    await guess(client, app, user, 4, name=user.email)
    await guess(client, app, user, 3, name=user.username.upper())
    assert_throttled(await sign_in(client, app, user, username=user.email))


async def test_a_name_that_nobody_has_is_throttled_alike(client_with: ClientWith, new_client: NewClient) -> None:
    client, app = await client_with(address=an_address(), **PATIENT), await new_client()
    name = f"nobody-{secrets.token_hex(6)}"
    nobody = Person(secrets.token_bytes, name, f"{name}@example.com")  # type: ignore[arg-type]
    await guess(client, app, nobody, 11)
    assert_throttled(await sign_in(client, app, nobody))
    await guess(client, app, nobody, 1, name=name + "x")


async def test_strangers_cannot_lock_the_owner_out(app_with: AppWith, new_client: NewClient, new_user: NewUser) -> None:
    node = await app_with(**PATIENT, throttle_account_max_failures=20)
    app, user = await new_client(), await new_user()
    async with client_of(node, an_address()) as home, client_of(node, an_address()) as stranger:
        assert (await sign_in(home, app, user)).status_code == 200
        await guess(stranger, app, user, 11)
        assert_throttled(await sign_in(stranger, app, user))
        await guess(home, app, user, 3)
        assert (await sign_in(home, app, user)).status_code == 200
        # Nor does the owner's sign-in give strangers another go.
        assert_throttled(await sign_in(stranger, app, user))
        # What is kept for the owner's address is bounded too.
        await guess(home, app, user, 4)
        assert assert_throttled(await sign_in(home, app, user)) > 80_000


async def test_an_address_is_known_for_thirty_days(app_with: AppWith, new_client: NewClient, new_user: NewUser) -> None:
    node = await app_with(**PATIENT)
    app, user = await new_client(), await new_user()
    async with client_of(node, an_address()) as home, client_of(node, an_address()) as stranger:
        assert (await sign_in(home, app, user)).status_code == 200
        for days, status in ((29, 200), (57, 200), (88, 429)):  # since the last time
            with later(days * 86_400 + days):
                await guess(stranger, app, user, 11)
                assert (await sign_in(home, app, user)).status_code == status


async def test_an_owner_who_signs_in_gives_strangers_no_more_guesses_at_a_time(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    node = await app_with(**PATIENT, throttle_account_max_failures=20)
    app, user = await new_client(), await new_user()
    async with client_of(node, an_address()) as home, client_of(node, an_address()) as stranger:
        assert (await sign_in(home, app, user)).status_code == 200
        await guess(stranger, app, user, 10)
        assert (await sign_in(home, app, user)).status_code == 200
        answers = await asyncio.gather(*(sign_in(stranger, app, user, password=WRONG) for _ in range(12)))
        assert [answer.status_code for answer in answers].count(400) <= 6  # of the sixteen that strangers have


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


async def test_all_addresses_together_have_no_more_than_the_maximum(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    node = await app_with(**PATIENT, throttle_account_max_failures=20)
    app, user = await new_client(), await new_user()
    homes = [an_address() for _ in range(7)]

    async def try_everywhere(password: str) -> list[int]:
        statuses = []
        for home in homes:
            async with client_of(node, home) as client:
                statuses += [(await sign_in(client, app, user, password=password)).status_code for _ in range(4)]
        return statuses

    assert set(await try_everywhere(PASSWORD)) == {200}
    assert (await try_everywhere(WRONG)).count(400) == 20
    with later(86_400 + 60):
        assert (await try_everywhere(WRONG)).count(400) == 20


async def test_neither_a_restart_nor_a_redis_flush_forgets(
    app_with: AppWith, services: Services, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(), await new_user()
    async with client_of(await app_with(**PATIENT), an_address()) as client:
        await guess(client, app, user, 11)
    if services.redis.is_configured:
        await services.redis.ask(lambda redis: redis.flushdb())
    async with client_of(await app_with(**PATIENT), an_address()) as client:
        assert_throttled(await sign_in(client, app, user))


async def test_a_guess_that_was_not_looked_at_does_not_count(
    app_with: AppWith, new_client: NewClient, new_user: NewUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await app_with(**PATIENT, throttle_account_max_failures=2)
    app, user = await new_client(), await new_user()
    hasher = node.state.services.hasher

    async def full(_hashed: str | None, _password: str) -> bool:
        raise Busy("the queue filled up after the guess had been counted")

    async with client_of(node, an_address()) as client:
        with monkeypatch.context() as patched:
            patched.setattr(hasher, "verify", full)
            for _ in range(5):
                assert (await sign_in(client, app, user)).status_code == 503
        assert (await sign_in(client, app, user)).status_code == 200


async def test_guesses_without_an_outcome_do_not_lock_for_long(
    app_with: AppWith, new_client: NewClient, new_user: NewUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server died while hashing, or could not write down what came of it."""
    node = await app_with(**PATIENT, throttle_account_max_failures=10)
    app, user = await new_client(), await new_user()

    async def die(_hashed: str | None, _password: str) -> bool:
        raise StoreUnavailable("database", "gone in between")

    async with client_of(node, an_address()) as client:
        await guess(client, app, user, 3)
        with monkeypatch.context() as patched:
            patched.setattr(node.state.services.hasher, "verify", die)
            statuses = [(await sign_in(client, app, user)).status_code for _ in range(6)]
        assert statuses == [503] * 5 + [429]
        assert_throttled(await sign_in(client, app, user))
        with later(301):
            await guess(client, app, user, 5)
            assert_throttled(await sign_in(client, app, user))


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


async def test_guesses_at_the_current_password_count_like_sign_ins(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    node = await app_with(**PATIENT)
    app, user = await new_client(), await new_user()
    async with client_of(node, an_address()) as client, client_of(node, an_address()) as thief:
        token = (await sign_in(client, app, user)).json()["access_token"]
        change = {"current_password": WRONG, "new_password": "another good long sentence"}
        for _ in range(11):
            response = await thief.post("/users/me/password", json=change, headers=bearer(token))
            assert_problem(response, 400, "wrong-password")
        response = await thief.post("/users/me/password", json=change, headers=bearer(token))
        assert_problem(response, 429, "too-many-requests")
        assert int(response.headers["retry-after"]) >= 1
        assert_throttled(await sign_in(thief, app, user))


async def test_a_new_password_has_not_been_guessed_at(
    app_with: AppWith, new_client: NewClient, new_user: NewUser
) -> None:
    """An operator who gives somebody a new password need not wait for the guesses at the old one to be forgotten."""
    node = await app_with(**PATIENT)
    parts: Services = node.state.services
    app, user = await new_client(), await new_user()
    async with client_of(node, an_address()) as home, client_of(node, an_address()) as stranger:
        assert (await sign_in(home, app, user)).status_code == 200
        await guess(home, app, user, 11)
        await guess(stranger, app, user, 1)
        for client in (home, stranger):
            assert_throttled(await sign_in(client, app, user))
        async with parts.denylist.revoking() as tx:
            found = await accounts.locked(tx, user.id)
            assert found is not None
            await accounts.set_password(tx, found, await parts.hasher.hash("another good long sentence"))
        await guess(stranger, app, user, 10)
        await guess(home, app, user, 10)
