"""POST /register: who may be registered, and what everybody else is told."""

import asyncio
import json
import secrets
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from authserver.audit import AuditEvent
from authserver.services import Services
from authserver.users.models import User
from tests.factories import PASSWORD, NewClient, basic

JSON = {"Content-Type": "application/json"}


def somebody(**changes: Any) -> dict[str, Any]:
    name = f"user-{secrets.token_hex(6)}"
    return {"username": name, "email": f"{name}@example.com", "password": PASSWORD} | changes


async def register(client: httpx.AsyncClient, new: dict[str, Any]) -> httpx.Response:
    """Post in ASCII: httpx itself cannot write lone surrogates."""
    return await client.post("/register", content=json.dumps(new), headers=JSON)


def assert_problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"https://auth.example.com/errors#{slug}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == response.request.url.path
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


def pointers(response: httpx.Response) -> list[str]:
    return [error["pointer"] for error in assert_problem(response, 422, "invalid-input")["errors"]]


async def test_a_new_user_is_told_who_they_are(client: httpx.AsyncClient) -> None:
    new = somebody()
    response = await client.post("/register", json=new)
    assert response.status_code == 201
    user = response.json()
    assert set(user) == {"id", "username", "email", "is_active", "is_superuser", "created_at", "updated_at"}
    assert (user["username"], user["email"]) == (new["username"], new["email"])
    assert (user["is_active"], user["is_superuser"]) == (True, False)
    assert user["created_at"] == user["updated_at"]
    assert response.headers["location"] == "https://auth.example.com/users/me"
    assert response.headers["cache-control"] == "no-store"
    assert PASSWORD not in response.text


async def test_a_new_user_can_sign_in_by_either_name(client: httpx.AsyncClient, new_client: NewClient) -> None:
    app, new = await new_client(), somebody()
    await client.post("/register", json=new)
    for name in (new["username"], new["email"], new["username"].upper()):
        form = {"grant_type": "password", "username": name, "password": PASSWORD}
        assert (await client.post("/token", data=form, auth=basic(app))).status_code == 200


async def test_only_a_hash_of_the_password_is_stored(client: httpx.AsyncClient, services: Services) -> None:
    new = somebody()
    await client.post("/register", json=new)
    async with services.db.read() as tx:
        user = (await tx.scalars(select(User).where(User.username == new["username"]))).one()
        events = (await tx.scalars(select(AuditEvent).where(AuditEvent.user_id == user.id))).all()
    assert user.hashed_password.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert [(event.event, event.ip) for event in events] == [("user_registered", "192.0.2.1")]


@pytest.mark.parametrize("username", ["ab1", "Ada.Lovelace_1-2", "żółć", "рита", "李小龙", "रवि", "a" * 50])
async def test_usernames_are_letters_of_any_script(client: httpx.AsyncClient, username: str) -> None:
    response = await register(client, somebody(username=username))
    assert response.status_code == 201, response.text


USERNAMES = [
    "", "ab", "a" * 51, ".ada", "ada-", "a b c", "ada@example.com", "ada＠example", "ada/..", "ada\x00b", "ada\nb",
    "ada\u200bb", "ada\u202eb", "🐎🐎🐎", "\u0301ada", "'; drop--", "ada\ud800",
]  # fmt: skip


@pytest.mark.parametrize("username", USERNAMES, ids=ascii)
async def test_other_usernames_are_refused(client: httpx.AsyncClient, username: str) -> None:
    response = await register(client, somebody(username=username))
    assert pointers(response) == ["/username"]


EMAILS = [
    "", "ada", "ada@", "@example.com", "ada@example", "ada@@example.com", "ada@exa mple.com", "ada@localhost",
    "ada@test",
    "ada@example.com\r\nBcc: x", "Ada <ada@example.com>", "ada@[127.0.0.1]", "a" * 65 + "@example.com",
    "ada@" + "a" * 250 + ".com", "ada\x00@example.com", "ada@example.com\ud800",
]  # fmt: skip


@pytest.mark.parametrize("email", EMAILS, ids=lambda email: ascii(email)[:30])
async def test_what_is_no_email_address_is_refused(client: httpx.AsyncClient, email: str) -> None:
    response = await register(client, somebody(email=email))
    assert pointers(response) == ["/email"]


async def test_all_that_is_wrong_is_said_at_once_and_nothing_repeated(client: httpx.AsyncClient) -> None:
    new = {"username": "qq", "email": "no-address-at-all", "password": "hunter2-hunter"}
    response = await client.post("/register", json=new)
    assert pointers(response) == ["/username", "/email", "/password"]
    for value in new.values():
        assert value not in response.text.replace("/users", "")


async def test_an_unknown_field_is_refused_not_dropped(client: httpx.AsyncClient, services: Services) -> None:
    new = somebody(is_superuser=True)
    assert pointers(await client.post("/register", json=new)) == ["/is_superuser"]
    async with services.db.read() as tx:
        assert (await tx.scalars(select(User).where(User.username == new["username"]))).all() == []


WRONG_TYPES = [{"username": 1}, {"email": None}, {"password": ["x"] * 20}, {"password": {"$ne": 1}}, {"username": True}]


@pytest.mark.parametrize("change", WRONG_TYPES, ids=str)
async def test_a_field_of_another_type_is_refused(client: httpx.AsyncClient, change: dict[str, Any]) -> None:
    assert pointers(await client.post("/register", json=somebody(**change))) == [f"/{next(iter(change))}"]


async def test_a_missing_field_is_named(client: httpx.AsyncClient) -> None:
    assert pointers(await client.post("/register", json={})) == ["/username", "/email", "/password"]


async def test_a_made_up_name_is_not_repeated(client: httpx.AsyncClient) -> None:
    response = await register(client, somebody(**{"x\u202e": 1, "x\n": 1, "y" * 5000: 2, "a/b~c": 3}))
    assert sorted(pointers(response)) == ["", "", "/a~1b~0c", "/x\u202e"]
    assert pointers(await register(client, somebody(**{"x\ud800": 1}))) == [""]


BODIES: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "nothing": (b"", JSON, 400, "bad-request"),
    "half a document": (b'{"username": "a', JSON, 400, "bad-request"),
    "NaN": (b'{"username": NaN}', JSON, 400, "bad-request"),
    "a name twice": (b'{"username": "ada1", "username": "ada2"}', JSON, 400, "bad-request"),
    "bytes that are not UTF-8": (b'{"username": "\xff\xfe"}', JSON, 400, "bad-request"),
    "a byte order mark": (b'\xef\xbb\xbf{"username": "ada"}', JSON, 400, "bad-request"),
    "UTF-16": ('{"username": "ada"}'.encode("utf-16"), JSON, 400, "bad-request"),
    "30,000 brackets": (b"[" * 30_000, JSON, 400, "bad-request"),
    "30,000 nested objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, JSON, 400, "bad-request"),
    "5,000 digits": (b'{"username": ' + b"1" * 5_000 + b"}", JSON, 400, "bad-request"),
    "a number beyond floats": (b'{"username": 1e999}', JSON, 422, "invalid-input"),
    "a list": (b"[1, 2]", JSON, 400, "bad-request"),
    "null": (b"null", JSON, 400, "bad-request"),
    "a text": (b'"ada"', JSON, 400, "bad-request"),
    "10,000 fields": (b"{" + b",".join(b'"%d":1' % n for n in range(5000)) + b"}", JSON, 422, "invalid-input"),
    "64 KiB and a byte": (b" " * (64 * 1024 + 1), JSON, 413, "content-too-large"),
    "1 MiB": (b'{"password": "' + b"a" * 2**20 + b'"}', JSON, 413, "content-too-large"),
    "a form": (b"username=ada", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported-media-type"),
    "no media type": (b"{}", {}, 415, "unsupported-media-type"),
    "text/json": (b"{}", {"Content-Type": "text/json"}, 415, "unsupported-media-type"),
    "latin-1": (b"{}", {"Content-Type": "application/json; charset=latin-1"}, 415, "unsupported-media-type"),
    "gzip": (b"\x1f\x8b", JSON | {"Content-Encoding": "gzip"}, 415, "unsupported-media-type"),
}


@pytest.mark.parametrize("case", BODIES)
async def test_a_bad_body_is_a_clear_refusal(client: httpx.AsyncClient, case: str) -> None:
    body, headers, status, slug = BODIES[case]
    assert_problem(await client.post("/register", content=body, headers=headers), status, slug)


async def test_a_charset_of_utf_8_is_fine(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": 'Application/JSON; charset="UTF-8"'}
    assert pointers(await client.post("/register", content=b"{}", headers=headers))


async def test_a_body_of_unknown_length_is_not_read_beyond_the_limit(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 10 * 2**20:
            sent += 4096
            yield b" " * 4096

    assert_problem(await client.post("/register", content=endless(), headers=JSON), 413, "content-too-large")
    assert sent < 2**20


@pytest.mark.parametrize(
    ("spelling", "other"),
    [
        ("{}", "{}"),
        ("ada{}", "ADA{}"),
        ("straße{}", "STRASSE{}"),
        ("ﬁona{}", "fiona{}"),
        ("１２３{}", "123{}"),
        ("é{}", "e\u0301{}"),
        ("Σίσυφος{}", "σίσυφοσ{}"),
    ],
)
async def test_a_username_is_taken_in_all_its_spellings(client: httpx.AsyncClient, spelling: str, other: str) -> None:
    tail = secrets.token_hex(6)
    assert (await client.post("/register", json=somebody(username=spelling.format(tail)))).status_code == 201
    second = await client.post("/register", json=somebody(username=other.format(tail)))
    assert_problem(second, 409, "username-taken")


async def test_an_email_address_is_taken_in_all_its_spellings(client: httpx.AsyncClient) -> None:
    new = somebody()
    await client.post("/register", json=new)
    assert_problem(await client.post("/register", json=somebody(email=new["email"].upper())), 409, "email-taken")


async def test_a_taken_username_costs_no_hash(client: httpx.AsyncClient, services: Services, monkeypatch: Any) -> None:
    new = somebody()
    await client.post("/register", json=new)

    async def refuse(_password: str) -> str:
        raise AssertionError("hashed")

    monkeypatch.setattr(services.hasher, "hash", refuse)
    assert_problem(await client.post("/register", json=new), 409, "username-taken")


@pytest.mark.parametrize("what", ["username", "email"])
async def test_of_fifty_who_want_one_name_one_gets_it(client: httpx.AsyncClient, what: str) -> None:
    wanted = somebody()[what]
    spellings = [wanted, wanted.upper(), wanted.title(), wanted.replace("u", "ｕ") if what == "username" else wanted]

    async def ask(new: dict[str, Any]) -> httpx.Response:
        for _ in range(10):
            response = await client.post("/register", json=new)
            if response.status_code != 503:
                break
            await asyncio.sleep(0.2)  # a machine that is busy with other things says so
        return response

    responses = await asyncio.gather(*(ask(somebody(**{what: spellings[n % 4]})) for n in range(50)))
    assert sorted(response.status_code for response in responses) == [201] + [409] * 49
    for response in responses:
        if response.status_code == 409:
            assert_problem(response, 409, f"{what}-taken")


async def test_registration_can_be_switched_off(client_with: Callable[..., Any]) -> None:
    client = await client_with(registration_enabled=False)
    assert_problem(await client.post("/register", json=somebody()), 403, "forbidden")


async def test_other_methods_are_refused_in_the_same_form(client: httpx.AsyncClient) -> None:
    response = await client.get("/register")
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"
    assert_problem(await client.post("/register/", json=somebody()), 404, "not-found")
