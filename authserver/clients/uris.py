"""Which addresses a client may register: where browsers are sent, where it hears of a sign-out, its pages."""

import re
from urllib.parse import SplitResult, urlsplit

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
MAX_CHARACTERS = 2000
_PRINTED = re.compile(r"[!-~]+")
_NEVER = frozenset('#*\\"<>`{}|^')
"""A fragment, a wildcard, and what browsers read otherwise than we do."""


def is_redirect_uri(uri: str) -> bool:
    """Tell whether a browser may be sent to `uri` with an answer (RFC 6749 §3.1.2, RFC 9700 §4.1.3).

    https; http on the person's own machine (RFC 8252 §7.3); or the app's own scheme, which has a dot (RFC 8252 §7.1),
    so that `javascript:` and its like are none.
    """
    parts = _parts(uri)
    if parts is None:
        return False
    return _is_safe_web_address(parts) if parts.scheme in ("http", "https") else "." in parts.scheme


def is_backchannel_uri(uri: str) -> bool:
    """Tell whether notices of logout may be posted to `uri` (Back-Channel Logout §2.2)."""
    parts = _parts(uri)
    return parts is not None and _is_safe_web_address(parts)


def is_page(uri: str) -> bool:
    """Tell whether `uri` is a page that people can be shown a link to."""
    parts = _parts(uri)
    return parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)


def _is_safe_web_address(parts: SplitResult) -> bool:
    is_private = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS)
    return is_private and bool(parts.hostname)


def _parts(uri: str) -> SplitResult | None:
    """Take an absolute URI apart; None if it is none, or one that could be read in two ways."""
    if len(uri) > MAX_CHARACTERS or not _PRINTED.fullmatch(uri) or not _NEVER.isdisjoint(uri):
        return None
    try:
        parts = urlsplit(uri)
        _ = parts.port  # ValueError if it is none
    except ValueError:
        return None
    return parts if parts.scheme and "@" not in parts.netloc else None
