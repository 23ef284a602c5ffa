"""Where the answer may go: only to an address that the client has registered (RFC 9700 §2.1, RFC 8252 §7.3)."""

import re

from authserver.clients.models import Client

# No names and no other spellings of these two: what merely looks like loopback is somebody else's.
_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]{1,5})?(?=[/?]|\Z)")


def choose(client: Client, parameters: dict[str, str]) -> str | None:
    """Return the redirect URI of a request, None if it has none that is sound.

    It may be left out where OpenID Connect does not ask for it and there is no choice.
    """
    requested = parameters.get("redirect_uri")
    if requested is None:
        is_openid = "openid" in parameters.get("scope", "").split(" ")
        return client.redirect_uris[0] if len(client.redirect_uris) == 1 and not is_openid else None
    return requested if any(_is_same(requested, registered) for registered in client.redirect_uris) else None


def _is_same(requested: str, registered: str) -> bool:
    """Compare character by character; on loopback the port may differ, which an app learns only when it starts."""
    if requested == registered:
        return True
    is_loopback = _LOOPBACK.match(requested) and _LOOPBACK.match(registered)
    return bool(is_loopback) and _LOOPBACK.sub(r"\1", requested) == _LOOPBACK.sub(r"\1", registered)
