"""`authserver sessions`."""

from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import delete, select

from authserver import clock
from authserver.audit import AuditEvent
from authserver.services import Services
from authserver.sessions.models import UserSession
from authserver.tokens.denylist import session_entry
from authserver.tokens.models import DenylistEntry
from tests.cli.conftest import Run
from tests.factories import App, NewClient, NewUser, Person, claims_of, sign_in
from tests.test_introspect import INACTIVE, introspect


@pytest.fixture
async def caller(new_client: NewClient) -> App:
    return await new_client(may_introspect=True)


@pytest.fixture
async def user(new_user: NewUser) -> Person:
    return await new_user()


async def token_of(client: httpx.AsyncClient, app: App, user: Person) -> str:
    return str((await sign_in(client, app, user)).json()["access_token"])


async def is_active(client: httpx.AsyncClient, caller: App, token: str) -> bool:
    return (await introspect(client, caller, token)).content != INACTIVE


async def test_the_list_tells_of_each_sign_in(run: Run, client: httpx.AsyncClient, caller: App, user: Person) -> None:
    sid = claims_of(await token_of(client, caller, user))["sid"]
    [listed] = (await run("sessions", "list", "--session", sid, "--json")).json
    assert listed["expires_at"] > listed.pop("created_at") == listed.pop("last_used_at")
    del listed["expires_at"]
    assert listed == {
        "id": sid,
        "user_id": str(user.id),
        "username": user.username,
        "client_id": caller.client_id,
        "scope": "openid profile email",
        "grant": "password",
        "ip": "192.0.2.1",
        "user_agent": listed["user_agent"],
    }


async def test_the_list_can_be_narrowed(
    run: Run, client: httpx.AsyncClient, caller: App, user: Person, new_client: NewClient
) -> None:
    other = await new_client()
    sids = [claims_of(await token_of(client, app, user))["sid"] for app in (caller, caller, other)]

    async def listed(*arguments: object) -> list[str]:
        return [session["id"] for session in (await run("sessions", "list", *arguments, "--json")).json]

    assert await listed("--user", user.email) == sids[::-1]
    assert await listed("--user", user.username, "--client", other.client_id) == sids[2:]
    assert await listed("--client", caller.client_id, "--limit", 1) == [sids[1]]
    assert set(sids) <= set(await listed())


async def test_one_session_is_revoked(run: Run, client: httpx.AsyncClient, caller: App, user: Person) -> None:
    one, other = [await token_of(client, caller, user) for _ in range(2)]
    revoke = ("sessions", "revoke", "--session", claims_of(one)["sid"], "--json")
    assert (await run(*revoke)).json == {"revoked": 1}
    assert not await is_active(client, caller, one)
    assert await is_active(client, caller, other)
    assert (await run(*revoke)).json == {"revoked": 0}


async def test_conditions_must_all_be_met(
    run: Run, client: httpx.AsyncClient, caller: App, user: Person, new_user: NewUser, new_client: NewClient
) -> None:
    mine = await token_of(client, caller, user)
    elsewhere = await token_of(client, await new_client(), user)
    others = await token_of(client, caller, await new_user())
    revoke = ("sessions", "revoke", "--user", user.username, "--client", caller.client_id, "--json")
    assert (await run(*revoke)).json == {"revoked": 1}
    alive = [await is_active(client, caller, token) for token in (mine, elsewhere, others)]
    assert alive == [False, True, True]


async def test_all_sessions_of_a_user_are_revoked_in_batches_and_that_is_on_record(
    run: Run,
    services: Services,
    client: httpx.AsyncClient,
    caller: App,
    user: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("authserver.cli.ending._BATCH", 2)
    tokens = [await token_of(client, caller, user) for _ in range(3)]
    assert (await run("sessions", "revoke", "--user", user.email)).stdout == "3 sessions ended.\n"
    assert not any([await is_active(client, caller, token) for token in tokens])
    async with services.db.read() as tx:
        mine = select(AuditEvent).where(AuditEvent.user_id == user.id, AuditEvent.event == "sessions_revoked")
        event = (await tx.scalars(mine)).one()
    assert event.details == {"sessions": 3}


async def test_a_session_that_has_run_out_loses_its_living_access_token_too(
    run: Run, client: httpx.AsyncClient, caller: App, user: Person, services: Services
) -> None:
    token = await token_of(client, caller, user)
    async with services.db.write() as tx:
        session = (await tx.scalars(select(UserSession).where(UserSession.user_id == user.id))).one()
        session.expires_at = clock.now() - timedelta(seconds=1)
    assert await is_active(client, caller, token)
    assert (await run("sessions", "revoke", "--user", user.username, "--json")).json == {"revoked": 0}
    assert not await is_active(client, caller, token)


async def test_revoking_again_denies_again(
    run: Run, client: httpx.AsyncClient, caller: App, user: Person, services: Services
) -> None:
    """Whoever ended the session may not have lived to tell Redis, or may have lost the entry since."""
    token = await token_of(client, caller, user)
    revoke = ("sessions", "revoke", "--user", user.username, "--json")
    assert (await run(*revoke)).json == {"revoked": 1}
    entry = DenylistEntry.entry == session_entry(claims_of(token)["sid"])
    async with services.db.write() as tx:
        await tx.execute(delete(DenylistEntry).where(entry))
    assert (await run(*revoke)).json == {"revoked": 0}
    async with services.db.read() as tx:
        assert await tx.scalar(select(DenylistEntry).where(entry))


async def test_revoking_needs_to_be_told_what(run: Run) -> None:
    done = await run("sessions", "revoke")
    assert (done.status, done.stdout) == (2, "")
    assert (await run("sessions", "revoke", "--session", "not-an-id")).status == 2


async def test_users_and_clients_must_exist(run: Run) -> None:
    for command in ("list", "revoke"):
        assert (await run("sessions", command, "--user", "nobody")).why == "There is no user nobody."
        assert (await run("sessions", command, "--client", "none")).why == "There is no client none."
    assert (await run("sessions", "list", "--session", uuid4(), "--json")).json == []
