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
    made = (await run("keys", "rotate", "--alg", "ES256", "--json", database_url=url, jwks_max_age_seconds=100)).json
    first, second, other = (await run("keys", "list", "--json", database_url=url)).json
    assert made == [second]
    assert (other["alg"], other["state"], other["verifies_until"]) == ("RS256", "signing", None)
    assert (first["state"], second["state"]) == ("signing", "announced")
    assert (first["alg"], second["verifies_until"]) == ("ES256", None)
    wait = datetime.fromisoformat(second["signs_from"]) - clock.now()
    assert timedelta(seconds=150) < wait <= timedelta(seconds=160)
    assert first["verifies_until"] > second["signs_from"]


async def test_a_leaked_key_is_gone_at_once(run: Run, url: str) -> None:
    await run("keys", "rotate", database_url=url)
    made = (await run("keys", "rotate", "--now", "--json", database_url=url)).json
    assert [(key["alg"], key["state"]) for key in made] == [("ES256", "signing"), ("RS256", "signing")]
    assert (await run("keys", "list", "--json", database_url=url)).json == made


async def test_the_keys_of_one_algorithm_go_and_the_others_stay(run: Run, url: str) -> None:
    await run("keys", "rotate", "--now", database_url=url)
    access, id_tokens = (await run("keys", "list", "--json", database_url=url)).json
    [made] = (await run("keys", "rotate", "--now", "--alg", "RS256", "--json", database_url=url)).json
    assert made["kid"] != id_tokens["kid"]
    assert (await run("keys", "list", "--json", database_url=url)).json == [access, made]


async def test_the_first_key_of_another_algorithm_is_announced_too_unless_it_is_wanted_now(run: Run, url: str) -> None:
    [made] = (await run("keys", "rotate", "--alg", "EdDSA", "--json", database_url=url)).json
    assert (made["alg"], made["state"]) == ("EdDSA", "announced")
    listed = (await run("keys", "list", "--json", database_url=url)).json
    assert [key["alg"] for key in listed] == ["ES256", "EdDSA", "RS256"]
    assert len((await run("keys", "rotate", "--json", database_url=url)).json) == 3


async def test_keys_under_another_secret_key_are_unreadable_until_a_new_one_is_made(run: Run, url: str) -> None:
    other = {"database_url": url, "secret_key": "another secret key of enough characters"}
    await run("keys", "rotate", "--now", database_url=url)
    keys = (await run("keys", "list", "--json", **other)).json
    assert [key["state"] for key in keys] == ["unreadable", "unreadable"]
    later = await run("keys", "rotate", "--json", **other)
    assert "--now" in later.stderr
    assert [key["state"] for key in later.json] == ["announced", "announced"]
    made = (await run("keys", "rotate", "--now", "--json", **other)).json
    assert [key["state"] for key in made] == ["signing", "signing"]
