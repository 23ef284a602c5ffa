"""`authserver users`."""

import secrets
from unittest.mock import AsyncMock
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from authserver.audit import AuditEvent
from authserver.services import Services
from tests.cli.conftest import Run
from tests.factories import PASSWORD, App, NewClient, NewUser, Person, sign_in
from tests.test_introspect import INACTIVE, introspect
from tests.test_token_refresh import refresh

OTHER_PASSWORD = "nine brown foxes in the fog"


@pytest.fixture
async def caller(new_client: NewClient) -> App:
    return await new_client()


@pytest.fixture
def name() -> str:
    return f"user-{secrets.token_hex(6)}"


async def create(run: Run, name: str, *more: str) -> UUID:
    arguments = ("--username", name, "--email", f"{name}@example.com", "--password-stdin", "--json")
    return UUID((await run("users", "create", *arguments, *more, stdin=f"{PASSWORD}\n")).json["id"])


async def events_of(services: Services, user_id: UUID) -> list[str]:
    async with services.db.read() as tx:
        query = select(AuditEvent.event).where(AuditEvent.user_id == user_id).order_by(AuditEvent.at)
        return list(await tx.scalars(query))


async def test_a_created_user_can_sign_in(run: Run, name: str, client: httpx.AsyncClient, caller: App) -> None:
    user = Person(await create(run, name), name, f"{name}@example.com")
    assert (await sign_in(client, caller, user)).status_code == 200
    shown = (await run("users", "show", name, "--json")).json
    assert shown.pop("created_at") == shown.pop("updated_at")
    assert shown == {
        "id": str(user.id),
        "username": name,
        "email": user.email,
        "is_active": True,
        "is_superuser": False,
        "sessions": 1,
    }


async def test_a_superuser_is_made_by_saying_so(run: Run, name: str) -> None:
    await create(run, name, "--superuser")
    assert (await run("users", "show", name, "--json")).json["is_superuser"] is True


@pytest.mark.parametrize("spelling", ["{name}", "{NAME}", "{name}@example.com", "{id}"])
async def test_a_user_is_named_by_username_address_or_id(run: Run, name: str, spelling: str) -> None:
    user_id = await create(run, name)
    spelt = spelling.format(name=name, NAME=name.upper(), id=user_id)
    assert (await run("users", "show", spelt, "--json")).json["id"] == str(user_id)


async def test_only_the_line_end_is_cut_from_a_password(
    run: Run, name: str, client: httpx.AsyncClient, caller: App
) -> None:
    password = f"  {PASSWORD} "
    arguments = ("--username", name, "--email", f"{name}@example.com", "--password-stdin", "--json")
    made = (await run("users", "create", *arguments, stdin=f"{password}\r\n")).json
    user = Person(UUID(made["id"]), name, "")
    assert (await sign_in(client, caller, user, password=password)).status_code == 200


async def test_the_list_has_everybody_in_order_or_the_first_few(run: Run) -> None:
    made = sorted([f"user-{secrets.token_hex(6)}" for _ in range(3)])
    for name in made:
        await create(run, name)
    listed = [user["username"] for user in (await run("users", "list", "--json")).json]
    assert listed == sorted(listed, key=str.lower)
    assert [name for name in listed if name in made] == made
    assert [user["username"] for user in (await run("users", "list", "--limit", 2, "--json")).json] == listed[:2]


async def test_pages_of_a_long_list_are_put_together(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        await create(run, f"user-{secrets.token_hex(6)}")
    whole = (await run("users", "list", "--json")).json
    monkeypatch.setattr("authserver.cli.users._PAGE", 2)
    assert (await run("users", "list", "--json")).json == whole
    assert (await run("users", "list", "--limit", 3, "--json")).json == whole[:3]


async def test_disabling_ends_the_sessions_and_enabling_does_not_bring_them_back(
    run: Run, services: Services, client: httpx.AsyncClient, caller: App, new_user: NewUser
) -> None:
    user = await new_user()
    tokens = (await sign_in(client, caller, user)).json()
    done = (await run("users", "disable", user.username, "--json")).json
    assert (done["is_active"], done["sessions_ended"]) == (False, 1)
    assert (await introspect(client, caller, tokens["access_token"])).content == INACTIVE
    assert (await sign_in(client, caller, user)).status_code == 400
    assert (await run("users", "enable", user.username, "--json")).json["is_active"] is True
    assert (await refresh(client, caller, tokens["refresh_token"])).status_code == 400
    assert (await sign_in(client, caller, user)).status_code == 200
    assert [event for event in await events_of(services, user.id) if "abled" in event] == [
        "user_disabled",
        "user_enabled",
    ]


async def test_a_new_password_replaces_the_old_one_and_ends_the_sessions(
    run: Run, services: Services, client: httpx.AsyncClient, caller: App, new_user: NewUser
) -> None:
    user = await new_user()
    tokens = (await sign_in(client, caller, user)).json()
    done = await run("users", "set-password", user.email, "--password-stdin", "--json", stdin=OTHER_PASSWORD)
    assert done.json["sessions_ended"] == 1
    assert (await introspect(client, caller, tokens["access_token"])).content == INACTIVE
    assert (await sign_in(client, caller, user)).status_code == 400
    assert (await sign_in(client, caller, user, password=OTHER_PASSWORD)).status_code == 200
    assert "password_changed" in await events_of(services, user.id)


async def test_deleting_a_user_revokes_what_their_sessions_gave_out(
    run: Run, services: Services, client: httpx.AsyncClient, caller: App, new_user: NewUser
) -> None:
    user = await new_user()
    tokens = (await sign_in(client, caller, user)).json()
    done = (await run("users", "delete", str(user.id), "--json")).json
    assert done == {"id": str(user.id), "username": user.username, "deleted": True, "sessions_ended": 1}
    assert (await introspect(client, caller, tokens["access_token"])).content == INACTIVE
    assert (await run("users", "show", user.username)).why == f"There is no user {user.username}."
    assert "user_deleted" in await events_of(services, user.id)


@pytest.mark.parametrize("command", ["disable", "delete", "set-password --password-stdin"])
async def test_who_signs_in_at_the_last_moment_is_signed_out_too(
    run: Run, client: httpx.AsyncClient, caller: App, new_user: NewUser, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    user = await new_user()
    monkeypatch.setattr("authserver.cli.ending.end", AsyncMock(return_value=0))  # it saw no session yet
    token = (await sign_in(client, caller, user)).json()["access_token"]
    done = await run("users", *command.split(), user.username, "--json", stdin=OTHER_PASSWORD)
    assert done.json["sessions_ended"] == 1
    assert (await introspect(client, caller, token)).content == INACTIVE


@pytest.mark.parametrize("command", ["show", "disable", "enable", "set-password", "delete"])
async def test_an_unknown_user_is_refused(run: Run, command: str) -> None:
    assert (await run("users", command, "nobody-at-all")).why == "There is no user nobody-at-all."
    assert (await run("users", command, "\udcff")).why == "There is no user \\udcff."


async def test_what_registration_would_refuse_is_refused(run: Run, name: str) -> None:
    user_id = await create(run, name)
    new = ("users", "create", "--password-stdin", "--username")
    assert (await run(*new, name.upper(), "--email", "x@example.com", stdin=PASSWORD)).why == "The username is taken."
    taken = await run(*new, f"{name}2", "--email", f"{name}@EXAMPLE.com", stdin=PASSWORD)
    assert taken.why == "The e-mail address is taken."
    assert "15 characters" in (await run(*new, "x1234", "--email", "x@example.com", stdin="short")).why
    assert "15 characters" in (await run("users", "set-password", user_id, "--password-stdin", stdin="short")).why
    not_text = await run(*new, "x1234", "--email", "x@example.com", stdin=b"\xff\xfe is no UTF-8 at all")
    assert not_text.why == "What stdin holds is not UTF-8."
    too_long = await run(*new, "x1234", "--email", "x@example.com", stdin="x" * 20_000)
    assert too_long.why == "What stdin holds is longer than 16384 bytes."


async def test_without_a_terminal_a_password_comes_from_stdin_only_if_asked_for(run: Run, name: str) -> None:
    done = await run("users", "create", "--username", name, "--email", f"{name}@example.com", stdin=PASSWORD)
    assert (done.status, done.stdout) == (2, "")
    assert "--password-stdin" in done.stderr
