"""`authserver keys`, each test on a database of its own: rotating is everybody's business."""

from datetime import datetime, timedelta

import pytest

from authserver import clock
from tests.cli.conftest import Run
from tests.stores import Backend, Stores


@pytest.fixture
async def url(databases: Stores, backend: Backend) -> str:
    return await databases.new_database(backend)


async def test_listing_makes_no_key(run: Run, url: str) -> None:
    assert (await run("keys", "list", "--json", database_url=url)).json == []
    assert (await run("keys", "list", "--json", database_url=url)).json == []


async def test_a_successor_is_announced_before_it_signs(run: Run, url: str) -> None:
    made = (await run("keys", "rotate", "--json", database_url=url, jwks_max_age_seconds=100)).json
    first, second = (await run("keys", "list", "--json", database_url=url)).json
    assert made == second
    assert (first["state"], second["state"]) == ("signing", "announced")
    assert (first["alg"], second["verifies_until"]) == ("ES256", None)
    wait = datetime.fromisoformat(second["signs_from"]) - clock.now()
    assert timedelta(seconds=150) < wait <= timedelta(seconds=160)
    assert first["verifies_until"] > second["signs_from"]


async def test_a_leaked_key_is_gone_at_once(run: Run, url: str) -> None:
    await run("keys", "rotate", database_url=url)
    made = (await run("keys", "rotate", "--now", "--json", database_url=url)).json
    assert made["state"] == "signing"
    assert (await run("keys", "list", "--json", database_url=url)).json == [made]


async def test_keys_under_another_secret_key_are_unreadable_until_a_new_one_is_made(run: Run, url: str) -> None:
    other = {"database_url": url, "secret_key": "another secret key of enough characters"}
    await run("keys", "rotate", "--now", database_url=url)
    [key] = (await run("keys", "list", "--json", **other)).json
    assert key["state"] == "unreadable"
    later = await run("keys", "rotate", "--json", **other)
    assert "--now" in later.stderr
    assert later.json["state"] == "announced"
    assert (await run("keys", "rotate", "--now", "--json", **other)).json["state"] == "signing"
