"""What may stand in REDIS_URL, and that a fault is named without the password."""

import pytest

from authserver import redis_url, settings
from authserver.redis_url import Kind
from authserver.settings import SettingsError

GOOD = [
    ("redis://host", Kind.STANDALONE, [("host", 6379)], {"db": 0}),
    ("redis://:p%40ss@host:1/7", Kind.STANDALONE, [("host", 1)], {"db": 7, "password": "p@ss"}),
    ("rediss://host?ssl_check_hostname=no", Kind.STANDALONE, [("host", 6379)], {"db": 0, "ssl_check_hostname": False}),
    ("redis://[::1]:6380", Kind.STANDALONE, [("::1", 6380)], {"db": 0}),
    ("redis+sentinel://a,b:1/main", Kind.SENTINEL, [("a", 26379), ("b", 1)], {"db": 0}),
    ("redis+sentinel://u:p@a/main/2", Kind.SENTINEL, [("a", 26379)], {"db": 2, "username": "u", "password": "p"}),
    ("redis+cluster://a,[::1]:7,c", Kind.CLUSTER, [("a", 6379), ("::1", 7), ("c", 6379)], {"db": 0}),
    ("rediss+cluster://a/0?ssl_ca_certs=/ca", Kind.CLUSTER, [("a", 6379)], {"db": 0, "ssl_ca_certs": "/ca"}),
]
BAD = {
    "http://:secret@host": "must be a host",
    "redis+other://:secret@host": "must be a host",
    "redis://": "must be a host",
    "redis://:secret@a,b": "several hosts",
    "redis://:secret@host:port": "host or host:port",
    "redis://:sec/ret@host": "host or host:port",
    "redis://:secret@host/name": "number of a database",
    "redis://:secret@host?socket_timeout=60": "does not belong there",
    "redis://:secret@host?ssl_ca_certs=/ca": "does not belong there",
    "rediss://:secret@host?ssl_cert_reqs=sometimes": "unusable value",
    "redis://:secret@host?sentinel_password=secret": "does not belong there",
    "redis+sentinel://:secret@a,b": "names no service",
    "redis+sentinel://:secret@a,b/": "names no service",
    "redis+sentinel://:secret@a,,b/main": "host or host:port",
    "redis+sentinel://:secret@a/main/x": "number of a database",
    "redis+cluster://:secret@a,b/1": "which a cluster does not have",
}


@pytest.mark.parametrize(("url", "kind", "addresses", "options"), GOOD)
def test_a_url_is_read(url: str, kind: Kind, addresses: list[tuple[str, int]], options: dict[str, object]) -> None:
    read = redis_url.parse(url)
    assert (read.kind, list(read.addresses), read.options) == (kind, addresses, options)
    assert read.is_tls == url.startswith("rediss")


def test_sentinels_have_a_user_of_their_own() -> None:
    url = "rediss+sentinel://u:p@a/main?sentinel_username=v&sentinel_password=q&ssl_ca_certs=/ca&client_name=n"
    read = redis_url.parse(url)
    assert read.service == "main"
    assert read.guide_options == {"username": "v", "password": "q", "ssl_ca_certs": "/ca"}
    assert read.options == {"username": "u", "password": "p", "ssl_ca_certs": "/ca", "client_name": "n", "db": 0}
    assert "password" not in repr(read)


@pytest.mark.parametrize(("url", "fault"), BAD.items())
def test_a_faulty_url_is_refused_in_one_line_without_the_password(url: str, fault: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings.load(redis_url=url)
    message = str(refused.value)
    assert fault in message
    assert message.startswith("AUTHSERVER_REDIS_URL: ")
    assert "\n" not in message
    assert "sec" not in message
    assert refused.value.__cause__ is None
