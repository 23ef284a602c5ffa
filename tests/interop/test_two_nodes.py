"""Two server processes on one PostgreSQL and one Valkey: whatever happens on one is true on the other at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from authserver.settings import Settings
from tests.application import Program
from tests.assertions import new_signer
from tests.factories import NewClient, basic
from tests.interop.conftest import Actors, introspect, program, tokens

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("backend", ["postgres"], indirect=True)]

Nodes = tuple[httpx.AsyncClient, httpx.AsyncClient]


@pytest.fixture(scope="module")
async def nodes(settings: Settings, server: Program, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    """Clients of two processes with one issuer."""
    second = program(settings, tmp_path_factory.mktemp("second"), issuer=server.url)
    try:
        await second.ready()
        limits = httpx.Limits(max_connections=100)
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=30, limits=limits) as a,
            httpx.AsyncClient(base_url=second.url, timeout=30, limits=limits) as b,
        ):
            yield a, b
    finally:
        second.kill()


async def refresh(node: httpx.AsyncClient, actors: Actors, token: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return await node.post("/token", data=form, auth=basic(actors.confidential))


async def revoke(node: httpx.AsyncClient, actors: Actors, token: str) -> None:
    answer = await node.post("/revoke", data={"token": token}, auth=basic(actors.confidential))
    assert answer.status_code == 200, answer.text


async def test_100_refreshes_of_one_token_have_one_successor(nodes: Nodes, actors: Actors) -> None:
    token = (await tokens(nodes[0], actors))["refresh_token"]
    answers = await asyncio.gather(*(refresh(nodes[number % 2], actors, token) for number in range(100)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 503}  # 503: a crowd that the database could not serve in time; nothing is lost
    assert statuses[200] >= 50
    [successor] = {answer.json()["refresh_token"] for answer in answers if answer.status_code == 200}
    assert (await refresh(nodes[1], actors, successor)).status_code == 200


async def test_revoked_here_is_dead_there(nodes: Nodes, actors: Actors) -> None:
    for number in range(60):
        here, there = nodes if number % 2 else reversed(nodes)
        if number % 10 == 0:
            issued = await tokens(here, actors)
        else:  # much quicker than a password
            issued = (await refresh(there, actors, issued["refresh_token"])).json()
        access = issued["access_token"]
        assert (await introspect(there, actors.resource_server, access))["active"] is True
        ends_session = number % 10 == 9
        await revoke(here, actors, issued["refresh_token"] if ends_session else access)
        assert await introspect(there, actors.resource_server, access) == {"active": False}
        if ends_session:
            assert (await refresh(there, actors, issued["refresh_token"])).status_code == 400


async def test_a_sign_out_wins_against_refreshes(nodes: Nodes, actors: Actors) -> None:
    for _ in range(10):
        token = (await tokens(nodes[0], actors))["refresh_token"]
        signing_out = asyncio.create_task(revoke(nodes[1], actors, token))
        answers = await asyncio.gather(*(refresh(nodes[number % 2], actors, token) for number in range(6)))
        await signing_out
        for answer in answers:
            assert answer.status_code in {200, 400}, answer.text
            if answer.status_code == 200:
                issued = answer.json()
                assert await introspect(nodes[0], actors.resource_server, issued["access_token"]) == {"active": False}
                assert await introspect(nodes[1], actors.confidential, issued["refresh_token"]) == {"active": False}


async def test_50_uses_of_one_assertion_have_one_success(nodes: Nodes, server: Program, new_client: NewClient) -> None:
    made = await new_signer(new_client, grants=["client_credentials"], scopes=["read"])
    signer = replace(made, issuer=server.url)
    for _ in range(3):
        form = {"grant_type": "client_credentials"} | signer.form()
        answers = await asyncio.gather(*(nodes[number % 2].post("/token", data=form) for number in range(50)))
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses[200] == 1, statuses
        assert set(statuses) <= {200, 401, 503}
