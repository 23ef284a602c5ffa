"""`authserver clients password-report`: who still asks people for their password, and the way out of it."""

from typing import TYPE_CHECKING, Any

from authserver.cli import output
from authserver.cli.command import command
from authserver.cli.output import Answer

if TYPE_CHECKING:
    from authserver.clients.models import Client
    from authserver.services import Services
    from authserver.sessions.usage import Usage

_CODE, _PASSWORD = "authorization_code", "password"
_PAGE = "docs/away_from_passwords.md says how, step by step."


@command
async def password_report(services: "Services") -> Answer:
    """Name the clients that use the password grant or may, how much they do, and what to change."""
    from authserver.clients import registration
    from authserver.sessions import usage

    async with services.db.read() as tx:
        used = await usage.of_grant(tx, _PASSWORD)
        clients = await registration.list_all(tx)
    found = [
        _described(client, used.get(client.id, usage.Usage()))
        for client in clients
        if _PASSWORD in client.grants or client.id in used
    ]
    found.sort(key=lambda client: -client["sign_ins"])
    told = "\n\n".join(map(_told, found))
    return Answer(found, f"{told}\n\n{_PAGE}" if found else "No client uses the password grant, and none may.")


def _described(client: "Client", used: "Usage") -> dict[str, Any]:
    change, how = _way_out(client, used)
    return {
        "client_id": client.id,
        "name": client.name,
        "active": client.is_active,
        "may_use_it": _PASSWORD in client.grants,
        "sign_ins": used.sign_ins,
        "users": used.users,
        "live_sessions": used.alive,
        "last_sign_in": used.last_sign_in,
        "last_used": used.last_used,
        "change": change,
        "command": how,
    }


def _way_out(client: "Client", used: "Usage") -> tuple[str, str | None]:
    """Return what to change, in a sentence, and the command that does it, if it takes one."""
    rest = [grant for grant in client.grants if grant != _PASSWORD]
    take_away = _update(client, *(["--without grants"] if not rest else [f"--grant {grant}" for grant in rest]))
    if _PASSWORD not in client.grants:
        if not used.alive:
            return "It may not ask for passwords any more, and no session of that kind is left: done.", None
        last = output.text(used.ends_at)
        sentence = f"It may not ask for passwords any more. The sessions begun with one end by {last}; or end them now."
        return sentence, f"authserver sessions revoke --client {client.id}"
    if not used.sign_ins:
        return "Nobody has signed in that way lately: take the grant away.", take_away
    if used.users == 1 and not client.is_public and _CODE not in client.grants:
        sentence = (
            "One user only. If that is a program, let it act for itself (client_credentials); "
            "if a person, let the application send the browser to /authorize, as for any other."
        )
        return sentence, _update(client, *[f"--grant {grant}" for grant in ("client_credentials", *client.grants)])
    if _CODE not in client.grants:
        grants = [f"--grant {grant}" for grant in (_CODE, *client.grants)]
        sentence = (
            "Allow it the code flow beside the password, with the address that browsers come back to; "
            "let the application send the browser to /authorize; then ask for this report again."
        )
        return sentence, _update(client, *grants, "--redirect-uri https://app.example/callback")
    sentence = (
        "It may use the code flow already. When no version of it asks for passwords any more, take the grant away."
    )
    return sentence, take_away


def _update(client: "Client", *options: str) -> str:
    return " ".join(("authserver clients update", client.id, *options))


def _told(client: dict[str, Any]) -> str:
    may = "may use it" if client["may_use_it"] else "may not use it any more"
    lines = [
        f"{client['client_id']} ({output.printable(client['name'])}): {may}{'' if client['active'] else ', disabled'}"
    ]
    if client["sign_ins"]:
        lines.append(
            f"  {client['sign_ins']} sign-ins of {client['users']} users are on record, "
            f"the last on {output.text(client['last_sign_in'])}; {client['live_sessions']} sessions are alive."
        )
    lines.append(f"  {client['change']}")
    if client["command"]:
        lines.append(f"  $ {client['command']}")
    return "\n".join(lines)
