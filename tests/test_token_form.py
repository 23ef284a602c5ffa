"""The rules that every OAuth endpoint obeys, each with bad input (contract, "The rules every OAuth endpoint obeys")."""

import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authserver.oauth import errors, request
from tests.factories import NewClient, basic

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ENDPOINTS = ["/token", "/introspect", "/revoke"]


def assert_oauth_error(response: httpx.Response, status: int, error: str) -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert body["error"] == error
    assert set(body) <= {"error", "error_description"}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"


BAD_REQUESTS: dict[str, tuple[bytes, dict[str, str], int]] = {
    "no body": (b"", {}, 400),
    "an empty form": (b"", FORM, 401),
    "JSON": (b'{"grant_type": "password"}', {"Content-Type": "application/json"}, 400),
    "multipart": (b"--x--", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
    "a repeated parameter": (b"client_id=a&client_id=b", FORM, 400),
    "a repeated unknown parameter": (b"x=1&client_id=a&x=2", FORM, 400),
    "a repeated parameter, once empty": (b"client_id=a&client_id=", FORM, 400),
    "more than 16 KiB": (b"client_id=" + b"a" * 16_384, FORM, 413),
    "1 MiB": (b"client_id=" + b"a" * 2**20, FORM, 413),
    "10,000 fields": (b"&".join(b"%d=" % n for n in range(1700)), FORM, 400),
    "raw bytes that are not UTF-8": (b"client_id=\xff\xfe", FORM, 400),
    "escaped bytes that are not UTF-8": (b"client_id=%ff%fe", FORM, 400),
    "an escaped lone surrogate": (b"client_id=%ed%a0%80", FORM, 400),
    "NUL": (b"client_id=a%00b", FORM, 400),
    "a line break": (b"client_id=a%0d%0ab", FORM, 400),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("case", BAD_REQUESTS)
async def test_a_bad_form_is_refused_in_the_oauth_form(client: httpx.AsyncClient, endpoint: str, case: str) -> None:
    body, headers, status = BAD_REQUESTS[case]
    response = await client.post(endpoint, content=body, headers=headers)
    assert_oauth_error(response, status, "invalid_client" if status == 401 else "invalid_request")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_body_of_unknown_length_is_not_read_beyond_the_limit(client: httpx.AsyncClient, endpoint: str) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 10 * 2**20:
            sent += 4096
            yield b"a" * 4096

    response = await client.post(endpoint, content=endless(), headers=FORM)
    assert_oauth_error(response, 413, "invalid_request")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
async def test_other_methods_are_405(client: httpx.AsyncClient, endpoint: str, method: str) -> None:
    response = await client.request(method, endpoint)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    if method != "HEAD":
        assert_oauth_error(response, 405, "invalid_request")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_trailing_slash_is_no_redirect(client: httpx.AsyncClient, endpoint: str) -> None:
    response = await client.post(endpoint + "/", headers=FORM | {"Host": "evil.example"})
    assert response.status_code == 404
    assert "location" not in response.headers


def raw_basic(content: bytes | str) -> str:
    data = content if isinstance(content, bytes) else content.encode()
    return "Basic " + base64.b64encode(data).decode()


BAD_PROOFS: dict[str, Callable[[str, str], str | bytes]] = {
    "a wrong secret": lambda client_id, _secret: raw_basic(f"{client_id}:wrong"),
    "an unknown client": lambda _client_id, secret: raw_basic(f"nobody:{secret}"),
    "no secret": lambda client_id, _secret: raw_basic(f"{client_id}:"),
    "no colon": lambda client_id, _secret: raw_basic(client_id),
    "no client_id": lambda _client_id, secret: raw_basic(f":{secret}"),
    "bytes that are not UTF-8": lambda client_id, _secret: raw_basic(client_id.encode() + b":\xff\xfe"),
    "a non-ASCII secret": lambda client_id, _secret: raw_basic(f"{client_id}:schlüssel"),
    "NUL": lambda client_id, _secret: raw_basic(f"{client_id}\0:x"),
    "escaped bytes that are not UTF-8": lambda client_id, _secret: raw_basic(f"{client_id}:%ff"),
    "no base64": lambda _client_id, _secret: "Basic !!!!",
    "half of base64": lambda _client_id, _secret: "Basic abc",
    "nothing": lambda _client_id, _secret: "Basic",
    "an empty header": lambda _client_id, _secret: "",
    "a non-ASCII header": lambda _client_id, _secret: "Basic é".encode("latin-1"),
    "another scheme": lambda _client_id, secret: f"Bearer {secret}",
    "a client_id of 10,000 characters": lambda _client_id, _secret: raw_basic("a" * 10_000 + ":b"),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("case", BAD_PROOFS)
async def test_a_bad_authorization_header_is_401_with_a_challenge(
    client: httpx.AsyncClient, new_client: NewClient, endpoint: str, case: str
) -> None:
    app = await new_client()
    header = BAD_PROOFS[case](app.client_id, app.secret or "")
    raw = header if isinstance(header, bytes) else header.encode()
    response = await client.post(endpoint, data={"token": "x"}, headers={b"Authorization": raw})
    assert_oauth_error(response, 401, "invalid_client")
    assert response.headers["www-authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_who_names_no_client_is_asked_for_one(client: httpx.AsyncClient, endpoint: str) -> None:
    """RFC 9110 §15.5.2: some HTTP clients send what they have only then."""
    response = await client.post(endpoint, data={"token": "x"})
    assert_oauth_error(response, 401, "invalid_client")
    assert response.headers["www-authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_failing_in_the_body_is_401_without_a_challenge(
    client: httpx.AsyncClient, new_client: NewClient, endpoint: str
) -> None:
    app = await new_client()
    unknown = await client.post(endpoint, data={"client_id": "nobody", "client_secret": "x", "token": "x"})
    wrong = await client.post(endpoint, data={"client_id": app.client_id, "client_secret": "x", "token": "x"})
    nothing = await client.post(endpoint, data={"client_id": app.client_id, "token": "x"})
    for response in (unknown, wrong, nothing):
        assert_oauth_error(response, 401, "invalid_client")
        assert "www-authenticate" not in response.headers
        assert response.content == unknown.content


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_two_methods_at_once_are_an_invalid_request(
    client: httpx.AsyncClient, new_client: NewClient, endpoint: str
) -> None:
    app = await new_client()
    in_body = {"client_id": app.client_id, "client_secret": app.secret, "token": "x"}
    assert_oauth_error(await client.post(endpoint, data=in_body, auth=basic(app)), 400, "invalid_request")
    other_id = {"client_id": "other", "token": "x"}
    assert_oauth_error(await client.post(endpoint, data=other_id, auth=basic(app)), 400, "invalid_request")
    header = raw_basic(f"{app.client_id}:{app.secret}")
    twice = [("Authorization", header), ("Authorization", header)]
    assert_oauth_error(await client.post(endpoint, data={"token": "x"}, headers=twice), 400, "invalid_request")


async def test_the_client_id_may_stand_in_the_body_beside_basic(
    client: httpx.AsyncClient, new_client: NewClient
) -> None:
    app = await new_client()
    response = await client.post("/revoke", data={"client_id": app.client_id, "token": "x"}, auth=basic(app))
    assert response.status_code == 200


async def test_basic_is_form_decoded(client: httpx.AsyncClient, new_client: NewClient) -> None:
    app = await new_client(client_id="with~tilde")
    header = raw_basic(f"with%7Etilde:{app.secret}")
    response = await client.post("/revoke", data={"token": "x"}, headers={"Authorization": header})
    assert response.status_code == 200


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
async def test_the_scheme_is_case_insensitive(client: httpx.AsyncClient, new_client: NewClient, scheme: str) -> None:
    app = await new_client()
    header = raw_basic(f"{app.client_id}:{app.secret}").replace("Basic", scheme)
    response = await client.post("/revoke", data={"token": "x"}, headers={"Authorization": header})
    assert response.status_code == 200


async def test_a_public_client_may_come_as_basic_with_an_empty_secret(
    client: httpx.AsyncClient, new_client: NewClient
) -> None:
    app = await new_client(is_public=True)
    header = {"Authorization": raw_basic(f"{app.client_id}:")}
    assert (await client.post("/revoke", data={"token": "x"}, headers=header)).status_code == 200
    in_body = {"client_id": app.client_id, "token": "x"}
    assert (await client.post("/revoke", data=in_body)).status_code == 200
    empty_secret = in_body | {"client_secret": ""}
    assert (await client.post("/revoke", data=empty_secret)).status_code == 200


async def test_a_public_client_with_a_secret_is_refused(client: httpx.AsyncClient, new_client: NewClient) -> None:
    app = await new_client(is_public=True)
    data = {"client_id": app.client_id, "client_secret": "made-up", "token": "x"}
    assert_oauth_error(await client.post("/revoke", data=data), 401, "invalid_client")


async def test_credentials_in_the_query_count_for_nothing(client: httpx.AsyncClient, new_client: NewClient) -> None:
    app = await new_client()
    params = {"client_id": app.client_id, "client_secret": app.secret or ""}
    response = await client.post("/revoke", params=params, data={"token": "x"})
    assert_oauth_error(response, 401, "invalid_client")


async def test_guessing_secrets_is_throttled_and_harms_nobody_else(
    client_with: Callable[..., Any], new_client: NewClient
) -> None:
    app = await new_client()
    client = await client_with(
        throttle_enabled=True, throttle_client_secret_failures_per_minute=3, address="192.0.2.77"
    )
    wrong = {"client_id": app.client_id, "client_secret": "guess", "token": "x"}
    statuses = [(await client.post("/introspect", data=wrong)).status_code for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    refused = await client.post("/introspect", data=wrong)
    assert_oauth_error(refused, 429, "temporarily_unavailable")
    assert int(refused.headers["retry-after"]) in range(1, 61)
    assert (await client.post("/revoke", data={"token": "x"}, auth=basic(app))).status_code == 200


@given(st.lists(st.sampled_from("ab=&;?/ ~\"'\\.").map(str), max_size=30).map("".join))
@example("&".join(f"{number}=" for number in range(request.MAX_FIELDS)))
def test_a_plain_form_is_read_as_the_library_reads_it(text: str) -> None:
    body = text.encode()
    assert request._plain_pairs(body) == request._encoded_pairs(body)


@pytest.mark.parametrize("last", [b"", b"%41=+"], ids=["plain", "encoded"])
def test_a_form_of_either_kind_has_not_too_many_fields(last: bytes) -> None:
    assert request.parse_form(b"&" * (request.MAX_FIELDS - 1) + last) == ({"A": " "} if last else {})
    assert request.parse_form(b"&" * request.MAX_FIELDS + last) == errors.MALFORMED
