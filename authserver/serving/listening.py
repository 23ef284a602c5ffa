"""Taking the port before anything else is done, so that a port in use is known at once."""

import errno
import socket

Sockets = list[socket.socket]


def sockets(host: str, port: int) -> Sockets:
    """Bind a socket to each address that `host` stands for; OSError if none can be had or one is taken.

    Connections are refused until the application is up: only then somebody listens.
    """
    bound: Sockets = []
    missing: OSError | None = None
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in addresses):
        try:
            bound.append(_bind(family, (address[0], port, *address[2:])))
        except OSError as refused:
            if refused.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:  # "localhost" where there is no IPv6
                missing = refused
                continue
            for other in bound:
                other.close()
            raise
        port = bound[0].getsockname()[1]
    if not bound:
        raise missing or OSError(errno.EADDRNOTAVAIL, "no such address")
    return bound


def url(host: str, port: int) -> str:
    """Return where somebody on this machine reaches the server."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - not bound here
    if ":" in reachable and not reachable.startswith("["):
        reachable = f"[{reachable}]"
    return f"http://{reachable}:{port}"


def _bind(family: int, address: tuple[str | int, ...]) -> socket.socket:
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # or it would take the port from its IPv4 brother
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(address)
    except OSError:
        taken.close()
        raise
    return taken
