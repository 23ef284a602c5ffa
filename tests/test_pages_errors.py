"""Whatever goes wrong where people are is a page; everywhere else it is what it was."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from authserver.errors import ShownToPerson, StoreUnavailable
from authserver.pages import errand
from authserver.services import Services
from tests.factories import NewUser
from tests.pages import shown, sign_in, submit

HTML = "text/html; charset=utf-8"


@pytest.mark.parametrize("path", ["/login/", "/login/x", "/account/x", "/logout/x", "/signup/x", "/consent/x"])
async def test_an_unknown_address_of_ours_is_a_page(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert (page.status_code, page.headers["content-type"]) == (404, HTML)
    assert "There is nothing at this address" in shown(page)
    assert page.headers["x-request-id"] in page.text


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", "/login", "GET, HEAD, POST"), ("DELETE", "/account", "GET, HEAD"), ("PATCH", "/", "GET, HEAD")],
)
async def test_a_wrong_method_is_a_page(client: httpx.AsyncClient, method: str, path: str, allowed: str) -> None:
    page = await client.request(method, path)
    assert (page.status_code, page.headers["content-type"]) == (405, HTML)
    assert page.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/nothing", "/users/x", "/loginx", "/assets/none.css", "/.well-known/x"])
async def test_elsewhere_errors_are_json_as_before(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    ("raised", "status", "sentence"),
    [
        (StoreUnavailable("database", "secret reason", 7), 503, "We cannot answer at the moment"),
        (ShownToPerson("unknown_client", "secret reason"), 400, "is not known to us"),
        (ShownToPerson("redirect_uri", "secret reason"), 400, "an address that it has not registered"),
        (ShownToPerson("request_expired", "secret reason"), 400, "has taken too long"),
        (ShownToPerson("malformed_request", "secret reason"), 400, "cannot be understood"),
        (ShownToPerson("unheard_of", "secret reason"), 400, "cannot be understood"),
        (ValueError("secret reason"), 500, "We made a mistake"),
    ],
    ids=repr,
)
async def test_what_is_raised_is_a_page_without_the_reason(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, raised: Exception, status: int, sentence: str
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(errand, "of", fail)
    page = await client.get("/login")
    assert (page.status_code, page.headers["content-type"]) == (status, HTML)
    assert sentence in shown(page)
    assert "secret" not in page.text
    assert page.headers["x-request-id"] in page.text
    assert page.headers["cache-control"] == "no-store"
    assert page.headers.get("retry-after") == ("7" if status == 503 else None)


@pytest.mark.parametrize("path", ["/login", "/signup", "/logout", "/account", "/login/x", "/consent"])
async def test_every_page_has_the_strict_headers(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path, follow_redirects=True)
    policy = page.headers["content-security-policy"].split("; ")
    for directive in (
        "default-src 'none'", "style-src 'self'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'",
    ):  # fmt: skip
        assert directive in policy
    assert "script" not in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for name, value in (
        ("cache-control", "no-store"), ("referrer-policy", "same-origin"),
        ("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"),
    ):  # fmt: skip
        assert page.headers[name] == value
    for inline in ("<script", " style=", "<style", " onclick", "javascript:", "http://", "https://"):
        assert inline not in page.text


@pytest.mark.parametrize("path", ["/login", "/signup", "/logout", "/", "/consent", "/account"])
async def test_head_answers_as_get_does(client: httpx.AsyncClient, path: str) -> None:
    head, get = await client.head(path), await client.get(path)
    assert head.status_code == get.status_code
    assert head.headers.get("location") == get.headers.get("location")
    assert head.content == b""


async def test_the_pages_are_not_in_the_api_description(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/login", "/logout", "/signup", "/consent", "/account"}.isdisjoint(paths)


async def test_other_origins_get_no_cors_header(client_with: Callable[..., Any]) -> None:
    browser = await client_with(cors_origins=["https://app.example"])
    page = await browser.get("/login", headers={"Origin": "https://app.example"})
    assert "access-control-allow-origin" not in page.headers


async def test_the_log_has_neither_passwords_nor_what_was_asked_for(
    app: FastAPI, services: Services, client: httpx.AsyncClient, new_user: NewUser, capfd: pytest.CaptureFixture[str]
) -> None:
    user = await new_user()
    secret = "/account?secret-in-the-address"
    await submit(client, f"/login?continue={secret}", username="ada", password="secret-guess")
    await sign_in(client, user, f"/login?continue={secret}")
    cookie = client.cookies["__Host-authserver_session"]
    await client.get("/consent?continue=secret-in-the-address")
    written = "".join(capfd.readouterr())
    assert "secret" not in written
    assert cookie not in written


async def test_requests_are_counted_by_their_route(client: httpx.AsyncClient) -> None:
    await client.get("/login?continue=/account")
    metrics = (await client.get("/metrics")).text
    assert 'route="/login"' in metrics
