"""`authserver clients`."""

import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import AsyncMock

import httpx
import pytest
from joserfc.jwk import OctKey
from sqlalchemy import select

from authserver import opaque
from authserver.audit import AuditEvent
from authserver.clients import registration
from authserver.clients.metadata import KNOWN_GRANTS
from authserver.oauth.grants import GRANTS
from authserver.services import Services
from tests.assertions import KEYS, Signer, key_set
from tests.cli.conftest import Run
from tests.factories import App, NewClient, NewUser, basic, sign_in
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
        "auth_methods": ["client_secret_basic", "client_secret_post"],
        "live_secrets": 1,
        "old_secret_until": None,
        "keys": [],
        "post_logout_redirect_uris": [],
        "backchannel_logout_uri": None,
        "require_pkce": True,
        "require_pushed_requests": False,
        "require_signed_requests": False,
        "trusted": False,
        "default_max_age": None,
        "id_token_alg": "RS256",
        "userinfo_alg": None,
        "uri": None,
        "policy_uri": None,
        "tos_uri": None,
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


async def test_the_old_secret_can_be_kept_for_a_while(
    run: Run, client: httpx.AsyncClient, new_client: NewClient, new_user: NewUser
) -> None:
    app, user = await new_client(), await new_user()
    rotated = await run("clients", "rotate-secret", app.client_id, "--keep-old", 86_400)
    assert "The one before is good until 2" in rotated.stdout
    shown = (await run("clients", "show", app.client_id, "--json")).json
    left = datetime.fromisoformat(shown["old_secret_until"]) - datetime.now(UTC)
    assert (shown["live_secrets"], timedelta(hours=23) < left <= timedelta(days=1)) == (2, True)
    assert (await sign_in(client, app, user)).status_code == 200
    explained = (await run("token", "explain", "--json", stdin=app.secret)).json
    assert (explained["good"], explained["client"]["good_until"]) == (True, shown["old_secret_until"])
    await run("clients", "rotate-secret", app.client_id)
    assert (await run("clients", "show", app.client_id, "--json")).json["live_secrets"] == 1
    assert (await sign_in(client, app, user)).status_code == 401


async def test_an_old_secret_whose_time_is_over_is_told_as_such(
    run: Run, services: Services, new_client: NewClient
) -> None:
    app = await new_client()
    await run("clients", "rotate-secret", app.client_id, "--keep-old", 60)
    async with services.db.write() as tx:
        found = await registration.find(tx, app.client_id)
        assert found
        assert found.old_secret_until
        found.old_secret_until -= timedelta(minutes=2)
    shown = (await run("clients", "show", app.client_id, "--json")).json
    assert (shown["live_secrets"], shown["old_secret_until"]) == (1, None)
    assert "newer secret" in (await run("token", "explain", "--json", stdin=app.secret)).json["because"][0]


@pytest.mark.parametrize("seconds", [-1, 90 * 86_400 + 1, "a day"])
async def test_a_grace_has_its_limits(run: Run, new_client: NewClient, seconds: object) -> None:
    done = await run("clients", "rotate-secret", (await new_client()).client_id, "--keep-old", seconds)
    assert done.status == 2


async def test_a_client_with_keys_is_made_from_a_file_and_its_keys_are_replaced(
    run: Run, client: httpx.AsyncClient, services: Services, tmp_path: Path
) -> None:
    keys, one = tmp_path / "keys.json", tmp_path / "one.json"
    keys.write_text(json.dumps(key_set(KEYS["ES256"], KEYS["RS256"])))
    one.write_text(json.dumps(KEYS["EdDSA"].as_dict(private=False)))
    made = (await run("clients", "create", "--name", "Signer", "--jwks", keys, "--json")).json
    client_id = made["client_id"]
    assert (made["client_secret"], made["public"], made["live_secrets"]) == (None, False, 0)
    assert (made["auth_methods"], made["keys"]) == (["private_key_jwt"], ["p256", "rsa"])
    old, new = Signer(client_id, KEYS["ES256"], "ES256"), Signer(client_id, KEYS["EdDSA"], "EdDSA")
    assert (await client.post("/revoke", data={"token": "x"} | old.form())).status_code == 200
    assert (await run("clients", "set-keys", client_id, "--jwks", one, "--json")).json["keys"] == ["ed25519"]
    assert (await client.post("/revoke", data={"token": "x"} | old.form())).status_code == 401
    assert (await client.post("/revoke", data={"token": "x"} | new.form())).status_code == 200
    assert await events_of(services, client_id) == ["client_created", "client_keys_changed"]
    assert (await run("clients", "rotate-secret", client_id)).why.startswith("It has no secret")


async def test_a_client_that_signs_with_its_secret_is_told_it(run: Run, client: httpx.AsyncClient) -> None:
    made = (await run("clients", "create", "--name", "S", "--auth-method", "client_secret_jwt", "--json")).json
    signer = Signer(made["client_id"], OctKey.import_key(made["client_secret"]), "HS256")
    assert (await client.post("/revoke", data={"token": "x"} | signer.form())).status_code == 200
    public = (await run("clients", "create", "--name", "S", "--auth-method", "none", "--json")).json
    assert (public["client_secret"], public["public"]) == (None, True)


def changed_key(name: str, **changes: object) -> dict[str, object]:
    return {"keys": [KEYS[name].as_dict(private=False) | changes]}


MALFORMED = "It is not a well-formed public key"
SIZE = "An RSA key has 2048 to 4096 bits."
BAD_KEYS: dict[str, tuple[object, str]] = {
    "a list": ([], "A key set is a JSON object"),
    "a number": (1, "A key set is a JSON object"),
    "no keys": ({"keys": []}, "A key set is a JSON object"),
    "eleven keys": ({"keys": [{}] * 11}, "A key set is a JSON object"),
    "a key that is text": ({"keys": ["x"]}, "A key set is a JSON object"),
    "a private key": ({"keys": [KEYS["ES256"].as_dict(private=True)]}, "It holds a private key"),
    "a secret": ({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}, "It holds a private key"),
    "a key for encryption": (changed_key("ES256", use="enc"), "It is not for signatures"),
    "an algorithm that it cannot": (changed_key("ES256", alg="ES384"), "Such a key signs with ES256."),
    "an algorithm that is a list": (changed_key("ES256", alg=["ES256"]), "Such a key signs with ES256."),
    "a kid that is a number": (changed_key("ES256", kid=1), "A kid has 1 to 255"),
    "two keys of one name": ({"keys": [KEYS["ES256"].as_dict(private=False)] * 2}, "Two keys have one kid."),
    "a curve that nobody uses": (changed_key("ES256", crv="P-521"), "A key is RSA, or on the curve"),
    "a curve that is a list": (changed_key("ES256", crv=["P-256"]), "A key is RSA, or on the curve"),
    "a point beside the curve": (changed_key("ES256", x="AAAA"), MALFORMED),
    "a point with half its numbers": ({"keys": [{"kty": "EC", "crv": "P-256", "x": "AAAA"}]}, MALFORMED),
    "a number that is no text": (changed_key("ES256", x=5), MALFORMED),
    "another kind of key on that curve": (changed_key("ES256", kty="OKP"), MALFORMED),
    "no kind": (changed_key("ES256", kty=None), MALFORMED),
    "a short Ed25519 key": (changed_key("EdDSA", x="AAAA"), MALFORMED),
    "RSA of 1024 bits": (changed_key("RS256", n=opaque.b64encode((2**1023 + 1).to_bytes(128, "big"))), SIZE),
    "RSA with an even exponent": (changed_key("RS256", e="BA"), MALFORMED),
    "RSA with a huge exponent": (changed_key("RS256", e="A" * 40), MALFORMED),
    "RSA in another alphabet": (changed_key("RS256", n="+/+/"), MALFORMED),
}


@pytest.mark.parametrize("case", BAD_KEYS)
async def test_bad_keys_are_refused_before_any_request_meets_them(run: Run, tmp_path: Path, case: str) -> None:
    keys, why = BAD_KEYS[case]
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    done = await run("clients", "create", "--name", "App", "--jwks", tmp_path / "keys.json")
    assert done.why.startswith(why)


async def test_a_file_that_is_no_json_is_refused(run: Run, new_client: NewClient, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("-----BEGIN PUBLIC KEY-----")
    (tmp_path / "keys.json").write_text(json.dumps(key_set(KEYS["ES256"])))
    assert (await run("clients", "create", "--name", "A", "--jwks", tmp_path / "key.pem")).why == "key.pem is not JSON."
    public = (await new_client(is_public=True)).client_id
    refused = await run("clients", "set-keys", public, "--jwks", tmp_path / "keys.json")
    assert refused.why == "Keys are for a client that can keep them: not for a public one."


async def test_a_client_with_a_secret_may_have_keys_as_well_for_its_requests(
    run: Run, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "keys.json").write_text(json.dumps(key_set(KEYS["ES256"])))
    both = ("--jwks", tmp_path / "keys.json", "--auth-method", "client_secret_basic")
    made = (await run("clients", "create", "--name", "A", *both, "--require-signed-requests", "--json")).json
    assert (made["keys"], made["require_signed_requests"]) == (["p256"], True)
    app = App(made["client_id"], made["client_secret"])
    assert (await client.post("/revoke", data={"token": "x"}, auth=basic(app))).status_code == 200
    by_key = Signer(app.client_id, KEYS["ES256"], "ES256")
    assert (await client.post("/revoke", data={"token": "x"} | by_key.form())).status_code == 401


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


@pytest.mark.parametrize("command", ["show", "update", "rotate-secret", "disable", "enable", "delete"])
async def test_an_unknown_client_is_refused(run: Run, command: str) -> None:
    more = ("--name", "App") if command == "update" else ()
    assert (await run("clients", command, "no-such-app", *more)).why == "There is no client no-such-app."
    assert (await run("clients", command, "\udcff", *more)).why == "There is no client \\udcff."


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--grant", "implicit"), "There is no grant of that name"),
        (("--scope", 'a"b'), "A scope has no spaces, quotes or backslashes"),
        (("--grant", "authorization_code"), "The grant authorization_code needs a redirect URI."),
        (("--public", "--no-require-pkce"), "A public client always uses PKCE"),
        (("--require-signed-requests",), "It signs with keys"),
        (("--name", ""), "A name has 1 to 100 characters"),
        (("--public", "--introspect"), "Only a client that can prove itself can introspect."),
        (("--client-id", "a b"), "A client_id has"),
        (("--audience", ""), "An audience has"),
        (("--auth-method", "tls_client_auth"), "There are the methods client_secret_basic, "),
        (("--auth-method", "private_key_jwt"), "It signs with keys"),
        (("--public", "--auth-method", "client_secret_post"), "A public client, and no other, proves itself by none."),
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
