"""/metrics: what happened is counted under names and labels that stay few."""

import asyncio
import re
from functools import partial
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from sqlalchemy import text

from authserver.observability import metrics
from authserver.services import Services
from tests.factories import PASSWORD, NewClient, NewUser, basic
from tests.servers import free_port


async def scrape(client: httpx.AsyncClient) -> dict[str, Metric]:
    response = await client.get("/metrics")
    assert response.status_code == 200
    return {family.name: family for family in parse(response.text)}


async def value(client: httpx.AsyncClient, name: str, **labels: str) -> float:
    families = await scrape(client)
    samples = [sample for family in families.values() for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name and sample.labels == labels)


async def test_names_and_units_follow_the_rules(client: httpx.AsyncClient) -> None:
    families = await scrape(client)
    assert len(families) > 15
    for name, family in families.items():
        assert name.startswith("authserver_")
        assert family.documentation
        if family.type == "histogram":
            assert name.endswith("_seconds")
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


async def test_prometheus_gets_the_format_it_asks_for(client: httpx.AsyncClient) -> None:
    plain = await client.get("/metrics")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    openmetrics = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert list(parse_openmetrics(openmetrics.text))  # type: ignore[no-untyped-call]


async def test_requests_are_counted_by_route_method_and_status(client: httpx.AsyncClient) -> None:
    labels = {"route": "/health/live", "method": "GET", "status": "200"}
    before = await value(client, "authserver_http_requests_total", **labels)
    timed = await value(client, "authserver_http_request_duration_seconds_count", route="/health/live")
    for _ in range(3):
        await client.get("/health/live")
    assert await value(client, "authserver_http_requests_total", **labels) == before + 3
    assert await value(client, "authserver_http_request_duration_seconds_count", route="/health/live") == timed + 3


async def test_strangers_cannot_make_metrics_grow(client: httpx.AsyncClient) -> None:
    async def label_sets() -> set[tuple[str, ...]]:
        family = (await scrape(client))["authserver_http_requests"]
        return {tuple(sample.labels.values()) for sample in family.samples}

    await client.get("/nowhere")
    await client.request("BREW", "/nowhere")
    await client.delete("/users/me/sessions/0")
    before = await label_sets()
    for number in range(20):
        await client.get(f"/nowhere/{number}")
        await client.get(f"/.well-known/{number}")
        await client.get(f"/token/{number}")
        await client.delete(f"/users/me/sessions/{number}")
        await client.request(f"BREW{number}", "/nowhere")
    assert await label_sets() == before
    assert not [labels for labels in before if re.search(r"BREW|[0-9]{4}", "".join(labels))]


async def test_sign_ins_refreshes_introspections_and_revocations_are_counted(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    names: dict[str, dict[str, str]] = {
        "authserver_grants_total": {"grant": "password", "outcome": "issued"},
        "authserver_sessions_started_total": {},
        "authserver_introspections_total": {"outcome": "active"},
        "authserver_revocations_total": {"kind": "refresh_token"},
        "authserver_hash_duration_seconds_count": {},
        "authserver_sessions_revoked_total": {"reason": "revoked"},
    }
    before = {name: await value(client, name, **labels) for name, labels in names.items()}
    app, user = await new_client(may_introspect=True), await new_user()
    data = {"grant_type": "password", "username": user.username, "password": PASSWORD}
    tokens = (await client.post("/token", data=data, auth=basic(app))).json()
    await client.post("/introspect", data={"token": tokens["access_token"]}, auth=basic(app))
    await client.post("/revoke", data={"token": tokens["refresh_token"]}, auth=basic(app))
    for name, labels in names.items():
        assert await value(client, name, **labels) > before[name], name


async def test_gauges_say_how_the_process_is_doing(client: httpx.AsyncClient, services: Services) -> None:
    assert await value(client, "authserver_signing_keys_loaded") >= 1
    assert await value(client, "authserver_breaker_open", dependency="database") == 0
    async with services.db.read() as tx:
        await tx.execute(text("SELECT 1"))
        assert await value(client, "authserver_database_connections_in_use") >= 1
    # What runs in the background takes one too, now and then.
    while await value(client, "authserver_database_connections_in_use"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_breakers_are_seen_to_open(client_with: Any) -> None:
    openings = metrics.BREAKER_OPENINGS.labels("redis")._value.get()
    client = await client_with(redis_url=f"redis://127.0.0.1:{free_port()}/0", breaker_max_failures=1)
    assert (await client.get("/health/ready")).json()["status"] == "degraded"
    assert await value(client, "authserver_breaker_open", dependency="redis") == 1
    assert await value(client, "authserver_breaker_openings_total", dependency="redis") == openings + 1


async def test_metrics_ask_no_store(client_with: Any) -> None:
    down = f"127.0.0.1:{free_port()}"
    client = await client_with(database_url=f"postgresql+asyncpg://a@{down}/a", redis_url=f"redis://{down}/0")
    assert await value(client, "authserver_signing_keys_loaded") == 0


@pytest.mark.parametrize("method", ["BREW", "get", "", "PROPFIND"])
def test_methods_that_are_none_count_as_other(method: str) -> None:
    counter = metrics.REQUESTS.labels("a test", "other", "418")
    before = counter._value.get()
    metrics.count_request("a test", method, 418, 0.001)
    metrics.settle()
    assert counter._value.get() == before + 1


def test_what_happens_with_every_request_is_noted_together() -> None:
    metrics.settle()
    noted: list[int] = []
    for number in range(metrics._AT_ONCE - 1):
        metrics.soon(partial(noted.append, number))
    assert noted == []
    metrics.soon(partial(noted.append, metrics._AT_ONCE - 1))
    assert noted == list(range(metrics._AT_ONCE))
    metrics.soon(partial(noted.append, -1))
    metrics.exposition("")  # whoever is asked says what it knows
    assert noted[-1] == -1
    metrics.settle()
    assert len(noted) == metrics._AT_ONCE + 1
