"""No account can be guessed, and no stranger locks its owner out: counted durably, for each account."""

import asyncio
import secrets
from datetime import timedelta

import pytest
from freezegun import freeze_time

from authserver import clock
from authserver.errors import Busy, StoreUnavailable
from authserver.services import Services
from authserver.users import accounts
from tests.application import client_of
from tests.factories import PASSWORD, NewClient, NewUser, Person, bearer, sign_in
from tests.test_register import assert_problem
from tests.test_throttling import WRONG, AppWith, ClientWith, an_address, assert_throttled, guess, later

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
