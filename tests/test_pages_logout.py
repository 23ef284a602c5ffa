"""/logout: signing out in a browser."""

import httpx

from authserver.services import Services
from tests.factories import App, NewClient, NewUser
from tests.pages import EXPIRED, form_token, shown, sign_in, submit, who

COOKIE = "__Host-authserver_session"


async def test_a_link_alone_signs_nobody_out(client: httpx.AsyncClient, new_user: NewUser) -> None:
    user = await new_user()
    await sign_in(client, user)
    page = await client.get("/logout")
    assert "Do you want to sign out?" in shown(page)
    assert await who(client) == user.username


async def test_signing_out_ends_the_browsers_session_on_the_server(
    client: httpx.AsyncClient, services: Services, new_user: NewUser
) -> None:
    await sign_in(client, await new_user())
    cookie = client.cookies[COOKIE]
    answer = await submit(client, "/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/logout")
    assert COOKIE not in client.cookies
    assert await services.browser_sessions.find(cookie) is None
    assert "You are signed out" in shown(await client.get("/logout"))
    assert await who(client) is None


async def test_what_came_from_the_browser_ends_too(
    client: httpx.AsyncClient, services: Services, new_client: NewClient, new_user: NewUser
) -> None:
    user, app = await new_user(), await new_client()
    await sign_in(client, user)
    here = await services.browser_sessions.find(client.cookies[COOKIE])
    assert here is not None
    started = await services.sessions.start(
        user_id=user.id, username=user.username, generation=0, client_id=app.client_id, grant="authorization_code",
        scope="openid", refreshable=True, ip=None, user_agent=None, browser_session_id=here.browser_session_id,
    )  # fmt: skip
    assert started is not None
    assert started.refresh_token is not None
    await submit(client, "/logout")
    assert await refused(client, app, started.refresh_token)


async def refused(client: httpx.AsyncClient, app: App, token: str) -> bool:
    answer = await client.post(
        "/token",
        data={"grant_type": "refresh_token", "refresh_token": token},
        auth=httpx.BasicAuth(app.client_id, app.secret or ""),
    )
    return answer.status_code == 400


async def test_another_sites_form_signs_nobody_out(client: httpx.AsyncClient, new_user: NewUser) -> None:
    user = await new_user()
    await sign_in(client, user)
    for token in ("", form_token(await client.get("/login"))):
        page = await client.post("/logout", data={"form_token": token})
        assert page.status_code == 400
        assert EXPIRED in shown(page)
    fields = {"form_token": form_token(await client.get("/logout"))}
    page = await client.post("/logout", data=fields, headers={"Origin": "https://evil.example"})
    assert page.status_code == 400
    assert await who(client) == user.username


async def test_signing_out_in_a_second_tab_is_no_error(client: httpx.AsyncClient, new_user: NewUser) -> None:
    await sign_in(client, await new_user())
    token = form_token(await client.get("/logout"))
    for _ in range(2):
        assert (await client.post("/logout", data={"form_token": token})).status_code == 303
