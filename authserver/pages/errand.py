"""What somebody came to a page for: an application that sent them to /authorize, or their own account."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse

from authserver import services
from authserver.clients.models import Client
from authserver.text import is_clean

_SAFE = re.compile(r"[!-\[\]-~]*")
"""Printable ASCII without the backslash, which browsers take for a slash."""
_PASSED_ON = ("continue", "client_id", "login_hint", "ui_locales", "prompt")


@dataclass(frozen=True)
class Errand:
    """Where somebody goes on afterwards, and for which application."""

    base_path: str
    destination: str | None
    """A path of ours; None: the account page."""
    client: Client | None
    query: dict[str, str]
    """The part of the page's query that its links pass on."""

    @property
    def leads_away(self) -> bool:
        """Tell whether an application waits at its end."""
        return self.destination is not None and self.destination.startswith(f"{self.base_path}/authorize?")

    @property
    def asking_client_id(self) -> str | None:
        """The client of the request at its end."""
        query = urlsplit(self.destination or "").query if self.leads_away else ""
        return parse_qs(query).get("client_id", [None])[0]

    @property
    def is_choice(self) -> bool:
        """Tell whether the application wants people to choose between accounts."""
        return self.query.get("prompt") == "select_account"

    def done(self) -> RedirectResponse:
        """Send the browser on."""
        target = self.destination or f"{self.base_path}/account"
        return RedirectResponse(target, 303, {"Cache-Control": "no-store"})

    def to_login(self) -> RedirectResponse:
        """Send somebody who is not signed in (any more) to do that first."""
        query = urlencode({name: value for name, value in self.query.items() if name != "prompt"})
        return RedirectResponse(f"{self.base_path}/login?{query}", 303, {"Cache-Control": "no-store"})

    def refused(self, what: str) -> str | None:
        """Return where the browser goes when the person wants none of it; None if nobody waits for that."""
        return f"{self.destination}&refused={what}" if self.leads_away else None

    @property
    def chosen(self) -> str | None:
        """Return where somebody goes who chooses the account of this browser; None where there is nothing to choose."""
        return f"{self.destination}&chosen=1" if self.is_choice and self.leads_away else None

    def link(self, path: str, **more: str) -> str:
        """Return the address of another page for the same errand."""
        query = urlencode({**self.query, **more})
        return f"{self.base_path}{path}" + (f"?{query}" if query else "")


async def of(request: Request) -> Errand:
    """Return what the query of a page says."""
    house = services.of(request)
    base_path = house.settings.base_path
    query = {name: request.query_params[name] for name in _PASSED_ON if name in request.query_params}
    client_id = query.get("client_id", "")
    client = await house.clients.find_active(client_id) if client_id and is_clean(client_id) else None
    return Errand(base_path, destination(base_path, query.get("continue", "")), client, query)


def destination(base_path: str, wanted: str) -> str | None:
    """Return a `continue` that leads to /authorize or the account page of this origin; None for any other."""
    path, mark, _ = wanted.partition("?")
    is_ours = (path == f"{base_path}/authorize" and mark) or path.partition("#")[0] == f"{base_path}/account"
    return wanted if is_ours and _SAFE.fullmatch(wanted) else None
