"""Whom an access token is for, where a client asks for some of its resources only (RFC 8707)."""

from urllib.parse import urlsplit

from authserver.clients.models import Client
from authserver.oauth import errors
from authserver.oauth.errors import Refusal


def granted(resources: str | None, allowed: list[str]) -> list[str] | Refusal:
    """Return the resources asked for, separated by spaces, or all when none is; the refusal of any other."""
    if resources is None:
        return allowed
    names = list(dict.fromkeys(resources.split(" ")))
    return names if set(names) <= set(allowed) and all(map(_is_resource, names)) else errors.INVALID_TARGET


def of(client: Client, audience: list[str] | None) -> list[str]:
    """Return the audience of a session: its own if it has one, else the client's."""
    return client.audience if audience is None else audience


def _is_resource(name: str) -> bool:
    """Tell whether it is an absolute URI without fragment (§2)."""
    try:
        return bool(urlsplit(name).scheme) and "#" not in name
    except ValueError:
        return False
