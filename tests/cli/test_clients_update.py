"""`authserver clients update`, and the addresses that a client may have."""

import httpx
import pytest

from authserver.services import Services
from tests.cli.conftest import Run
from tests.cli.test_clients import events_of
from tests.factories import NewClient, NewUser, sign_in

CODE = ("--grant", "authorization_code")
ALL_OF_IT = {
    "name": ("--name", "Another name"),
    "grants": ("--grant", "refresh_token authorization_code"),
    "scopes": ("--scope", "openid offline_access"),
    "audience": ("--audience", "https://api.example"),
    "redirect_uris": ("--redirect-uri", "https://app.example/cb", "--redirect-uri", "http://127.0.0.1/cb"),
    "post_logout_redirect_uris": ("--post-logout-redirect-uri", "https://app.example/bye"),
    "backchannel_logout_uri": ("--backchannel-logout-uri", "https://app.example/logout?x=1"),
    "require_pkce": ("--no-require-pkce",),
    "require_pushed_requests": ("--require-pushed-requests",),
    "trusted": ("--trusted",),
    "default_max_age": ("--default-max-age", "0"),
    "id_token_alg": ("--id-token-alg", "ES256"),
    "userinfo_alg": ("--userinfo-alg", "RS256"),
    "uri": ("--uri", "https://app.example"),
    "policy_uri": ("--policy-uri", "https://app.example/privacy"),
    "tos_uri": ("--tos-uri", "http://app.example/terms"),
    "introspect": ("--introspect",),
}
SAID = {
    "name": "Another name",
    "grants": ["refresh_token", "authorization_code"],
    "scopes": ["openid", "offline_access"],
    "audience": ["https://api.example"],
    "redirect_uris": ["https://app.example/cb", "http://127.0.0.1/cb"],
    "post_logout_redirect_uris": ["https://app.example/bye"],
    "backchannel_logout_uri": "https://app.example/logout?x=1",
    "require_pkce": False,
    "require_pushed_requests": True,
    "trusted": True,
    "default_max_age": 0,
    "id_token_alg": "ES256",
    "userinfo_alg": "RS256",
    "uri": "https://app.example",
    "policy_uri": "https://app.example/privacy",
    "tos_uri": "http://app.example/terms",
    "introspect": True,
}


async def test_an_update_changes_what_is_given_and_leaves_the_rest(
    run: Run, new_client: NewClient, services: Services
) -> None:
    client_id = (await new_client(redirect_uris=["https://app.example/"])).client_id
    known = (await run("clients", "show", client_id, "--json")).json
    for name, options in ALL_OF_IT.items():
        answer = (await run("clients", "update", client_id, *options, "--json")).json
        known[name] = SAID[name]
        assert {**answer, "sessions": 0, "updated_at": known["updated_at"]} == known
    assert (await events_of(services, client_id)).count("client_changed") == len(ALL_OF_IT)


async def test_all_of_it_can_be_said_at_creation(run: Run) -> None:
    options = [option for name, given in ALL_OF_IT.items() if name != "name" for option in given]
    made = (await run("clients", "create", "--name", "Another name", *options, "--json")).json
    assert {name: made[name] for name in SAID} == SAID


async def test_what_is_optional_can_be_taken_away(run: Run) -> None:
    options = [option for name, given in ALL_OF_IT.items() if name != "name" for option in given]
    made = (await run("clients", "create", "--name", "A", *options, "--json")).json
    lists = ("grants", "audience", "redirect_uris", "post_logout_redirect_uris")
    values = ("backchannel_logout_uri", "default_max_age", "userinfo_alg", "uri", "policy_uri", "tos_uri")
    without = [option for name in (*lists, *values) for option in ("--without", name)]
    left = (await run("clients", "update", made["client_id"], *without, "--json")).json
    assert {name: left[name] for name in lists} == {name: [] for name in lists}
    assert {name: left[name] for name in values} == dict.fromkeys(values)


async def test_a_grant_that_is_taken_away_is_refused_from_then_on(
    run: Run, client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(), await new_user()
    assert (await sign_in(client, app, user)).status_code == 200
    await run("clients", "update", app.client_id, "--grant", "refresh_token", "--json")
    assert (await sign_in(client, app, user)).json()["error"] == "unauthorized_client"


async def test_what_an_update_would_make_wrong_is_refused_and_nothing_changes(run: Run, new_client: NewClient) -> None:
    client_id = (await new_client(is_public=True)).client_id
    before = (await run("clients", "show", client_id, "--json")).json
    assert (await run("clients", "update", client_id, "--introspect")).why.startswith("Only a client that can prove")
    assert (await run("clients", "update", client_id, *CODE)).why.startswith("The grant authorization_code needs")
    assert (await run("clients", "update", client_id, "--no-require-pkce")).why.startswith("A public client always")
    assert (await run("clients", "update", client_id)).why == "Nothing to change was given."
    assert (await run("clients", "update", client_id, "--without", "scopes")).why.startswith("scopes cannot be taken")
    assert (await run("clients", "update", client_id, "--default-max-age", "-1")).status == 2
    assert (await run("clients", "update", client_id, "--id-token-alg", "none")).status == 2
    assert (await run("clients", "show", client_id, "--json")).json == before


async def test_eddsa_gets_its_first_key(run: Run, new_client: NewClient) -> None:
    client_id = (await new_client()).client_id
    assert (await run("clients", "update", client_id, "--userinfo-alg", "EdDSA")).status == 0
    keys = (await run("keys", "list", "--json")).json
    assert {"ES256", "RS256", "EdDSA"} == {key["alg"] for key in keys}


GOOD_REDIRECT_URIS = [
    "https://app.example/cb",
    "https://app.example",
    "https://app.example:8443/cb?a=b&c=%20",
    "https://[2001:db8::1]/cb",
    "http://127.0.0.1/cb",
    "http://127.0.0.1:3000/cb",
    "http://[::1]:3000/cb",
    "http://localhost:3000/",
    "com.example.app:/oauth2redirect",
    "com.example.app://callback",
    "https://app.example/" + "a" * 1980,
]
BAD_REDIRECT_URIS = [
    "",
    "/relative",
    "//app.example/cb",
    "app.example/cb",
    "https:///cb",
    "https:app.example",
    "https://app.example/cb#",
    "https://app.example/cb#fragment",
    "https://*.app.example/cb",
    "https://app.example/*",
    "https://user@app.example/cb",
    "https://user:password@app.example/cb",
    "https://app.example\\@evil.example/cb",
    "https://app.example:99999/cb",
    "https://app.example:port/cb",
    "https://app.example/ cb",
    "https://app.example/cb\n",
    "https://äpp.example/cb",
    "https://[::1/cb",
    "https://app.example/" + "a" * 1981,
    "http://app.example/cb",
    "http://10.0.0.1/cb",
    "http://127.0.0.1.evil.example/cb",
    "http://localhost.evil.example/cb",
    "http://127.0.0.1@evil.example/cb",
    "http://127.1/cb",
    "http://0x7f.0.0.1/cb",
    "myapp:/cb",
    "javascript:alert(1)",
    "data:text/html,x",
    "vbscript:x",
    "file:///etc/passwd",
    "urn:ietf:wg:oauth:2.0:oob",
]


@pytest.mark.parametrize("uri", GOOD_REDIRECT_URIS)
async def test_an_address_that_a_browser_can_be_sent_to_is_taken(run: Run, uri: str) -> None:
    options = (*CODE, "--redirect-uri", uri, "--post-logout-redirect-uri", uri)
    made = (await run("clients", "create", "--name", "App", *options, "--json")).json
    assert (made["redirect_uris"], made["post_logout_redirect_uris"]) == ([uri], [uri])


@pytest.mark.parametrize("option", ["--redirect-uri", "--post-logout-redirect-uri"])
@pytest.mark.parametrize("uri", BAD_REDIRECT_URIS)
async def test_an_address_that_a_browser_must_not_be_sent_to_is_refused(run: Run, option: str, uri: str) -> None:
    done = await run("clients", "create", "--name", "App", option, uri)
    assert done.why.startswith("A redirect URI is absolute")


@pytest.mark.parametrize(
    "uri", ["http://app.example/", "com.example:/x", "https://u@a.example", "https://a.example/#", ""]
)
async def test_a_bad_backchannel_address_is_refused(run: Run, uri: str) -> None:
    assert (await run("clients", "create", "--name", "A", "--backchannel-logout-uri", uri)).why.startswith(
        "It is https"
    )


@pytest.mark.parametrize("option", ["--uri", "--policy-uri", "--tos-uri"])
@pytest.mark.parametrize("uri", ["javascript:alert(1)", "app.example", "com.example:/x", "https://a.example/#x", ""])
async def test_a_page_that_people_cannot_be_shown_is_refused(run: Run, option: str, uri: str) -> None:
    assert (await run("clients", "create", "--name", "A", option, uri)).why.startswith("A page's address begins")
