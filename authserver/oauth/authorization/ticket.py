"""The ticket that a request takes along to the sign-in and consent pages: `<issued_at>.<MAC>`.

It proves that this server saw this very request at that second. So a sign-in or a consent since then is the one that
the request has asked for (`prompt`, `max_age`), and no row is needed to remember the request.
"""

from authserver import clock, opaque
from authserver.oauth.authorization.parameters import Parameters
from authserver.settings import Settings

LIFE_SECONDS = 3600


def keep(settings: Settings, parameters: Parameters) -> str:
    """Return the ticket that a request has, if it is good; else one for a request that is seen now.

    It stays the same on all stations of the way: a sign-in must still count after the consent that followed it.
    """
    if parameters.ticket is not None and read(settings, parameters) is not None:
        return parameters.ticket
    now = str(int(clock.now().timestamp()))
    return f"{now}.{_mac(settings, now, parameters)}"


def read(settings: Settings, parameters: Parameters) -> int | None:
    """Return when the request was first seen (seconds since the epoch), if its ticket is good."""
    issued_at, _, mac = (parameters.ticket or "").partition(".")
    if not (issued_at.isascii() and issued_at.isdigit() and len(issued_at) <= 15):
        return None
    age = clock.now().timestamp() - int(issued_at)
    is_genuine = opaque.same(mac, _mac(settings, issued_at, parameters))
    return int(issued_at) if is_genuine and age <= LIFE_SECONDS else None


def _mac(settings: Settings, issued_at: str, parameters: Parameters) -> str:
    key = opaque.derived_key(settings.secret_key.get_secret_value(), "authorization tickets")
    return opaque.b64encode(opaque.mac(key, f"{issued_at}?{parameters.query()}".encode("utf-8", "surrogatepass")))
