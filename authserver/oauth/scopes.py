"""Which scopes a token gets (RFC 6749 §3.3)."""

import re

from authserver.sessions.browser import OFFLINE

_LIST = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")


def granted(requested: str | None, allowed: list[str]) -> str | None:
    """Return the scope to grant, in the order asked, each once; all that is allowed when none is asked for.

    None when the request is malformed or goes beyond: the whole is refused, nothing is dropped in silence. But who may
    not have `offline_access` is not refused for it (OpenID Connect Core §11).
    """
    if requested is None:
        return " ".join(allowed)
    if not _LIST.fullmatch(requested):
        return None
    names = dict.fromkeys(requested.split(" "))
    if OFFLINE not in allowed:
        names.pop(OFFLINE, None)
    return " ".join(names) if names and set(names) <= set(allowed) else None
