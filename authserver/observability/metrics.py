"""What is counted and measured, for Prometheus: `metrics.GRANTS.labels("password", "issued").inc()`.

Label values come from short lists of ours, never from a request. Of several worker processes any answers for all
(metric_files.py).
"""

import platform
from collections.abc import Callable
from functools import cache, partial
from typing import Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

import authserver
from authserver.observability import metric_files

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "other"

_AT_ONCE = 50
"""So many are noted at once: a quarter of a millisecond for whoever comes meanwhile."""
_waiting: list[Callable[[], object]] = []

Workers = Literal["livesum", "livemax", "livemin", "livemostrecent"]

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()


def _counter(name: str, help_text: str, *labels: str) -> Counter:
    return Counter(f"authserver_{name}", help_text, labels, registry=REGISTRY)


def _gauge(name: str, help_text: str, *labels: str, workers: Workers = "livesum") -> Gauge:
    """Make a gauge; `workers` says how the values of several worker processes become one."""
    return Gauge(f"authserver_{name}", help_text, labels, registry=REGISTRY, multiprocess_mode=workers)


def _seconds(name: str, help_text: str, *labels: str) -> Histogram:
    bounds = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
    return Histogram(f"authserver_{name}_seconds", help_text, labels, registry=REGISTRY, buckets=bounds)


REQUESTS = _counter("http_requests_total", "Requests answered; 499: the client went away.", "route", "method", "status")
REQUEST_SECONDS = _seconds("http_request_duration", "Time from the request's head to the answer's end.", "route")

GRANTS = _counter(
    "grants_total", "Requests at /token of authenticated clients: issued, or the error.", "grant", "outcome"
)
AUTHORIZATIONS = _counter(
    "authorizations_total", "What /authorize answered: code, login or consent (our pages), or the error.", "outcome"
)
INTROSPECTIONS = _counter("introspections_total", "Answers of /introspect: active or inactive.", "outcome")
REVOCATIONS = _counter("revocations_total", "Tokens revoked at /revoke: access_token or refresh_token.", "kind")
SESSIONS_STARTED = _counter("sessions_started_total", "Sign-ins.")
SESSIONS_REVOKED = _counter("sessions_revoked_total", "Sessions ended before their time.", "reason")
REFRESH_RETRIES = _counter("refresh_retries_total", "Just-used refresh tokens that got their successor once more.")
REFRESH_REUSES = _counter("refresh_reuses_total", "Spent refresh tokens that came back: their session was ended.")
LOGOUT_NOTICES = _counter(
    "logout_notices_total", "Notices of logout sent to clients: delivered, failed (tried again) or given_up.", "outcome"
)
LOGOUT_NOTICES_WAITING = _gauge(
    "logout_notices_waiting", "Notices of logout that are not delivered yet.", workers="livemostrecent"
)

DENYLIST_ANSWERS = _counter(
    "denylist_answers_total", "Who said whether a token is revoked: redis or database.", "source"
)
DENYLIST_WRITES = _counter("denylist_writes_total", "Entries copied to Redis: written or failed.", "outcome")

DENYLIST_TRUSTED = _gauge(
    "denylist_trusted", "1 while live tokens are answered for without the database.", workers="livemin"
)
PROPAGATION_SECONDS = _seconds("revocation_propagation", "From the commit of a revocation until it holds on all nodes.")

BREAKER_OPEN = _gauge(
    "breaker_open", "1 while calls to redis or database are refused.", "dependency", workers="livemax"
)
BREAKER_OPENINGS = _counter("breaker_openings_total", "Times that a breaker opened.", "dependency")

HASHES_QUEUED = _gauge("hashes_queued", "Passwords waiting to be hashed.")
HASHES_RUNNING = _gauge("hashes_running", "Passwords being hashed.")
HASH_SECONDS = _seconds("hash_duration", "Time to hash one password, without the wait.")

PRUNED = _counter("pruned_total", "Rows, and entries in Redis, deleted because they were over.", "kind")
PRUNING_SUCCEEDED_AT = _gauge(
    "pruning_last_success_timestamp_seconds", "When a run last deleted all that is over.", workers="livemax"
)
PRUNING_RUN_SECONDS = _gauge(
    "pruning_last_run_seconds", "How long that run took, its rests included.", workers="livemostrecent"
)

THROTTLED = _counter("throttled_total", "Requests refused with 429.", "kind")
DATABASE_CONNECTIONS = _gauge("database_connections_in_use", "Connections taken from the pool.")
SIGNING_KEYS = _gauge("signing_keys_loaded", "Keys that verify or sign in the worst-off process.", workers="livemin")
SIGNING_KEY_AGE_SECONDS = _gauge(
    "signing_key_age_seconds", "How long the key that signs has been doing so.", "alg", workers="livemax"
)
SIGNING_KEY_NEXT_AT = _gauge(
    "signing_key_next_rotation_timestamp_seconds", "When the next one takes over; 0: never.", "alg", workers="livemax"
)
_BUILD = _gauge("build_info", "Always 1.", "version", "python", workers="livemax")

# A counter that appears only with its first event hides that event from rate().
for _store in ("redis", "database"):
    BREAKER_OPENINGS.labels(_store)
    DENYLIST_ANSWERS.labels(_store)
for _outcome in ("active", "inactive"):
    INTROSPECTIONS.labels(_outcome)
for _outcome in ("written", "failed"):
    DENYLIST_WRITES.labels(_outcome)
for _outcome in ("delivered", "failed", "given_up"):
    LOGOUT_NOTICES.labels(_outcome)


def say_build() -> None:
    """Say which version runs, and on which Python."""
    _BUILD.labels(authserver.__version__, platform.python_version()).set(1)


def soon(note: Callable[[], object]) -> None:
    """Have something noted that happens with every request, within a second: `metrics.soon(COUNTER.inc)`.

    Many in a row take less time than each in the middle of its request (402 µs instead of 421 for an introspection).
    Whoever is killed meanwhile takes with him what he has not noted.
    """
    _waiting.append(note)
    if len(_waiting) >= _AT_ONCE:
        settle()


def settle() -> None:
    """Note what waits."""
    waiting = _waiting[:]
    _waiting.clear()
    for note in waiting:
        note()


def count_request(route: str, method: str, status: int, seconds: float) -> None:
    """Count one answered request; `route` is a template or another constant."""
    soon(partial(_count_request, route, method if method in METHODS else OTHER_METHOD, status, seconds))


def _count_request(route: str, method: str, status: int, seconds: float) -> None:
    _requests(route, method, status).inc()
    _request_seconds(route).observe(seconds)


def exposition(accept: str) -> tuple[bytes, str]:
    """Return all metrics in the text format that fits an Accept header, and its media type."""
    settle()
    registry = REGISTRY
    if metric_files.are_shared():
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


# `labels()` takes a lock and builds a tuple: 1 µs each time.
@cache
def _requests(route: str, method: str, status: int) -> Counter:
    return REQUESTS.labels(route, method, status)


@cache
def _request_seconds(route: str) -> Histogram:
    return REQUEST_SECONDS.labels(route)
