"""Every line is one JSON object, says whose request it belongs to, and holds no secret and nothing unprintable."""

import asyncio
import json
import logging
import re
import subprocess
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from authserver.observability import logs, requests
from authserver.settings import Settings

REFRESH_TOKEN = "authserver_rt_kq8zC2JxX1sT0y7uVhQm3nB5pLrD9wEaFgYiOo4tZc6"
CLIENT_SECRET = "authserver_cs_kq8zC2JxX1sT0y7uVhQm3nB5pLrD9wEaFgYiOo4tZc6"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"

log = logging.getLogger("authserver.tests")
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """What has been printed on stdout since the last call; nothing may be on stderr."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure(Settings(_env_file=None))
    fields = logs.request_fields.set(None)

    def read() -> list[dict[str, Any]]:
        written, complaints = capfd.readouterr()
        assert complaints == ""
        return [json.loads(line) for line in written.splitlines()]

    yield read
    logs.request_fields.reset(fields)
    root.handlers[:], level = before
    root.setLevel(level)


def test_a_line_says_when_how_bad_who_and_what(lines: Lines) -> None:
    log.warning("hello %s", "world", extra={"answer": 42})
    (line,) = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {"level": "WARNING", "logger": "authserver.tests", "event": "hello world", "answer": 42}


def test_a_line_says_whose_request_it_belongs_to(lines: Lines) -> None:
    logs.request_fields.set({"request_id": "r-1", "ip": "192.0.2.7", "client_id": None})
    requests.note(client_id="c-1")
    log.info("a")
    log.info("b", extra={"client_id": "c-2", "ip": None})
    first, second = lines()
    assert (first["request_id"], first["client_id"], first["ip"]) == ("r-1", "c-1", "192.0.2.7")
    assert (second["request_id"], second["client_id"], second["ip"]) == ("r-1", "c-2", "192.0.2.7")
    requests.note(client_id="c" * 10_000)
    log.info("c")
    assert len(lines()[0]["client_id"]) == 128


async def test_requests_at_the_same_time_do_not_mix_their_lines(lines: Lines) -> None:
    async def request(name: str) -> None:
        logs.request_fields.set({"request_id": name, "client_id": None})
        await asyncio.sleep(0)
        requests.note(client_id=f"client of {name}")
        await asyncio.to_thread(log.info, "from a thread of %s", name)

    await asyncio.gather(request("a"), request("b"))
    ours = [line for line in lines() if line["logger"] == log.name]  # the application of other tests goes on meanwhile
    assert {(line["request_id"], line["client_id"], line["event"]) for line in ours} == {
        ("a", "client of a", "from a thread of a"),
        ("b", "client of b", "from a thread of b"),
    }


def test_extras_do_not_overwrite_when_how_bad_who_and_what(lines: Lines) -> None:
    log.info("true", extra={"event": "false", "level": "none", "timestamp": "never", "logger": "nobody"})
    (line,) = lines()
    assert (line["event"], line["level"], line["logger"]) == ("true", "INFO", "authserver.tests")
    assert line["extra_event"] == "false"


@pytest.mark.parametrize(
    "name", ["uvicorn", "uvicorn.error", "alembic.runtime", "sqlalchemy.pool", "asyncio", "py.warnings", "a.stranger"]
)
def test_every_logger_goes_through_once(lines: Lines, name: str) -> None:
    stranger = logging.getLogger(name)
    stranger.addHandler(logging.StreamHandler(sys.stdout))
    stranger.propagate = False
    logs.configure(Settings(_env_file=None))
    stranger.error("something")
    (line,) = lines()
    assert (line["logger"], line["event"]) == (name, "something")


def test_uvicorns_own_access_lines_are_off(lines: Lines) -> None:
    logging.getLogger("uvicorn.access").info('127.0.0.1 - "GET /authorize?code=1 HTTP/1.1" 200')
    assert lines() == []
    assert not logging.getLogger("uvicorn.access").propagate, "or uvicorn would take the time to write them"


def test_handlers_of_others_on_the_root_stay(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    logs.configure(Settings(_env_file=None))
    log.info("seen by both")
    assert [line["event"] for line in lines()] == caplog.messages == ["seen by both"]


@pytest.mark.parametrize(
    "name",
    [
        "aiosqlite",
        "argon2",
        "asyncpg",
        "authlib",
        "authlib.oauth2",
        "joserfc",
        "python_multipart",
        "redis",
        "sqlalchemy",
    ],
)
def test_libraries_that_print_secrets_at_debug_do_not(lines: Lines, name: str) -> None:
    logs.configure(Settings(_env_file=None, debug=True))
    logging.getLogger(name).debug("a whole token response")
    log.debug("ours")
    assert [line["event"] for line in lines()] == ["ours"]


def test_sqlalchemy_does_not_print_statements(lines: Lines) -> None:
    logging.getLogger("sqlalchemy.engine.Engine").info("SELECT …")
    assert lines() == []


@pytest.mark.parametrize(
    "secret",
    [
        REFRESH_TOKEN,
        CLIENT_SECRET,
        JWT,
        JWT.rsplit(".", 1)[0],
        f"Authorization: Bearer {JWT}",
        "authorization: bearer 2YotnFZFEjr1zCsicMWpAA",
        "Authorization: Basic YWxpY2U6dGhlIHBhc3N3b3Jk",
        "grant_type=password&username=alice&password=2YotnFZFEjr1zCsicMWpAA&scope=openid",
        "refresh_token=2YotnFZFEjr1zCsicMWpAA&client_secret=2YotnFZFEjr1zCsicMWpAA",
        "postgresql://authserver:2YotnFZFEjr1zCsicMWpAA@db.example/authserver",
        "redis://:2YotnFZFEjr1zCsicMWpAA@cache.example:6379/0",
    ],
)
def test_what_looks_like_a_secret_is_redacted_wherever_it_is(lines: Lines, secret: str) -> None:
    log.info("in the message: %s", secret)
    log.info(
        "extra", extra={"reason": secret, "nested": {"a": [secret]}, f"key {secret}": 1, "object": ValueError(secret)}
    )
    log.info({"a_dictionary": secret})
    try:
        raise ValueError(f"in an exception: {secret}")
    except ValueError:
        log.exception("caught")
    for line in lines():
        text = json.dumps(line)
        assert "[redacted]" in text
        for part in ("kq8zC2JxX1s", "eyJ", "YWxpY2U6", "2YotnFZFEjr1z"):
            assert part not in text


def test_fields_named_like_secrets_are_redacted(lines: Lines) -> None:
    log.info("x", extra={"password": "correct horse battery staple", "token": 'a"b', "client_secret": ["s"]})
    (line,) = lines()
    assert line["password"] == line["token"] == line["client_secret"] == "[redacted]"


@pytest.mark.parametrize(
    "harmless",
    ["Basic authentication failed", 'Basic realm="authserver"', "bearer token missing", "alice@example.com", "/token"],
)
def test_plain_words_stay(lines: Lines, harmless: str) -> None:
    log.info("%s", harmless)
    assert lines()[0]["event"] == harmless


@pytest.mark.parametrize(
    "nasty",
    [
        'a\r\n{"level": "INFO", "event": "forged"}',
        "\x1b[2J\x1b]0;owned\x07",
        "\x7f",
        "\x80\x9b31m\x85",
        "\u2028\u2029\u202e\ufeff\u200b",
        "\x00",
        "grüße \U0001f511",
    ],
)
def test_one_line_of_printable_ascii_whatever_comes(
    nasty: str, capfd: pytest.CaptureFixture[str], lines: Lines
) -> None:
    log.info(nasty, extra={"value": nasty, nasty: nasty, "nested": {nasty: [nasty]}})
    written = capfd.readouterr().out
    assert re.fullmatch(r"[ -~]+\n", written)
    line = json.loads(written)
    assert line["event"] == line["value"] == line[nasty] == line["nested"][nasty][0] == nasty


def test_values_that_are_not_json_are_written_all_the_same(lines: Lines) -> None:
    circle: list[Any] = []
    circle.append(circle)
    identity = uuid.uuid4()
    log.info("typed", extra={"id": identity, "hidden": SecretStr("s3cret"), "raw": b"\xff", "nothing": float("nan")})
    log.info(
        "odd", extra={"surrogate": "\ud800", "huge": 1 << 80, "circle": circle, "keys": {(1, 2): 3}, "status": 200}
    )
    typed, odd = lines()
    assert (typed["id"], typed["hidden"], typed["nothing"]) == (str(identity), "**********", None)
    assert (odd["status"], odd["surrogate"], odd["huge"]) == (200, "\\ud800", str(1 << 80))


def test_an_exception_is_one_string_and_not_endless(lines: Lines) -> None:
    def dive(depth: int) -> None:
        if depth == 0:
            raise ValueError("x" * 30_000 + " the end")
        dive(depth - 1)

    try:
        dive(10)
    except ValueError:
        log.exception("deep", stack_info=True)
    (line,) = lines()
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("the end")
    assert len(line["exception"]) < 17_000
    assert line["stack"].startswith("Stack")


def test_a_record_that_cannot_be_written_is_reported_in_json(lines: Lines) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if isinstance(handler, logs._Handler)]  # pytest's raise
    log.info("%d %d", "no number")  # noqa: PLE1206
    (line,) = lines()
    assert (line["event"], line["template"]) == ("log_record_unusable", "%d %d")


def test_warnings_are_lines_too(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logs.configure(Settings(_env_file=None))
        warnings.warn("old-fashioned", DeprecationWarning, stacklevel=1)
    logging.captureWarnings(False)
    (line,) = lines()
    assert line["logger"] == "py.warnings"
    assert "old-fashioned" in line["event"]


def test_what_nobody_caught_is_a_line_too() -> None:
    program = """
import asyncio, sys, threading, warnings
from authserver.observability import logs
from authserver.settings import Settings

logs.configure(Settings(_env_file=None))
warnings.warn("a warning")
thread = threading.Thread(target=lambda: 1 / 0, name="t-1")
thread.start()
thread.join()

class Bad:
    def __del__(self):
        raise KeyError("unraisable")
Bad()

async def main():
    task = asyncio.ensure_future(asyncio.sleep(0, ValueError()))
    asyncio.get_running_loop().call_soon(lambda: [][1])
    await asyncio.sleep(0.01)
asyncio.run(main())
raise SystemError("of the main thread")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    written = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["logger"], line["level"]) for line in written] == [
        ("py.warnings", "WARNING"),
        ("authserver.observability.logs", "CRITICAL"),
        ("authserver.observability.logs", "ERROR"),
        ("asyncio", "ERROR"),
        ("authserver.observability.logs", "CRITICAL"),
    ]
    assert [line["exception"].splitlines()[-1] for line in written[1:]] == [
        "ZeroDivisionError: division by zero",
        "KeyError: 'unraisable'",
        "IndexError: list index out of range",
        "SystemError: of the main thread",
    ]


def test_hooks_of_others_stay(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = [(sys, "excepthook"), (threading, "excepthook"), (sys, "unraisablehook")]
    for module, name in hooks:
        monkeypatch.setattr(module, name, test_hooks_of_others_stay)
    logs.configure(Settings(_env_file=None))
    assert {getattr(module, name) for module, name in hooks} == {test_hooks_of_others_stay}
    assert lines() == []


def test_a_cancelled_request_needs_no_traceback_of_uvicorn(lines: Lines) -> None:
    uvicorn_log = logging.getLogger("uvicorn.error")
    for fault in (asyncio.CancelledError(), ValueError()):
        uvicorn_log.error("Exception in ASGI application", exc_info=fault)
    (line,) = lines()
    assert line["exception"] == "ValueError"


def test_commands_may_have_their_lines_on_stderr(lines: Lines, capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings(_env_file=None), stream="stderr")
    log.info("aside")
    written, aside = capfd.readouterr()
    assert written == ""
    assert json.loads(aside)["event"] == "aside"


async def test_the_line_of_a_request_is_the_same_whoever_listens(
    client: httpx.AsyncClient, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[logging.LogRecord] = []
    other = logging.Handler()
    monkeypatch.setattr(other, "emit", heard.append)

    def newest() -> dict[str, Any]:
        line = [line for line in lines() if line["event"] == "request"][-1]
        return {name: value for name, value in line.items() if name not in ("timestamp", "duration_ms", "request_id")}

    root = logging.getLogger()
    ours = [handler for handler in root.handlers if isinstance(handler, logs._Handler)]
    monkeypatch.setattr(root, "handlers", ours)
    await client.get("/health/live")
    await asyncio.sleep(0)  # lines of one turn of the event loop are written together, at its end
    alone = newest()
    monkeypatch.setattr(root, "handlers", [*ours, other])
    await client.get("/health/live")
    assert list(newest().items()) == list(alone.items())  # in the same order, too
    assert [record.message for record in heard if record.message == "request"] == ["request"]
