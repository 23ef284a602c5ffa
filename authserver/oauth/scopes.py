"""Which scopes a token gets (RFC 6749 §3.3)."""

import re

_LIST = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")


def granted(requested: str | None, allowed: list[str]) -> str | None:
    """Return the scope to grant, in the order asked, each once; all that is allowed when none is asked for.

    None when the request is malformed or goes beyond: the whole is refused, nothing is dropped in silence.
    """
    if requested is None:
        return " ".join(allowed)
    if not _LIST.fullmatch(requested):
        return None
    names = list(dict.fromkeys(requested.split(" ")))
    return " ".join(names) if set(names) <= set(allowed) else None
