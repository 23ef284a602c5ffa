"""Nonsense and malice on the wire: a clear 4xx at once, the server as it was before, nothing secret in its log."""

import base64
import gzip
import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.application import Program
from tests.factories import PASSWORD, basic, bearer
from tests.interop.conftest import Actors, tokens
from tests.interop.wire import FORM, chunks, request, talk

JSON = "application/json"
AT_ONCE_SECONDS = 2.0
"""Milliseconds, in truth; the tests' machine may be busy."""

pytestmark = pytest.mark.slow


def basic_header(raw: bytes) -> str:
    return "Authorization: Basic " + base64.b64encode(raw).decode()


def register(body: bytes) -> bytes:
    return request("/register", body=body, media_type=JSON)


SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: auth.example.com\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"
MANY_FIELDS = b"&".join(b"a%d=1" % number for number in range(10_000))
FEW_BYTES_MANY_FIELDS = b"&".join(b"a%d=" % number for number in range(1_000))
USER = b'{"username": "%s", "email": "%s", "password": "%s"}'
LONE_SURROGATE = b"\\ud800"
MIB = b"x" * (1 << 20)

REFUSED: dict[str, tuple[bytes, set[int]]] = {
    # Too much
    "1 MiB form": (request(body=b"a=" + MIB), {413}),
    "1 MiB chunked form": (request("/token", CHUNKED, length=False, body=chunks(MIB)), {413}),
    "1 MiB to introspect": (request("/introspect", body=b"token=" + MIB), {413}),
    "1 MiB to revoke": (request("/revoke", body=b"token=" + MIB), {413}),
    "1 MiB of JSON": (register(b'{"username": "' + MIB + b'"}'), {413}),
    "10,000 fields": (request(body=MANY_FIELDS), {413}),
    "1,000 short fields": (request(body=FEW_BYTES_MANY_FIELDS), {400}),
    "ampersands": (request(body=b"&" * 16_000), {400}),
    "deep JSON": (register(b"[" * 60_000), {400}),
    "deep JSON objects": (register(b'{"a":' * 12_000), {400}),
    "a long number": (register(b'{"username": ' + b"9" * 60_000 + b"}"), {400}),
    "5,000 names in JSON": (register(b"{%s}" % b",".join(b'"k%d":1' % number for number in range(5_000))), {422}),
    "10,000 headers": (request("/token", *(f"X-{number}: 1" for number in range(10_000))), {400}),
    "a header of 1 MiB": (request("/token", b"X-A: " + MIB), {400}),
    "a target of 1 MiB": (request("/token?" + "a" * (1 << 20)), {400}),
    "a token of 20 KB": (request("/userinfo", "Authorization: Bearer " + "a" * 20_000, method="GET"), {401}),
    # Characters
    "NUL in a value": (request(body=b"grant_type=password&client_id=a&username=a%00b"), {400}),
    "raw NUL": (request(body=b"grant_type=password&client_id=a\0b"), {400}),
    "NUL in a name": (request(body=b"grant_type=password&client_id=a&a%00b=1"), {400}),
    "lone surrogate": (request(body=b"grant_type=password&client_id=a&username=%ED%A0%80"), {400}),
    "Latin-1": (request(body=b"grant_type=password&client_id=a&username=%E9"), {400}),
    "raw bytes": (request(body=b"grant_type=password&client_id=a&username=\xff\xfe"), {400}),
    "line break": (request(body=b"grant_type=password&client_id=a%0D%0Ab"), {400}),
    "Basic, not UTF-8": (request("/token", basic_header(b"\xff\xfe:\xff")), {401}),
    "Basic, escaped bytes": (request("/token", basic_header(b"%ff:%fe")), {401}),
    "Basic, lone surrogate": (request("/token", basic_header(b"%ED%A0%80:x")), {401}),
    "Basic, NUL": (request("/token", basic_header(b"a\0:b")), {401}),
    "Basic, no colon": (request("/token", basic_header(b"abc")), {401}),
    "Basic, not base64": (request("/token", "Authorization: Basic !!!!"), {401}),
    "Basic, raw bytes": (request("/token", b"Authorization: Basic \xff\xfe"), {401}),
    "Basic, nothing": (request("/token", "Authorization: Basic"), {401}),
    "another scheme": (request("/token", "Authorization: Digest a=b"), {401}),
    "JSON with NUL": (register(USER % (b"a\\u0000bcd", b"a@example.com", b"correct horse battery staple")), {422}),
    "JSON with a lone surrogate": (register(USER % (b"abc" + LONE_SURROGATE, b"a@example.com", b"x" * 20)), {422}),
    "e-mail with a lone surrogate": (register(USER % (b"abcd", LONE_SURROGATE + b"@example.com", b"x" * 20)), {422}),
    "password with a lone surrogate": (
        register(USER % (b"abcd", b"a@example.com", b"long enough for all " + LONE_SURROGATE)),
        {422},
    ),
    "a surrogate's name": (register(b'{"%s": 1}' % LONE_SURROGATE), {422}),
    "JSON in Latin-1": (register(b'{"username": "\xff"}'), {400}),
    "JSON in UTF-16": (register('{"username": "a"}'.encode("utf-16")), {400}),
    "infinite JSON": (register(b'{"username": 1e999}'), {422}),
    "not a number": (register(b'{"username": NaN}'), {400}),
    "a name twice": (register(b'{"username": "a", "username": "b"}'), {400}),
    "no JSON": (register(b""), {400}),
    # Duplicates
    "two Authorization headers": (request("/token", basic_header(b"a:b"), basic_header(b"a:b")), {400}),
    "two ways of authentication": (request("/token", basic_header(b"a:b"), body=b"client_secret=b&client_id=a"), {400}),
    "a parameter twice": (request(body=b"grant_type=password&grant_type=password&client_id=a"), {400}),
    "two media types": (request("/token", f"Content-Type: {JSON}", body=b"client_id=a"), {400}),
    "two lengths": (request("/token", "Content-Length: 3", body=b"client_id=a"), {400}),
    "the same length twice": (request("/token", "Content-Length: 11", body=b"client_id=a"), {400}),
    "two hosts": (request("/health/live", "Host: evil.example", method="GET"), {400}),
    # Where a message ends (request smuggling)
    "length and chunks": (request("/token", CHUNKED, body=chunks() + SMUGGLED), {400}),
    "chunks and length": (
        request("/token", CHUNKED, "Content-Length: 4", length=False, body=chunks() + SMUGGLED),
        {400},
    ),
    "an unknown coding": (request("/token", "Transfer-Encoding: xchunked", length=False, body=chunks()), {400}),
    "compressed chunks": (request("/token", "Transfer-Encoding: gzip, chunked", length=False, body=chunks()), {400}),
    "not chunked at last": (request("/token", "Transfer-Encoding: chunked, x", length=False, body=chunks()), {400}),
    "two codings": (request("/token", CHUNKED, "Transfer-Encoding: identity", length=False, body=chunks()), {400}),
    "a space before the colon": (
        request("/token", "Transfer-Encoding : chunked", length=False, body=chunks() + SMUGGLED),
        {400},
    ),
    "a folded header": (request("/token", "X-A: b\r\n Transfer-Encoding: chunked"), {400}),
    "a negative length": (request("/token", "Content-Length: -1", length=False), {400}),
    "a signed length": (request("/token", "Content-Length: +3", length=False, body=b"a=b"), {400}),
    "a hexadecimal length": (request("/token", "Content-Length: 0x3", length=False, body=b"a=b"), {400}),
    "a length of 2^64": (request("/token", "Content-Length: 18446744073709551616", length=False), {400}),
    "a huge length": (request("/token", "Content-Length: 9999999999999999", length=False), {413}),
    "a huge chunk": (request("/token", CHUNKED, length=False, body=b"FFFFFFFFFFFFFFFFF\r\nabc"), {400}),
    "no chunk": (request("/token", CHUNKED, length=False, body=b"zz\r\na\r\n0\r\n\r\n"), {400}),
    "bare line feeds": (b"POST /token HTTP/1.1\nHost: a\nContent-Length: 0\n\n", {400}),
    "a header without a colon": (request("/token", "XABC"), {400}),
    "a NUL in a header": (request("/token", b"X-A: a\0b"), {400}),
    "a space in a header's name": (request("/token", "X A: b"), {400}),
    # Another protocol
    "HTTP/0.9": (b"GET /health/live\r\n\r\n", {400}),
    "HTTP/2.0": (request("/health/live", method="GET", version="HTTP/2.0"), {400}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
    "no Host": (b"GET /health/live HTTP/1.1\r\nConnection: close\r\n\r\n", {400}),
    "TLS": (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160), {400}),
    "zeros": (bytes(1_000), {400}),
    "CONNECT": (request("evil.example:443", method="CONNECT"), {400}),
    # Addresses and methods
    "OPTIONS *": (request("*", method="OPTIONS"), {404}),
    "an unknown method": (request("/token", method="FOO"), {400}),
    "a small method": (request("/token", method="post"), {400}),
    "TRACE": (request("/token", method="TRACE"), {405}),
    "PUT": (request("/token", method="PUT"), {405}),
    "a slash at the end": (request("/token/", body=b"client_id=a"), {404}),
    "two slashes": (request("//token", body=b"client_id=a"), {404}),
    "a NUL in the path": (request("/token%00", body=b"client_id=a"), {404}),
    "bytes in the path": (request("/%ff%ED%A0%80", method="GET"), {404}),
    "raw bytes in the path": (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
    "dots": (request("/docs/..%2f..%2f..%2fetc/passwd", method="GET"), {404}),
    "more dots": (request("/../../etc/passwd", method="GET"), {404}),
    # Media types
    "JSON to token": (request(body=b'{"grant_type": "password"}', media_type=JSON), {400}),
    "multipart": (request(body=b"--x\r\n\r\n\r\n--x--\r\n", media_type="multipart/form-data; boundary=x"), {400}),
    "no media type": (request(body=b"client_id=a", media_type=None), {400}),
    "another charset": (request(body=b"c\0l\0", media_type=f"{FORM}; charset=utf-16"), {400}),
    "gzip": (request("/token", "Content-Encoding: gzip", body=gzip.compress(b"client_id=a")), {400}),
    "said to be gzip": (request("/token", "Content-Encoding: gzip", body=b"client_id=a"), {400}),
    "JSON in gzip": (request("/register", "Content-Encoding: gzip", body=gzip.compress(b"{}"), media_type=JSON), {415}),
    "a form to register": (request("/register", body=b"username=a"), {415}),
    "mass assignment": (
        register(b'{"username":"abcd","email":"a@example.com","password":"' + b"x" * 20 + b'","is_superuser":true}'),
        {422},
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", REFUSED)
def test_is_refused_at_once(server: Program, attack: str) -> None:
    data, expected = REFUSED[attack]
    heard = talk(server.url, data)
    assert len(heard.statuses) == 1, heard.data[:300]
    assert heard.statuses[0] in expected, heard.data[:300]
    assert heard.seconds < AT_ONCE_SECONDS
    assert heard.was_closed


@pytest.fixture(scope="module", autouse=True)
def the_log_is_clean(server: Program) -> Iterator[None]:
    """After all of it: one JSON object a line, no control characters, no failures."""
    yield
    written = server.output.read_bytes()
    assert not [byte for byte in set(written) if byte < 32 and byte != 10]
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line for line in lines if line["level"] in {"ERROR", "CRITICAL"} or line.get("status", 0) >= 500] == []


def test_no_secret_is_logged(server: Program, actors: Actors) -> None:
    app = actors.confidential
    assert app.secret
    wrong = "Zebra-quartz-91-window-lamp"
    with httpx.Client(base_url=server.url) as http:
        sign_in = {"grant_type": "password", "username": actors.user.username}
        issued = http.post("/token", data=sign_in | {"password": PASSWORD}, auth=basic(app)).json()
        access, refresh = issued["access_token"], issued["refresh_token"]
        # In its place, and in every wrong one.
        http.post("/token", data=sign_in | {"password": wrong}, auth=basic(app))
        http.post("/token", data=sign_in | {"username": wrong, "password": "x"}, auth=basic(app))
        http.post("/token", data={"grant_type": wrong}, auth=basic(app))
        http.post("/token", data=sign_in, auth=(app.client_id, wrong))
        http.post("/token", data={"client_id": app.secret, "client_secret": app.client_id})
        http.post("/token", data=sign_in, auth=(app.secret, app.client_id))
        http.post("/revoke", data={"token": access, "token_type_hint": refresh}, auth=basic(actors.public))
        http.post("/introspect", data={"token": refresh + "x"}, auth=basic(app))
        for token in (access, refresh):
            http.get(f"/introspect/{token}")
            http.get("/userinfo", params={"access_token": token})
            http.delete(f"/users/me/sessions/{token}", headers=bearer(access))
            http.get("/health/live", headers={"X-Request-ID": token, "X-Forwarded-For": token, "Cookie": token})
        http.post("/register", json={"username": wrong, "email": wrong, "password": wrong})
        http.post("/register", params={"password": wrong}, json={wrong: wrong})
        http.post("/users/me/password", json={"current_password": wrong, "new_password": wrong}, headers=bearer(access))
    written = server.output.read_text()
    for secret in (PASSWORD, wrong, app.secret, access, access.split(".")[2], refresh):
        assert secret not in written


@pytest.mark.parametrize(
    ("sent", "is_kept"),
    [
        (b"abc-DEF_1.2", True),
        (b"a" * 64, True),
        (b"a" * 65, False),
        (b"a b", False),
        (b"a\tb", False),
        (b"a%0d%0aX-Evil: 1", False),
        (b"\xc3\xa9", False),
        (b"", False),
    ],
)
def test_request_id(server: Program, sent: bytes, is_kept: bool) -> None:
    heard = talk(server.url, request("/health/live", b"X-Request-ID: " + sent, method="GET", length=False))
    assert heard.statuses == [200]
    [answered] = [line for line in heard.data.split(b"\r\n") if line.lower().startswith(b"x-request-id: ")]
    assert (answered[len("x-request-id: ") :] == sent) is is_kept
    assert b"x-evil" not in heard.head


@pytest.mark.parametrize("line_break", [b"\r", b"\n"])
def test_a_response_cannot_be_split(server: Program, line_break: bytes) -> None:
    heard = talk(server.url, request("/health/live", b"X-Request-ID: a" + line_break + b"X-Evil: 1", method="GET"))
    assert heard.statuses == [400]
    assert b"x-evil" not in heard.data.lower()


def test_nobody_believes_a_stranger_about_addresses(server: Program) -> None:
    lies = ("X-Forwarded-For: 198.51.100.7", "X-Real-IP: 198.51.100.7", "Forwarded: for=198.51.100.7")
    elsewhere = ("X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https")
    target = "http://evil.example/.well-known/openid-configuration"
    heard = talk(server.url, request(target, *lies, *elsewhere, method="GET", length=False))
    assert heard.statuses == [200]
    assert json.loads(heard.data.partition(b"\r\n\r\n")[2])["issuer"] == server.url
    assert b"evil" not in heard.data
    assert "198.51.100.7" not in server.output.read_text()


ALIVE = request("/health/live", method="GET", length=False, media_type=None)


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (request(close=False, body=b"\xff"), 400),
        (request(close=False, method="PUT", body=SMUGGLED), 405),
        (request("/nowhere", close=False, body=SMUGGLED * 1000), 404),
        (request("/users/me/password", close=False, body=SMUGGLED * 1000), 401),
        (request(close=False, media_type="text/plain", body=SMUGGLED * 1000), 400),
        (request("/health/live", close=False, method="GET", body=SMUGGLED), 200),
        (request("/token", CHUNKED, close=False, length=False, body=chunks(b"a=", b"b")), 401),
        (request("/token", "Connection: Upgrade", "Upgrade: h2c", close=False, body=b"a=b"), 401),
    ],
)
def test_a_connection_goes_on_where_the_message_ended(server: Program, first: bytes, status: int) -> None:
    assert talk(server.url, first, ALIVE, pause=0.1).statuses == [status, 200]
    assert talk(server.url, first + ALIVE).statuses == [status, 200]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/users/me", "GET, HEAD, PATCH, DELETE"),
        ("/users/me/sessions", "GET, HEAD, DELETE"),
        ("/userinfo", "GET, HEAD, POST"),
        ("/register", "POST"),
        ("/introspect", "POST"),
    ],
)
def test_a_wrong_method_hears_the_right_ones(server: Program, path: str, allowed: str) -> None:
    answer = httpx.put(server.url + path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_an_offer_of_http2_costs_no_body(server: Program) -> None:
    """Java's HTTP client and `curl --http2` make it with their first request."""
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    body = b"grant_type=password&client_id=nobody"
    expected = talk(server.url, request(body=body))
    for parts in ([request("/token", *offer, body=body)], request("/token", *offer, body=body).partition(b"grant")):
        heard = talk(server.url, *parts, pause=0.1)
        assert heard.statuses == [401]
        assert heard.data.endswith(expected.data.partition(b"\r\n\r\n")[2])


def test_a_connection_ends_after_what_is_too_large(server: Program) -> None:
    heard = talk(server.url, request(close=False, body=b"x" * 20_000) + ALIVE)
    assert heard.statuses == [413]
    assert heard.was_closed


def test_the_body_is_asked_for(server: Program) -> None:
    """Expect: 100-continue (RFC 9110 §10.1.1): asked for when it is wanted, refused unseen when it is too large."""
    expecting = request("/token", "Expect: 100-continue", "Content-Length: 11", length=False)
    assert talk(server.url, expecting, b"client_id=a", pause=0.2).statuses == [100, 401]
    too_large = request("/token", "Expect: 100-continue", "Content-Length: 1000000", length=False)
    assert talk(server.url, too_large).statuses == [413]


async def test_tokens_are_still_issued(http: httpx.AsyncClient, actors: Actors) -> None:
    started = time.monotonic()
    assert (await tokens(http, actors))["token_type"] == "Bearer"
    assert time.monotonic() - started < AT_ONCE_SECONDS
