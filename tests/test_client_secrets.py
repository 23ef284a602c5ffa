"""Secrets of clients: two of them live for a while, each in the way that the client is registered for."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from freezegun import freeze_time

from authserver import clock
from authserver.clients import registration
from authserver.services import Services
from tests.factories import App, NewClient, basic
from tests.test_token_form import ENDPOINTS, assert_oauth_error

HOUR = timedelta(hours=1)


async def rotate(services: Services, app: App, keep_old: timedelta = timedelta(0)) -> App:
    async with services.db.write() as tx:
        found = await registration.locked(tx, app.client_id)
        assert found
        return App(app.client_id, await registration.rotate_secret(tx, services.clients, found, keep_old=keep_old))


async def status(client: httpx.AsyncClient, app: App, endpoint: str = "/introspect") -> int:
    form = {"token": "x", "grant_type": "refresh_token", "refresh_token": "x"}
    return (await client.post(endpoint, data=form, auth=basic(app))).status_code


def accepted(endpoint: str) -> int:
    """Return what an endpoint answers a client that is who it says it is, and asks for nothing sensible."""
    return 400 if endpoint == "/token" else 200


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_the_old_secret_stays_good_beside_the_new_one_until_its_time_is_over(
    client: httpx.AsyncClient, services: Services, new_client: NewClient, endpoint: str
) -> None:
    old = await new_client()
    assert await status(client, old, endpoint) == accepted(endpoint)
    new = await rotate(services, old, keep_old=HOUR)
    for _ in range(2):  # they take turns, as the instances of an application do
        for app in (old, new):
            assert await status(client, app, endpoint) == accepted(endpoint)
    services.clients._kept.forget(old.client_id)
    with freeze_time(clock.now() + HOUR + timedelta(seconds=5), tick=True, real_asyncio=True):
        assert await status(client, old, endpoint) == 401
        assert await status(client, new, endpoint) == accepted(endpoint)


async def test_an_old_secret_that_is_remembered_dies_within_the_seconds_of_the_cache(
    client_with: Callable[..., Any], services: Services, new_client: NewClient
) -> None:
    client = await client_with(client_cache_seconds=0.2)
    old = await new_client()
    new = await rotate(services, old, keep_old=timedelta(seconds=1.5))
    assert await status(client, old) == 200
    answers = {200}
    for _ in range(600):
        if 401 in answers:
            break
        await asyncio.sleep(0.05)
        answers.add(await status(client, old))
    assert answers == {200, 401}
    assert await status(client, new) == 200


async def test_without_a_grace_the_old_secret_is_worth_nothing_at_once(
    client: httpx.AsyncClient, services: Services, new_client: NewClient
) -> None:
    first = await new_client()
    second = await rotate(services, first, keep_old=HOUR)
    third = await rotate(services, second)
    services.clients._kept.forget(first.client_id)  # a server process may believe its cache for a second
    assert [await status(client, app) for app in (first, second, third)] == [401, 401, 200]


async def test_a_third_secret_drops_the_oldest(
    client: httpx.AsyncClient, services: Services, new_client: NewClient
) -> None:
    first = await new_client()
    second = await rotate(services, first, keep_old=HOUR)
    third = await rotate(services, second, keep_old=HOUR)
    assert [await status(client, app) for app in (first, second, third)] == [401, 200, 200]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_client_keeps_to_the_one_way_that_it_is_registered_for(
    client: httpx.AsyncClient, new_client: NewClient, endpoint: str, method: str
) -> None:
    app = await new_client(auth_method=method)
    form = {"token": "x", "grant_type": "refresh_token", "refresh_token": "x"}
    in_body = form | {"client_id": app.client_id, "client_secret": app.secret or ""}
    for _ in range(3):  # the first right one is remembered, and the wrong way is wrong all the same
        by = {
            "client_secret_basic": await client.post(endpoint, data=form, auth=basic(app)),
            "client_secret_post": await client.post(endpoint, data=in_body),
        }
        assert by.pop(method).status_code == accepted(endpoint)
        for refused in by.values():
            assert_oauth_error(refused, 401, "invalid_client")


async def test_two_live_secrets_cost_no_question_to_the_database(
    client_with: Callable[..., Any], services: Services, new_client: NewClient
) -> None:
    client = await client_with(client_cache_seconds=60)
    old = await new_client()
    new = await rotate(services, old, keep_old=HOUR)
    assert await status(client, old) == 200
    with patch.object(type(services.db), "ask", side_effect=AssertionError("asked")):
        assert [await status(client, app) for app in (old, new, old, new)] == [200] * 4
