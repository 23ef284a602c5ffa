"""What REDIS_URL says: one Redis, one that sentinels watch over, or a cluster; where, and how to speak with it."""

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.exceptions import RedisError

Address = tuple[str, int]
"""Host and port."""

_WRITTEN = re.compile(
    r"(?P<scheme>rediss?)(?:\+(?P<kind>sentinel|cluster))?://"
    r"(?P<user>[^/?#]*@)?(?P<hosts>[^/?#]+)(?:/(?P<path>[^?#]*))?(?:\?(?P<query>[^#]*))?"
)
_SCHEMES = "redis://, rediss://, redis+sentinel://, rediss+sentinel://, redis+cluster:// or rediss+cluster://"
_TLS_OPTION = re.compile("ssl_(ca_certs|ca_path|certfile|keyfile|password|cert_reqs|check_hostname|ciphers)")
_SENTINEL_OPTION = re.compile("sentinel_(username|password)")


class Kind(Enum):
    """How the master is found."""

    STANDALONE = "standalone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True)
class RedisUrl:
    """A REDIS_URL, read; the options are those of redis-py's connections."""

    kind: Kind
    addresses: tuple[Address, ...]
    """Of the Redis, of the sentinels, or of some nodes of the cluster."""
    service: str
    """The name that the sentinels know the master by."""
    is_tls: bool
    options: dict[str, Any] = field(repr=False)
    """For connections to the master."""
    guide_options: dict[str, Any] = field(repr=False)
    """For connections to those who know where the master is."""


def parse(url: str) -> RedisUrl:
    """Read a URL; ValueError says what is wrong with it, without any part of it: it may hold a password."""
    written = _WRITTEN.fullmatch(url)
    if written is None:
        raise ValueError(f"must be a host, or hosts with commas between, after {_SCHEMES}")
    kind, is_tls = Kind(written["kind"] or "standalone"), written["scheme"] == "rediss"
    addresses = tuple(_address(host, 26379 if kind is Kind.SENTINEL else 6379) for host in written["hosts"].split(","))
    if kind is Kind.STANDALONE and len(addresses) > 1:
        raise ValueError("names several hosts, which only sentinels and clusters have")
    service, database = _path(kind, written["path"] or "")
    options, sentinel_options = _options(written["user"] or "", written["query"] or "", kind, is_tls)
    options["db"] = database
    tls_options = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if kind is Kind.SENTINEL:
        guide_options = tls_options | sentinel_options
    else:
        guide_options = {name: value for name, value in options.items() if name not in ("db", "client_name")}
    read = RedisUrl(kind, addresses, service, is_tls, options, guide_options)
    try:
        (SSLConnection if is_tls else Connection)(**options)
    except (RedisError, TypeError, ValueError):
        raise ValueError("has an option with an unusable value after the question mark") from None
    return read


def _address(host: str, default_port: int) -> Address:
    try:
        read: dict[str, Any] = dict(parse_url(f"redis://{host}"))
        return read["host"], read.get("port", default_port)
    except (KeyError, ValueError):
        raise ValueError("has a host that is not host or host:port; : / ? # @ in a password are written %XX") from None


def _path(kind: Kind, path: str) -> tuple[str, int]:
    """Return the service's name and the number of the database."""
    service = ""
    if kind is Kind.SENTINEL:
        service, _, path = path.partition("/")
        if not service:
            raise ValueError("names no service: redis+sentinel://host:26379,host:26379/service")
    if not re.fullmatch(r"\d{0,6}", path, re.ASCII):
        raise ValueError("has a path that is not the number of a database")
    database = int(path or 0)
    if kind is Kind.CLUSTER and database:
        raise ValueError("has the number of a database, which a cluster does not have")
    return service, database


def _options(user: str, query: str, kind: Kind, is_tls: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options for Redis, and those for sentinels."""
    try:
        read: dict[str, Any] = dict(parse_url(f"redis://{user}host?{query}"))
    except ValueError:
        raise ValueError("has an option with an unusable value after the question mark") from None
    del read["host"]
    options, sentinel_options = {}, {}
    for name, value in read.items():
        if kind is Kind.SENTINEL and _SENTINEL_OPTION.fullmatch(name):
            sentinel_options[name.removeprefix("sentinel_")] = value
        elif name in ("username", "password", "client_name") or (is_tls and _TLS_OPTION.fullmatch(name)):
            options[name] = value
        else:
            raise ValueError("has an option after the question mark that does not belong there")
    return options, sentinel_options
