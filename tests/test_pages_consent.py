"""/consent: allowing an application what it asks for."""

from urllib.parse import quote

import httpx
import pytest

from authserver.clients.models import Client
from authserver.services import Services
from authserver.sessions import consents
from tests.factories import App, NewClient, NewUser, Person
from tests.pages import EXPIRED, form_token, shown, sign_in, submit

SCOPES = ["openid", "profile", "email", "orders:read"]


def asked(app: App, scope: str = "openid profile") -> str:
    back = quote(f"/authorize?client_id={app.client_id}&ticket=1.x", safe="")
    return f"/consent?client_id={app.client_id}&scope={quote(scope, safe='')}&continue={back}"


async def allowed(services: Services, user: Person, app: App) -> str | None:
    async with services.db.read() as tx:
        consent = await consents.find(tx, user.id, app.client_id)
    return consent.scope if consent else None


async def test_the_page_says_who_wants_what_in_whose_name(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    user, app = await new_user(), await new_client(scopes=SCOPES)
    await sign_in(client, user)
    page = await client.get(asked(app, "openid email orders:read"))
    text = shown(page)
    assert "May A client of the tests use your account?" in text
    assert f"You are signed in as {user.username}" in text
    assert "see your e-mail address" in text
    assert "use “orders:read”" in text
    assert "see your username" not in text


async def test_allowing_is_remembered_and_goes_on(
    client: httpx.AsyncClient, services: Services, new_client: NewClient, new_user: NewUser
) -> None:
    user, app = await new_user(), await new_client(scopes=SCOPES)
    await sign_in(client, user)
    answer = await submit(client, asked(app), decision="allow")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/authorize?client_id={app.client_id}&ticket=1.x"
    assert await allowed(services, user, app) == "openid profile"


@pytest.mark.parametrize("decision", [{"decision": "deny"}, {}, {"decision": "Allow"}], ids=str)
async def test_anything_else_denies(
    client: httpx.AsyncClient,
    services: Services,
    new_client: NewClient,
    new_user: NewUser,
    decision: dict[str, str],
) -> None:
    user, app = await new_user(), await new_client(scopes=SCOPES)
    await sign_in(client, user)
    answer = await submit(client, asked(app), **decision)
    assert answer.headers["location"] == f"/authorize?client_id={app.client_id}&ticket=1.x&refused=consent"
    assert await allowed(services, user, app) is None


async def test_what_the_client_may_not_have_is_neither_shown_nor_given(
    client: httpx.AsyncClient, services: Services, new_client: NewClient, new_user: NewUser
) -> None:
    user, app = await new_user(), await new_client(scopes=["openid"])
    await sign_in(client, user)
    page = asked(app, "openid admin <script>")
    assert "admin" not in shown(await client.get(page))
    await submit(client, page, decision="allow")
    assert await allowed(services, user, app) == "openid"


async def test_who_is_not_signed_in_does_that_first(client: httpx.AsyncClient, new_client: NewClient) -> None:
    app = await new_client(scopes=SCOPES)
    answer = await client.get(asked(app))
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?continue=%2Fauthorize%3Fclient_id%3D")


async def test_a_form_shown_to_one_person_is_not_believed_from_another(
    client: httpx.AsyncClient, services: Services, new_client: NewClient, new_user: NewUser
) -> None:
    one, other, app = await new_user(), await new_user(), await new_client(scopes=SCOPES)
    await sign_in(client, one)
    token = form_token(await client.get(asked(app)))
    await sign_in(client, other, "/login?another=1")
    page = await client.post(asked(app), data={"form_token": token, "decision": "allow"})
    assert page.status_code == 400
    assert EXPIRED in shown(page)
    assert f"You are signed in as {other.username}" in shown(page)
    for user in (one, other):
        assert await allowed(services, user, app) is None


async def test_another_sites_form_allows_nothing(
    client: httpx.AsyncClient, services: Services, new_client: NewClient, new_user: NewUser
) -> None:
    user, app = await new_user(), await new_client(scopes=SCOPES)
    await sign_in(client, user)
    fields = {"form_token": form_token(await client.get(asked(app))), "decision": "allow"}
    page = await client.post(asked(app), data=fields, headers={"Sec-Fetch-Site": "cross-site"})
    assert page.status_code == 400
    assert await allowed(services, user, app) is None


@pytest.mark.parametrize(
    "broken",
    [
        "client_id={id}&scope=openid",
        "client_id={id}&scope=openid&continue=https%3A%2F%2Fevil.example",
        "client_id={id}&scope=openid&continue=%2Faccount",
        "client_id={id}&scope=openid&continue=%2Fauthorize%3Fclient_id%3Danother",
        "client_id={id}&continue=%2Fauthorize%3Fclient_id%3D{id}",
        "client_id={id}&scope=unheard-of&continue=%2Fauthorize%3Fclient_id%3D{id}",
        "client_id=nobody&scope=openid&continue=%2Fauthorize%3Fclient_id%3Dnobody",
        "scope=openid&continue=%2Fauthorize%3Fclient_id%3D{id}",
        "",
    ],
)
async def test_a_link_that_authorize_did_not_make_is_an_error_page(
    client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser, broken: str
) -> None:
    user, app = await new_user(), await new_client(scopes=SCOPES)
    await sign_in(client, user)
    page = await client.get("/consent?" + broken.format(id=app.client_id))
    assert page.status_code == 400
    assert "That did not work" in shown(page)


async def test_only_web_addresses_of_the_application_become_links(
    client: httpx.AsyncClient, services: Services, new_client: NewClient, new_user: NewUser
) -> None:
    user, app = await new_user(), await new_client(scopes=SCOPES)
    async with services.db.write() as tx:
        row = await tx.get_one(Client, app.client_id)
        row.name, row.uri, row.policy_uri = "<b>Photos</b>", "https://photos.example/", "javascript:alert(1)"
    await sign_in(client, user)
    page = await client.get(asked(app))
    assert 'href="https://photos.example/"' in page.text
    assert "javascript:" not in page.text
    assert "<b>" not in page.text
