"""All answers have: a request id, security headers, an access line, CORS where it belongs, HEAD where GET is."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Request
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Scope

from authserver.cors import CORS
from authserver.observability import logs, requests
from authserver.observability.requests import Requests
from authserver.settings import Settings

APP = "https://app.example"
SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": "frame-ancestors 'none'",
}

AccessLines = Callable[[], list[dict[str, Any]]]


def small_app(**changes: Any) -> FastAPI:
    """Make an application with the middleware of ours and endpoints that ours does not have."""
    settings = Settings(_env_file=None, **changes)
    app = FastAPI(redirect_slashes=False)
    inner, outer = APIRouter(), APIRouter(prefix="/things")

    @inner.get("/{thing}/parts/{part:path}")
    async def part(thing: str, part: str) -> str:
        return f"{thing} {part}"

    outer.include_router(inner, prefix="/all")
    app.include_router(outer)

    @app.post("/token")
    async def token(request: Request) -> dict[str, str]:
        if not await request.body():
            raise HTTPException(503, headers={"Retry-After": "1"})
        requests.note(client_id="c" * 1000, user_id="u-1")
        requests.note(session_id="s-1")
        return {"seen": request.client.host if request.client else "", "id": request.state.request_id}

    @app.post("/tolerant")
    async def tolerant(request: Request) -> None:
        with suppress(ClientDisconnect):
            await request.body()

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError("a mistake of ours")

    async def broken_stream() -> AsyncIterator[bytes]:
        yield b"some"
        raise RuntimeError("half-way")

    @app.get("/half")
    async def half() -> Response:
        return StreamingResponse(broken_stream())

    @app.get("/slow")
    async def slow() -> None:
        await asyncio.sleep(10)

    async def own(_request: Request) -> Response:
        return PlainTextResponse("body", headers={"Content-Security-Policy": "default-src 'self'", "Vary": "Accept"})

    app.router.routes.append(Route("/userinfo", own))
    app.add_middleware(CORS, settings=settings)
    app.add_middleware(Requests, settings=settings)
    return app


def client_of(app: FastAPI, peer: str = "192.0.2.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(peer, 4711))
    return httpx.AsyncClient(transport=transport, base_url="https://auth.example")


@pytest.fixture
def access_lines(caplog: pytest.LogCaptureFixture) -> AccessLines:
    """The access lines so far."""
    caplog.set_level(logging.INFO)
    return lambda: [vars(record) for record in caplog.records if record.message == "request"]


@pytest.fixture
async def small() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(small_app(cors_origins=[APP])) as client:
        yield client


@pytest.mark.parametrize("path", ["/health/live", "/nowhere", "/token", "/users/me"])
async def test_every_answer_has_the_headers(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])
    assert SECURITY.items() <= response.headers.items()
    assert response.headers["strict-transport-security"] == "max-age=31536000"


async def test_what_an_endpoint_says_itself_stays(small: httpx.AsyncClient) -> None:
    response = await small.get("/userinfo")
    assert response.headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert response.headers["x-frame-options"] == "DENY"
    assert "strict-transport-security" not in response.headers, "the issuer speaks http"


async def test_a_request_id_is_taken_over_and_reaches_the_endpoint(small: httpx.AsyncClient) -> None:
    response = await small.post("/token", content=b"x", headers={"X-Request-ID": "a.B-c_1"})
    assert response.headers.get_list("x-request-id") == [response.json()["id"]] == ["a.B-c_1"]


@pytest.mark.parametrize("bad", [b"", b"a b", b"a" * 65, b'a"b', "ü".encode(), b"a;b", b"../x", b"a\tb"])
async def test_a_request_id_that_is_not_safe_is_replaced(small: httpx.AsyncClient, bad: bytes) -> None:
    response = await small.get("/nowhere", headers=[(b"X-Request-ID", bad)])
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


async def test_the_access_line_says_who_asked_what_and_what_came_of_it(
    small: httpx.AsyncClient, access_lines: AccessLines, capfd: pytest.CaptureFixture[str]
) -> None:
    await small.post("/token?code=secret", content=b"x", headers={"X-Request-ID": "r-1"})
    (line,) = access_lines()
    assert (line["method"], line["path"], line["route"], line["status"]) == ("POST", "/token", "/token", 200)
    assert 0 < line["duration_ms"] < 10_000
    assert "secret" not in str(line)


async def test_the_access_line_on_stdout(client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]) -> None:
    await client.post("/token?x=2YotnFZFEjr", data={"grant_type": "password", "client_id": "nobody"})
    written = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    (line,) = [line for line in written if line["event"] == "request"]
    assert (line["level"], line["ip"], line["client_id"], line["user_id"]) == ("INFO", "192.0.2.1", "nobody", None)
    assert (line["method"], line["path"], line["route"], line["status"]) == ("POST", "/token", "/token", 401)
    refusal = next(line for line in written if line["event"] == "oauth_refused")
    assert refusal["request_id"] == line["request_id"]
    assert "2YotnFZFEjr" not in str(written)


async def test_a_path_cannot_flood_or_forge_the_log(small: httpx.AsyncClient, access_lines: AccessLines) -> None:
    await small.get("/" + "x" * 5000)
    await small.get("/a%0d%0ab")
    assert [len(line["path"]) for line in access_lines()] == [256, 5]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/things/all/7/parts/a/b", "/things/all/{thing}/parts/{part}"),
        ("/things/all/7/parts/7", "/things/all/{thing}/parts/{part}"),
        ("/userinfo", "/userinfo"),
        ("/things/all/7", "unmatched"),
        ("/nowhere", "unmatched"),
        ("/userinfo/", "unmatched"),
    ],
)
async def test_routes_are_told_by_their_templates(
    small: httpx.AsyncClient, access_lines: AccessLines, path: str, route: str
) -> None:
    await small.get(path)
    assert [line["route"] for line in access_lines()] == [route]


async def test_a_wrong_method_is_told_by_its_route(small: httpx.AsyncClient, access_lines: AccessLines) -> None:
    response = await small.get("/token")
    assert response.status_code == 405
    assert [line["route"] for line in access_lines()] == ["/token"]


@pytest.mark.parametrize("path", ["/userinfo", "/things/all/1/parts/2"])
async def test_head_works_where_get_does(small: httpx.AsyncClient, access_lines: AccessLines, path: str) -> None:
    get, head = await small.get(path), await small.head(path)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"] != "0"
    assert [line["method"] for line in access_lines()] == ["GET", "HEAD"]


@pytest.mark.parametrize(
    "path", ["/.well-known/openid-configuration", "/.well-known/jwks.json", "/health/live", "/metrics", "/docs"]
)
async def test_head_works_on_the_real_documents(client: httpx.AsyncClient, path: str) -> None:
    head = await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0


async def test_head_is_refused_where_there_is_no_get(small: httpx.AsyncClient) -> None:
    response = await small.head("/token")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_a_bug_is_a_500_with_its_traceback_logged_once(
    small: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = await small.get("/bug", headers={"X-Request-ID": "r-bug"})
    assert response.status_code == 500
    assert response.headers["x-request-id"] == "r-bug"
    assert "mistake" not in response.text
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.message == "unhandled_exception"


async def test_a_bug_half_way_is_logged_once(small: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AssertionError):  # httpx' word for an answer that was cut off
        await small.get("/half")
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_the_application_words_its_bugs_itself() -> None:
    app = small_app()

    @app.exception_handler(Exception)
    async def sorry(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"sorry, {request.url.path}", 500)

    async with client_of(app) as client:
        response = await client.get("/bug")
    assert (response.status_code, response.text) == (500, "sorry, /bug")
    assert "x-request-id" in response.headers


async def test_a_cancelled_request_is_a_499(access_lines: AccessLines, caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(small_app()) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.get("/slow")
    assert [line["status"] for line in access_lines()] == [499]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("path", ["/token", "/tolerant"])
async def test_a_client_that_hangs_up_is_a_499(
    access_lines: AccessLines, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    await exchange(small_app(), "POST", path, [{"type": "http.request", "body": b"abc", "more_body": True}])
    assert [line["status"] for line in access_lines()] == [499]
    assert not [record for record in caplog.records if record.exc_info]


async def test_the_body_of_a_head_request_is_dropped() -> None:
    start, *rest = await exchange(small_app(), "HEAD", "/userinfo")
    assert (b"content-length", b"4") in start["headers"]
    assert [message.get("body", b"") for message in rest] == [b""]


async def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    messages = await exchange(small_app(), "GET", "/half")
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.body"]


async def test_lines_after_the_answer_are_not_its_own() -> None:
    leftover: list[dict[str, Any] | None] = []

    async def connection_pool() -> None:
        await asyncio.sleep(0.01)
        leftover.append(logs.request_fields.get())

    tasks: list[asyncio.Task[None]] = []
    app = small_app()

    @app.get("/opens")
    async def opens() -> None:
        tasks.append(asyncio.create_task(connection_pool()))

    async with client_of(app) as client:
        await client.get("/opens")
    await asyncio.gather(*tasks)
    assert leftover == [{}]


async def exchange(app: FastAPI, method: str, path: str, incoming: Sequence[Message] = ()) -> list[Message]:
    """Return what an application says to a client that hangs up after the messages given."""
    scope: Scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "http",
        "query_string": b"", "headers": [], "client": ("192.0.2.1", 1), "server": ("x", 80), "http_version": "1.1",
        "asgi": {"version": "3.0"},
    }  # fmt: skip
    messages, sent = list(incoming), list[Message]()

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("2001:db8::1", ["2001:DB8:0::5"], "2001:db8::5"),
        ("10.0.0.1", ["[2001:db8::5]:1234"], "2001:db8::5"),
        ("10.0.0.1", ["203.0.113.9:1234"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.9, 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("127.0.0.1", ["203.0.113.9"], "127.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [", ,"], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, garbage"], "10.0.0.1"),
        ("10.0.0.1", ["fe80::1%\x1b[31mred"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:99999999999999999999"], "203.0.113.9"),
        ("10.0.0.1", ["1" * 5000], "10.0.0.1"),
        ("10.0.0.1", ["\xff\xfe"], "10.0.0.1"),
    ],
)
async def test_only_trusted_proxies_say_who_asks(
    peer: str, forwarded: list[str], seen: str, access_lines: AccessLines
) -> None:
    app = small_app(trusted_proxies=["10.0.0.0/8", "2001:db8::1"])
    headers = [(b"X-Forwarded-For", value.encode("latin1")) for value in forwarded]
    async with client_of(app, peer) as client:
        response = await client.post("/token", content=b"x", headers=headers)
    assert response.json()["seen"] == seen


async def test_without_trusted_proxies_nobody_says_who_asks() -> None:
    async with client_of(small_app(), "127.0.0.1") as client:
        headers = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
        response = await client.post("/token", content=b"x", headers=headers)
    assert response.json()["seen"] == "127.0.0.1"


@pytest.mark.parametrize(("content", "status"), [(b"x", 200), (b"", 503)])
async def test_applications_may_read_answers_and_errors(small: httpx.AsyncClient, content: bytes, status: int) -> None:
    response = await small.post("/token", content=content, headers={"Origin": APP})
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == APP
    assert "access-control-allow-credentials" not in response.headers
    exposed = response.headers["access-control-expose-headers"]
    assert set(exposed.split(", ")) == {"WWW-Authenticate", "X-Request-ID", "Retry-After"}
    assert response.headers["vary"] == "Origin"


async def test_caches_know_that_the_answer_depends_on_the_origin(small: httpx.AsyncClient) -> None:
    for headers in ({}, {"Origin": APP}, {"Origin": "https://evil.example"}):
        response = await small.get("/userinfo", headers=headers)
        assert response.headers["vary"] == "Accept, Origin"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.evil", "http://app.example"])
async def test_other_origins_may_not(small: httpx.AsyncClient, origin: str) -> None:
    response = await small.post("/token", content=b"x", headers={"Origin": origin})
    assert "access-control-allow-origin" not in response.headers


async def test_a_preflight_request_is_answered(small: httpx.AsyncClient, access_lines: AccessLines) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    response = await small.options("/token", headers={"Origin": APP, **asked})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == APP
    assert response.headers["access-control-max-age"] == "3600"
    assert "authorization" in response.headers["access-control-allow-headers"].lower()
    assert "x-request-id" in response.headers
    assert [line["route"] for line in access_lines()] == ["preflight"]


@pytest.mark.parametrize(
    ("path", "has_cors"),
    [
        ("/token", True),
        ("/revoke", True),
        ("/userinfo", True),
        ("/.well-known/jwks.json", True),
        ("/.well-known/openid-configuration", True),
        ("/introspect", False),
        ("/users/me", False),
        ("/register", False),
        ("/health/live", False),
        ("/docs", False),
        ("/tokens", False),
    ],
)
async def test_cors_is_only_where_applications_call(client_with: Any, path: str, has_cors: bool) -> None:
    client = await client_with(cors_origins=[APP])
    for method in ("GET", "POST", "OPTIONS"):
        headers = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        response = await client.request(method, path, headers=headers)
        found = {name for name in response.headers if name.startswith("access-control-")}
        assert bool(found) == has_cors, method


async def test_without_origins_there_is_no_cors(client: httpx.AsyncClient) -> None:
    response = await client.get("/.well-known/jwks.json", headers={"Origin": APP})
    assert not [name for name in response.headers if name.startswith("access-control-")]
    assert "origin" not in response.headers.get("vary", "").lower()
