"""`authserver clients password-report`: each client on its way out of the password grant."""

import shlex
from datetime import timedelta
from typing import Any

import httpx
import pytest

from authserver.clients import registration
from authserver.services import Services
from authserver.sessions.models import UserSession
from tests.cli.conftest import Run
from tests.factories import App, NewClient, NewUser, sign_in


async def reported(run: Run, app: App) -> dict[str, Any] | None:
    report: list[dict[str, Any]] = (await run("clients", "password-report", "--json")).json
    return next((client for client in report if client["client_id"] == app.client_id), None)


async def do(run: Run, command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "authserver"
    assert (await run(*arguments, "--json")).status == 0


async def test_it_says_how_much_the_grant_is_used(
    run: Run, client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, ada, bob = await new_client(), await new_user(), await new_user()
    for user in (ada, ada, bob):
        assert (await sign_in(client, app, user)).status_code == 200
    entry = await reported(run, app)
    assert entry
    assert (entry["sign_ins"], entry["users"], entry["live_sessions"], entry["may_use_it"]) == (3, 2, 3, True)
    assert entry["last_sign_in"] == entry["last_used"]
    await run("sessions", "revoke", "--user", bob.username)
    entry = await reported(run, app)
    assert entry
    assert (entry["sign_ins"], entry["live_sessions"]) == (3, 2)
    told = (await run("clients", "password-report")).stdout
    assert f"{app.client_id} (A client of the tests): may use it\n  3 sign-ins of 2 users are on record" in told


async def test_its_commands_lead_a_client_out_step_by_step(
    run: Run, client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app = await new_client(is_public=True)
    people = [await new_user(), await new_user()]
    for user in people:
        assert (await sign_in(client, app, user)).status_code == 200

    first = await reported(run, app)
    assert first
    assert first["change"].startswith("Allow it the code flow beside the password")
    await do(run, first["command"])
    shown = (await run("clients", "show", app.client_id, "--json")).json
    assert shown["grants"] == ["authorization_code", "password", "refresh_token"]

    second = await reported(run, app)
    assert second
    assert second["change"].startswith("It may use the code flow already.")
    await do(run, second["command"])
    assert (await sign_in(client, app, people[0])).json()["error"] == "unauthorized_client"

    third = await reported(run, app)
    assert third
    assert (third["may_use_it"], third["live_sessions"]) == (False, 2)
    assert third["change"].startswith("It may not ask for passwords any more. The sessions begun with one end by 20")
    await do(run, third["command"])

    last = await reported(run, app)
    assert last
    assert (last["live_sessions"], last["command"]) == (0, None)
    assert last["change"].endswith("done.")


@pytest.mark.parametrize(
    ("grants", "left"), [(["password"], []), (["password", "client_credentials"], ["client_credentials"])]
)
async def test_a_grant_that_nobody_uses_is_taken_away(
    run: Run, new_client: NewClient, grants: list[str], left: list[str]
) -> None:
    app = await new_client(grants=grants)
    entry = await reported(run, app)
    assert entry
    assert entry["change"] == "Nobody has signed in that way lately: take the grant away."
    await do(run, entry["command"])
    assert (await run("clients", "show", app.client_id, "--json")).json["grants"] == left
    assert await reported(run, app) is None


async def test_a_program_that_uses_a_persons_password_is_told_of_client_credentials(
    run: Run, client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app = await new_client()
    await sign_in(client, app, await new_user())
    entry = await reported(run, app)
    assert entry
    assert entry["change"].startswith("One user only.")
    await do(run, entry["command"])
    shown = (await run("clients", "show", app.client_id, "--json")).json
    assert shown["grants"] == ["client_credentials", "password", "refresh_token"]


async def test_other_grants_are_not_in_it(
    run: Run, services: Services, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(grants=["refresh_token"]), await new_user()
    async with services.db.write() as tx:
        client = await registration.find(tx, app.client_id)
        assert client
        later = client.created_at + timedelta(days=1)
        row = UserSession(user_id=user.id, client_id=app.client_id, grant="authorization_code", scope="openid",
                          token_jti=app.client_id, tokens_expire_at=later, expires_at=later,
                          max_expires_at=later)  # fmt: skip
        tx.add(row)
    assert await reported(run, app) is None
