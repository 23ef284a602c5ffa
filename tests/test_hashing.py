"""Argon2id in a pool of its own: bounded, off the event loop, as slow for nobody as for somebody."""

import asyncio
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from statistics import median
from types import SimpleNamespace
from typing import Any

import argon2
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from authserver.errors import Busy
from authserver.services import Services
from authserver.settings import Settings
from authserver.users import passwords
from authserver.users.models import User
from authserver.users.passwords import Hasher
from tests.application import client_of
from tests.factories import PASSWORD, NewClient, NewUser, sign_in

SLOW = {"argon2_memory_kib": 65_536, "argon2_time_cost": 3}


def hasher_with(**changes: Any) -> Hasher:
    return Hasher(Settings(_env_file=None, **({"argon2_memory_kib": 8, "argon2_time_cost": 1} | changes)))


@pytest.fixture
async def slow() -> AsyncIterator[Hasher]:
    """One thread, room for two more, about 0.2 s a hash."""
    hasher = hasher_with(**SLOW, argon2_threads=1, argon2_queue=2)
    yield hasher
    hasher.close()


async def test_the_parameters_are_the_ones_of_the_settings() -> None:
    hasher = Hasher(Settings(_env_file=None))
    hashed = await hasher.hash(PASSWORD)
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert len(hashed) <= 255
    assert await hasher.verify(hashed, PASSWORD)
    assert not await hasher.verify(hashed, PASSWORD + ".")
    assert not hasher.needs_rehash(hashed)
    assert hasher_with().needs_rehash(hashed)
    hasher.close()


async def test_a_full_queue_says_so_at_once(slow: Hasher) -> None:
    waiting = [asyncio.create_task(slow.hash(PASSWORD)) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert (slow.running, slow.queued) == (1, 2)
    began = time.perf_counter()
    with pytest.raises(Busy) as busy:
        await slow.hash(PASSWORD)
    assert time.perf_counter() - began < 0.1
    assert 1 <= busy.value.retry_after <= 5
    assert len(await asyncio.gather(*waiting)) == 3
    assert (slow.running, slow.queued) == (0, 0)


async def test_a_caller_who_gives_up_leaves_no_slot_taken(slow: Hasher) -> None:
    for _ in range(2):
        waiting = [asyncio.create_task(slow.hash(PASSWORD)) for _ in range(3)]
        await asyncio.sleep(0.02)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        async with asyncio.timeout(10):
            while slow.running or slow.queued:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)
    assert await slow.hash(PASSWORD)


class Held:
    """Nine hashes for one thread, each done when its event says so."""

    def __init__(self, hasher: Hasher) -> None:
        def work(event: threading.Event) -> None:
            assert event.wait(10)

        self.hasher = hasher
        self.events = [threading.Event() for _ in range(9)]
        self.tasks = [asyncio.create_task(hasher._in_thread(partial(work, event))) for event in self.events]

    def answered(self) -> int:
        return [task.done() for task in self.tasks].count(True)

    async def until(self, waiting: int, answered: int) -> None:
        async with asyncio.timeout(10):
            while self.hasher._admitted > waiting or self.answered() < answered:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.001)


@pytest.fixture
async def held(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Held]:
    monkeypatch.setattr(passwords, "_HELD_BACK_SECONDS", 1000)
    hasher = hasher_with(argon2_threads=1, argon2_queue=20)
    held = Held(hasher)
    await asyncio.sleep(0)
    yield held
    for event in held.events:
        event.set()
    await asyncio.gather(*held.tasks, return_exceptions=True)
    hasher.close()


async def test_those_who_wait_for_each_other_are_answered_together(held: Held) -> None:
    # Nobody waits for others longer than those behind wait for them; the last ones are answered each at once.
    for waiting, answered in zip(range(8, -1, -1), (0, 0, 0, 0, 5, 5, 7, 8, 9), strict=True):
        held.events[8 - waiting].set()
        await held.until(waiting, answered)
        assert held.answered() == answered


async def test_nobody_waits_for_those_who_have_gone(held: Held) -> None:
    for event in held.events[:2]:
        event.set()
    await held.until(7, 0)
    assert held.answered() == 0
    held.tasks[0].cancel()  # its hash is there, and is held back
    for task in held.tasks[4:]:
        task.cancel()
    await held.until(2, 7)
    assert [task.done() for task in held.tasks[:4]] == [True, True, False, False]
    assert (held.tasks[0].cancelled(), held.tasks[1].cancelled()) == (True, False)


async def test_nobody_waits_for_hashes_that_take_long(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_HELD_BACK_SECONDS", 0)
    held.events[0].set()
    await held.until(8, 1)


async def test_answers_are_held_back_no_longer_than_so(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_HELD_BACK_SECONDS", 0.2)
    moments = itertools.count(0, 0.08)  # each hash takes 0.08 s
    monkeypatch.setattr(passwords, "time", SimpleNamespace(perf_counter=lambda: next(moments)))
    for waiting, answered in zip(range(8, 3, -1), (0, 0, 3, 3, 3), strict=True):
        held.events[8 - waiting].set()
        await held.until(waiting, answered)
        assert held.answered() == answered


async def test_whoever_waits_when_it_closes_is_not_left_waiting(slow: Hasher) -> None:
    waiting = [asyncio.create_task(slow.hash(PASSWORD)) for _ in range(3)]
    await asyncio.sleep(0.05)
    slow.close()
    first, *others = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    assert isinstance(first, str)
    assert [type(other) for other in others] == [asyncio.CancelledError] * 2


async def test_the_event_loop_goes_on_while_hashing(slow: Hasher) -> None:
    hashing = asyncio.create_task(slow.hash(PASSWORD))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 10


async def seconds(work: Callable[[], Any]) -> float:
    """Return the processor time that it takes: what else the machine does is left out."""
    took = []
    for _ in range(9):
        began = time.process_time()
        await work()
        took.append(time.process_time() - began)
    return median(took)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a thread a priority of its own")
async def test_hashing_gives_way_to_everything_else() -> None:
    hasher = hasher_with(argon2_threads=2)
    niceness = partial(os.getpriority, os.PRIO_PROCESS, 0)  # of the calling thread
    try:
        assert await hasher._in_thread(niceness) == min(19, niceness() + 10)
    finally:
        hasher.close()


async def test_nobody_takes_as_long_as_somebody() -> None:
    hasher = hasher_with(argon2_memory_kib=19_456, argon2_time_cost=2, argon2_threads=1)
    hashed = await hasher.hash(PASSWORD)
    wrong = await seconds(lambda: hasher.verify(hashed, "a wrong password"))
    for same in (
        await seconds(lambda: hasher.verify(None, "a wrong password")),
        await seconds(lambda: hasher.verify(hashed, "x" * 16_000)),
        await seconds(lambda: hasher.verify("not a hash", "a wrong password")),
    ):
        assert 0.5 < same / wrong < 2
    hasher.close()


async def test_no_password_beyond_the_longest_is_right_or_costs_more() -> None:
    hasher = hasher_with(password_max_length=64)
    hashed = await hasher.hash("x" * 64)
    assert await hasher.verify(hashed, "x" * 64)
    assert not await hasher.verify(hashed, "x" * 65)
    assert not await hasher.verify(None, "x" * 64)
    of_more_generous_days = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("x" * 65)
    assert not await hasher.verify(of_more_generous_days, "x" * 65)
    hasher.close()


async def test_an_unreadable_hash_is_a_wrong_password_and_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    hasher = hasher_with()
    with caplog.at_level(logging.ERROR):
        assert not await hasher.verify("$2b$12$from-somewhere-else", PASSWORD)
    assert [record.message for record in caplog.records] == ["password_hash_unreadable"]
    hasher.close()


async def test_cores_are_shared_between_workers() -> None:
    alone, many = hasher_with(), hasher_with(workers=64)
    assert many._threads == 1
    assert alone._threads >= many._threads
    assert hasher_with(argon2_threads=3)._threads == 3


async def test_a_full_queue_is_a_503_at_each_endpoint(
    app: FastAPI, services: Services, new_user: NewUser, new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, client_app = await new_user(), await new_client()
    async with client_of(app) as client:
        token = (await sign_in(client, client_app, person)).json()["access_token"]
        monkeypatch.setattr(services.hasher, "_capacity", 0)
        change = {"current_password": PASSWORD, "new_password": "another good long sentence"}
        new = {"username": "never-made", "email": "never-made@example.com", "password": PASSWORD}
        responses = [
            await sign_in(client, client_app, person),
            await client.post("/register", json=new),
            await client.post("/users/me/password", json=change, headers={"Authorization": f"Bearer {token}"}),
        ]
    for response in responses:
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
    assert responses[0].json()["error"] == "temporarily_unavailable"
    assert responses[1].json()["type"].endswith("/errors#temporarily-unavailable")


async def stored_hash(services: Services, user_id: object) -> str:
    async with services.db.read() as tx:
        return (await tx.scalars(select(User.hashed_password).where(User.id == user_id))).one()


async def test_a_sign_in_renews_a_hash_of_other_parameters(
    client: httpx.AsyncClient, services: Services, new_user: NewUser, new_client: NewClient
) -> None:
    person, app = await new_user(), await new_client()
    old = argon2.PasswordHasher(time_cost=2, memory_cost=16, parallelism=1).hash(PASSWORD)
    async with services.db.write() as tx:
        await tx.execute(update(User).where(User.id == person.id).values(hashed_password=old))
    assert (await sign_in(client, app, person, password="not it at all")).status_code == 400
    assert await stored_hash(services, person.id) == old
    # Many at a time: they must not wait for each other's locks.
    responses = await asyncio.gather(*(sign_in(client, app, person) for _ in range(10)))
    assert {response.status_code for response in responses} == {200}
    assert (await stored_hash(services, person.id)).startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert (await sign_in(client, app, person)).status_code == 200
