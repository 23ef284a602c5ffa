"""Logs: one JSON object a line, from every logger of the process, with nothing secret and nothing unprintable in it."""

import json
import logging
import re
import sys
import threading
import time
from asyncio import AbstractEventLoop, CancelledError, get_running_loop
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Literal, TextIO

import orjson
from pythonjsonlogger.core import RESERVED_ATTRS, BaseJsonFormatter

from authserver.settings import Settings

log = logging.getLogger(__name__)

request_fields: ContextVar[dict[str, Any] | None] = ContextVar("request_fields", default=None)
"""What each line says of the request that it belongs to: request_id, ip, client_id, user_id, session_id."""

# At DEBUG these write whole token responses, SQL parameters, connection strings or bodies.
_NEVER_BELOW = {
    logging.WARNING: ("httpcore", "httpx", "sqlalchemy"),
    logging.INFO: (
        "aiosqlite", "alembic", "argon2", "asyncpg", "authlib", "joserfc", "limits", "multipart", "python_multipart",
        "redis", "urllib3", "uvicorn",
    ),
}  # fmt: skip
_FIXED = frozenset({"timestamp", "level", "logger", "event", "exception", "stack"})
_SECRET_FIELDS = frozenset(
    {
        "access_token", "assertion", "authorization", "client_assertion", "client_secret", "code", "code_verifier",
        "cookie", "current_password", "id_token", "new_password", "password", "refresh_token", "secret", "secret_key",
        "token",
    }
)  # fmt: skip
_REDACTED = "[redacted]"
_MAX_EXCEPTION = 16_000

# The second line of defence: nothing should come here that looks like this. A match never holds a quote or a backslash,
# so what is left is JSON as before.
_SECRET = re.compile(
    r"authserver_[a-z]{2}_[\w-]+"  # our own tokens and client secrets
    r"|eyJ[\w-]{5,}[\w.-]*"  # JWT, JWE
    r"|\b((?i:bearer|basic) +)(?![a-z]+\b)[\w.~+/=-]{6,}"
    r"|((?:password|secret|token|assertion)=)[^&\s\"\\]+"  # a form
    r"|(://)[^/\s\"\\@]*(?=@)"  # the credentials in a URL
)
_SECRET_HINTS = ("authserver_", "eyj", "bearer ", "basic ", "password=", "secret=", "token=", "assertion=", "@")
_NOT_PLAIN = re.compile("[^ -~]+")


class _Formatter(BaseJsonFormatter):
    """python-json-logger with our fields, orjson and redaction."""

    def __init__(self) -> None:
        super().__init__()
        self._reserved = frozenset({*RESERVED_ATTRS, "taskName", "color_message"})

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; what python-json-logger does for messages of other forms costs 10 µs, so not for ours."""
        if record.args or record.exc_info or record.stack_info or not isinstance(record.msg, str):
            return super().format(record)
        record.message = record.msg
        log_data: dict[str, Any] = {}
        self.add_fields(log_data, record, {})
        return self.jsonify_log_record(log_data)

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        log_data["timestamp"] = _timestamp(record.created)
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["event"] = record.message
        if request := request_fields.get():
            log_data.update(request)
        reserved = self._reserved
        for key, value in record.__dict__.items():
            if key not in reserved:
                _add(log_data, key, value)
        for key, value in message_dict.items():
            if key == "exc_info":
                log_data["exception"] = _shortened(str(value))
            elif key == "stack_info":
                log_data["stack"] = _shortened(str(value))
            else:
                _add(log_data, str(key), value)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        try:
            line = orjson.dumps(log_data, default=str).decode()
        except TypeError:  # a lone surrogate, a 65-bit number, a circle, a key that is no string
            line = orjson.dumps({_text(key): _plain(value) for key, value in log_data.items()}).decode()
        if not line.isascii() or "\x7f" in line:
            line = _NOT_PLAIN.sub(_escaped, line)
        lowered = line.lower()
        for hint in _SECRET_HINTS:
            if hint in lowered:
                return _SECRET.sub(_redacted, line)
        return line


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to what is the process' stdout (or stderr) at that moment."""

    def __init__(self, stream: Literal["stdout", "stderr"]) -> None:
        logging.Handler.__init__(self)
        self._name_of_stream = stream
        self._lines = _Formatter()
        self._waiting: list[dict[str, Any]] = []
        self.setFormatter(self._lines)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """The stream, looked up each time: others may have replaced it."""
        return getattr(sys, self._name_of_stream)  # type: ignore[no-any-return]

    def write(self, log_data: dict[str, Any], loop: AbstractEventLoop) -> None:
        """Write a line of fields that are in order already, together with all others of this turn of the event loop."""
        if not self._waiting:
            loop.call_soon(self.flush)
        self._waiting.append(log_data)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, after the lines that wait."""
        if self._waiting:
            self.flush()
        super().emit(record)

    def flush(self) -> None:
        """Write the lines that wait; made one after the other they take less time than each in its request."""
        with self.lock or nullcontext():
            waiting, self._waiting = self._waiting, []
            lines = [self._lines.jsonify_log_record(log_data) for log_data in waiting]
            with suppress(OSError, ValueError):  # the stream is gone: nobody is left to tell
                if lines:
                    self.stream.write(self.terminator.join([*lines, ""]))
                self.stream.flush()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say in a line of JSON that a record could not be written, instead of a traceback."""
        reason = sys.exception()
        fault = {"level": "ERROR", "logger": record.name, "event": "log_record_unusable", "template": str(record.msg)}
        with suppress(OSError, ValueError):  # the stream itself is gone: there is nobody left to tell
            self.stream.write(json.dumps({**fault, "reason": type(reason).__name__}) + self.terminator)


def request(log: logging.Logger, fields: dict[str, Any]) -> None:
    """Write the line of an answered request: what `log.info("request", extra=fields)` writes, at half the price.

    Anybody else who listens to the log hears it in that way.
    """
    if not log.isEnabledFor(logging.INFO):
        return
    handlers = logging.getLogger().handlers
    if len(handlers) == 1 and isinstance(handlers[0], _Handler):
        fixed = {"timestamp": _timestamp(time.time()), "level": "INFO", "logger": log.name, "event": "request"}
        handlers[0].write({**fixed, **(request_fields.get() or {}), **fields}, get_running_loop())
    else:
        log.info("request", extra=fields)


def configure(settings: Settings, *, stream: Literal["stdout", "stderr"] = "stdout") -> None:
    """Send everything that this process has to say through one handler; may be called again.

    `stream` is stderr for commands whose stdout is their answer.
    """
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _Handler) or getattr(handler, "stream", None) in {sys.stdout, sys.stderr}:
            root.removeHandler(handler)
    root.addHandler(_Handler(stream))
    level = logging.DEBUG if settings.debug else logging.getLevelNamesMapping()[settings.log_level]
    root.setLevel(level)
    for name in list(root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.disabled = False
    for lowest, names in _NEVER_BELOW.items():
        for name in names:
            logging.getLogger(name).setLevel(max(level, lowest))
    # Its lines carry query strings; ours (requests.py) do not.
    logging.getLogger("uvicorn.access").propagate = False
    logging.getLogger("uvicorn.error").filters[:] = [_is_news]
    logging.captureWarnings(True)
    # What our lines do not say need not be found out (logging's documentation, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    _catch_uncaught()


def _is_news(record: logging.LogRecord) -> bool:
    """Tell uvicorn's lines worth having from its traceback for a request that was cancelled (requests.py notes 499)."""
    return not (isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], CancelledError))


def _catch_uncaught() -> None:
    """Log what nobody caught; hooks that somebody else has set (a debugger, pytest) stay."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _uncaught_in_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], exception: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exception, traceback)
    else:
        log.critical("uncaught_exception", exc_info=(kind, exception, traceback))


def _uncaught_in_thread(uncaught: threading.ExceptHookArgs) -> None:
    exception = uncaught.exc_value or uncaught.exc_type()
    thread = uncaught.thread.name if uncaught.thread else None
    details = (uncaught.exc_type, exception, uncaught.exc_traceback)
    log.critical("uncaught_exception", exc_info=details, extra={"thread_name": thread})


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    exception = unraisable.exc_value or unraisable.exc_type()
    details = (unraisable.exc_type, exception, unraisable.exc_traceback)
    log.error("unraisable_exception", exc_info=details, extra={"where": repr(unraisable.object)})


def _add(log_data: dict[str, Any], key: str, value: Any) -> None:
    if value is None and key in log_data:  # what is not known here may be known of the request
        return
    if key in _SECRET_FIELDS:
        value = _REDACTED
    log_data[f"extra_{key}" if key in _FIXED else key] = value


def _timestamp(seconds: float) -> str:
    """Return a time in RFC 3339's form, UTC, to the microsecond."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1_000_000):06d}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    """Return a time to the second (RFC 3339, UTC), without its end."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _shortened(text: str) -> str:
    """Cut a long traceback in its middle: it ends with what happened."""
    if len(text) <= _MAX_EXCEPTION:
        return text
    half = _MAX_EXCEPTION // 2
    return f"{text[:half]}\n[…]\n{text[-half:]}"


def _plain(value: object) -> object:
    if isinstance(value, str):
        return _text(value)
    try:
        orjson.dumps(value, default=str)
    except TypeError:
        return ascii(value)
    return value


def _text(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def _escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _redacted(match: re.Match[str]) -> str:
    return "".join(group or "" for group in match.groups()) + _REDACTED
