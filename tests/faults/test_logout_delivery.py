"""Notices of logout are delivered by many nodes at once, and by the others when one dies."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from authserver import clock
from authserver.clients import registration
from authserver.services import Services
from authserver.sessions.models import LogoutNotice
from authserver.settings import Settings
from tests.factories import claims_of
from tests.faults.crashing import CrashingProgram
from tests.faults.house import eventually
from tests.receiver import Receiver, receiving
from tests.stores import Backend, Stores

ISSUER = "http://127.0.0.1"
SENT = "after authserver.sessions.logout_delivery:LogoutDelivery._sent"


@pytest.fixture
async def own(databases: Stores, backend: Backend) -> dict[str, Any]:
    """The settings of nodes that share a database with nobody else."""
    return {"database_url": await databases.new_database(backend), "redis_url": "", "issuer": ISSUER}


async def noted(house: Services, receiver: Receiver, how_many: int) -> set[str]:
    """Write notices as if so many sign-ins had ended at once; return their `sid`s."""
    new = registration.NewClient(name="Told", backchannel_logout_uri=receiver.uri)
    sessions = [uuid4() for _ in range(how_many)]
    async with house.db.write() as tx:
        client, _ = registration.create(tx, house.clients, new)
        tx.add_all(LogoutNotice(client_id=client.id, user_id=uuid4(), session_id=sid) for sid in sessions)
    return {str(sid) for sid in sessions}


async def all_settled(house: Services) -> None:
    async def is_none_left() -> bool:
        async with house.db.read() as tx:
            return not await tx.scalar(select(func.count()).select_from(LogoutNotice))

    await eventually(is_none_left)


async def test_nodes_that_deliver_together_lose_nothing_and_say_nothing_twice(
    app_with: Any, own: dict[str, Any]
) -> None:
    nodes = [(await app_with(**own)).state.services for _ in range(3)]
    async with receiving() as receiver:
        expected = await noted(nodes[0], receiver, 60)
        await all_settled(nodes[0])
    told = [claims_of(token)["sid"] for token in receiver.tokens]
    assert set(told) == expected
    assert len(told) == len(expected)


@pytest.mark.slow
async def test_what_a_node_was_delivering_when_it_died_is_delivered_by_another(
    app_with: Any, own: dict[str, Any], tmp_path: Path
) -> None:
    program = CrashingProgram(SENT, tmp_path, own)
    try:
        await program.ready()
        async with receiving() as receiver, Services.open(Settings(_env_file=None, **own)) as house:
            expected = await noted(house, receiver, 3)
            assert await asyncio.to_thread(program.process.wait, 30) == -9
            async with house.db.write() as tx:
                left = (await tx.scalars(select(LogoutNotice).where(LogoutNotice.attempts > 0))).all()
                assert left
                for notice in left:
                    assert notice.next_try_at > clock.now()  # nobody else may have it until the lease is over
                    notice.next_try_at = clock.now()
            await app_with(**own)
            await all_settled(house)
            told = [claims_of(token)["sid"] for token in receiver.tokens]
            assert set(told) == expected
            assert len(told) > len(expected)  # at least once: one was sent, and nobody knew
    finally:
        program.kill()
