"""Whom an access token is for, where a client asks for some of its resources only (RFC 8707)."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from authserver.oauth import errors
from authserver.oauth.errors import Refusal


def granted(resources: str | None, allowed: Sequence[str]) -> list[str] | None | Refusal:
    """Return the resources asked for, separated by spaces; None for all when none is; the refusal of any other."""
    if resources is None:
        return None
    names = list(dict.fromkeys(resources.split(" ")))
    return names if set(names) <= set(allowed) and all(map(_is_resource, names)) else errors.INVALID_TARGET


def _is_resource(name: str) -> bool:
    """Tell whether it is an absolute URI without fragment (§2)."""
    try:
        return bool(urlsplit(name).scheme) and "#" not in name
    except ValueError:
        return False
