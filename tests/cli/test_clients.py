"""`authserver clients`."""

import secrets
from unittest.mock import AsyncMock

import httpx
import pytest
from sqlalchemy import select

from authserver.audit import AuditEvent
from authserver.clients.registration import KNOWN_GRANTS
from authserver.oauth.grants import GRANTS
from authserver.services import Services
from tests.cli.conftest import Run
from tests.factories import App, NewClient, NewUser, sign_in
from tests.test_introspect import INACTIVE, introspect
from tests.test_token_refresh import refresh

BOTH_GRANTS = ("--grant", "password", "--grant", "refresh_token")


async def events_of(services: Services, client_id: str) -> list[str]:
    async with services.db.read() as tx:
        query = select(AuditEvent.event).where(AuditEvent.client_id == client_id).order_by(AuditEvent.at)
        return list(await tx.scalars(query))


def test_a_client_can_be_given_the_grants_that_there_are() -> None:
    assert set(KNOWN_GRANTS) == set(GRANTS)


async def test_a_created_client_can_get_tokens(run: Run, client: httpx.AsyncClient, new_user: NewUser) -> None:
    made = (await run("clients", "create", "--name", "My app", *BOTH_GRANTS, "--json")).json
    app = App(made.pop("client_id"), made.pop("client_secret"))
    assert (await sign_in(client, app, await new_user())).status_code == 200
    assert made.pop("created_at") == made.pop("updated_at")
    assert made == {
        "name": "My app",
        "grants": ["password", "refresh_token"],
        "scopes": ["openid", "profile", "email"],
        "redirect_uris": [],
        "audience": [],
        "public": False,
        "introspect": False,
        "active": True,
    }


async def test_everything_about_a_client_can_be_said(run: Run) -> None:
    client_id = f"app-{secrets.token_hex(6)}"
    scopes = ("--scope", "openid read", "--scope", "write")
    uris = ("--redirect-uri", "https://app.example/a", "--redirect-uri", "com.example:/b")
    rights = ("--introspect", "--audience", "api-1", "--audience", "https://api.example")
    await run("clients", "create", "--name", "Älles", "--client-id", client_id, *scopes, *uris, *rights, "--json")
    shown = (await run("clients", "show", client_id, "--json")).json
    assert "client_secret" not in shown
    assert (shown["client_id"], shown["name"], shown["sessions"]) == (client_id, "Älles", 0)
    assert shown["scopes"] == ["openid", "read", "write"]
    assert shown["redirect_uris"] == ["https://app.example/a", "com.example:/b"]
    assert (shown["introspect"], shown["audience"]) == (True, ["api-1", "https://api.example"])
    listed = (await run("clients", "list", "--json")).json
    assert [entry["name"] for entry in listed if entry["client_id"] == client_id] == ["Älles"]


async def test_a_public_client_has_no_secret(run: Run, client: httpx.AsyncClient, new_user: NewUser) -> None:
    made = (await run("clients", "create", "--name", "App", "--public", *BOTH_GRANTS, "--json")).json
    assert (made["client_secret"], made["public"]) == (None, True)
    assert (await sign_in(client, App(made["client_id"], None), await new_user())).status_code == 200
    assert (await run("clients", "rotate-secret", made["client_id"])).why == "A public client has no secret."


async def test_people_are_told_that_the_secret_is_shown_once_and_that_a_grant_is_missing(run: Run) -> None:
    done = await run("clients", "create", "--name", "App")
    assert done.status == 0
    assert "authserver_cs_" in done.stdout
    assert "once" in done.stdout
    assert "no grant" in done.stderr
    assert (await run("clients", "create", "--name", "App", *BOTH_GRANTS)).stderr == ""


async def test_a_new_secret_replaces_the_old_one(
    run: Run, services: Services, client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(), await new_user()
    rotated = (await run("clients", "rotate-secret", app.client_id, "--json")).json
    assert (await sign_in(client, app, user)).status_code == 401
    assert (await sign_in(client, App(app.client_id, rotated["client_secret"]), user)).status_code == 200
    assert await events_of(services, app.client_id) == ["client_created", "client_secret_rotated"]


async def test_disabling_ends_the_sessions_and_enabling_does_not_bring_them_back(
    run: Run, services: Services, client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, other, user = await new_client(), await new_client(may_introspect=True), await new_user()
    tokens = (await sign_in(client, app, user)).json()
    elsewhere = (await sign_in(client, other, user)).json()
    done = (await run("clients", "disable", app.client_id, "--json")).json
    assert (done["active"], done["sessions_ended"]) == (False, 1)
    assert (await introspect(client, other, tokens["access_token"])).content == INACTIVE
    assert (await introspect(client, other, elsewhere["access_token"])).json()["active"] is True
    assert (await sign_in(client, app, user)).status_code == 401
    assert (await run("clients", "enable", app.client_id, "--json")).json["active"] is True
    assert (await refresh(client, app, tokens["refresh_token"])).status_code == 400
    assert (await sign_in(client, app, user)).status_code == 200
    assert await events_of(services, app.client_id) == ["client_created", "client_disabled", "client_enabled"]


async def test_deleting_a_client_revokes_what_its_sessions_gave_out(
    run: Run, services: Services, client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, other, user = await new_client(), await new_client(may_introspect=True), await new_user()
    tokens = (await sign_in(client, app, user)).json()
    done = (await run("clients", "delete", app.client_id, "--json")).json
    assert done == {"client_id": app.client_id, "deleted": True, "sessions_ended": 1}
    assert (await introspect(client, other, tokens["access_token"])).content == INACTIVE
    assert (await sign_in(client, app, user)).status_code == 401
    assert (await events_of(services, app.client_id))[-1] == "client_deleted"


@pytest.mark.parametrize("command", ["disable", "delete"])
async def test_who_signs_in_at_the_last_moment_is_signed_out_too(
    run: Run,
    client: httpx.AsyncClient,
    new_client: NewClient,
    new_user: NewUser,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    app, other = await new_client(), await new_client(may_introspect=True)
    monkeypatch.setattr("authserver.cli.ending.end", AsyncMock(return_value=0))  # it saw no session yet
    token = (await sign_in(client, app, await new_user())).json()["access_token"]
    assert (await run("clients", command, app.client_id, "--json")).json["sessions_ended"] == 1
    assert (await introspect(client, other, token)).content == INACTIVE


@pytest.mark.parametrize("command", ["show", "rotate-secret", "disable", "enable", "delete"])
async def test_an_unknown_client_is_refused(run: Run, command: str) -> None:
    assert (await run("clients", command, "no-such-app")).why == "There is no client no-such-app."
    assert (await run("clients", command, "\udcff")).why == "There is no client \\udcff."


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--grant", "implicit"), "There is no grant of that name"),
        (("--scope", 'a"b'), "A scope has no spaces, quotes or backslashes"),
        (("--redirect-uri", "/relative"), "A redirect URI is absolute"),
        (("--public", "--introspect"), "Only a client with a secret can introspect."),
        (("--client-id", "a b"), "A client_id has"),
        (("--audience", ""), "An audience has"),
    ],
)
async def test_what_makes_no_sense_is_refused(run: Run, arguments: tuple[str, ...], why: str) -> None:
    assert (await run("clients", "create", "--name", "App", *arguments)).why.startswith(why)


async def test_a_client_id_is_given_once(run: Run, new_client: NewClient) -> None:
    taken = (await new_client()).client_id
    refused = await run("clients", "create", "--name", "App", "--client-id", taken)
    assert refused.why == f"There is a client {taken} already."


async def test_a_name_cannot_play_tricks_on_a_terminal(run: Run) -> None:
    made = await run("clients", "create", "--name", "a\x9b31mb\u202ec[red]", "--json")
    shown = (await run("clients", "show", made.json["client_id"])).stdout
    assert "name\ta\\x9b31mb\\u202ec[red]\n" in shown
