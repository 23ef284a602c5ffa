"""The generator: wrk, a C program, with requests that are made beforehand; its own processor time is measured too.

wrk corrects its percentiles for coordinated omission.
"""

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.servers import LOOPBACK

CONNECTIONS = 32
_SCRIPT = Path(__file__).with_name("requests.lua")


class NoGenerator(Exception):
    """wrk is not installed."""


@dataclass(frozen=True)
class Load:
    """What is sent: `requests` in turn, or, if there is `around`, refresh tokens between its two halves."""

    requests: Sequence[bytes]
    around: tuple[bytes, bytes] | None = None
    may_repeat: bool = True
    """Whether sending a request again is the same operation."""

    def first(self) -> bytes:
        """Return one whole request, to see what it is answered."""
        before, after = self.around or (b"", b"")
        return before + self.requests[0] + after

    def rest(self) -> "Load":
        """Return it without that one, which is used up."""
        return self if self.may_repeat else Load(self.requests[1:], self.around, may_repeat=False)


@dataclass(frozen=True)
class Run:
    """What wrk saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    lost: int
    sent_again: int
    processor_seconds: float
    """wrk's own."""


def http(
    method: str,
    path: str,
    *,
    form: dict[str, str] | None = None,
    document: object = None,
    basic: tuple[str, str] | None = None,
    bearer: str | None = None,
) -> bytes:
    """Return a whole HTTP/1.1 request for a connection that is kept."""
    headers, body = [f"{method} {path} HTTP/1.1", "Host: auth.example"], b""
    if basic:
        headers.append("Authorization: Basic " + base64.b64encode(":".join(basic).encode()).decode())
    if bearer:
        headers.append(f"Authorization: Bearer {bearer}")
    if form is not None:
        body = urlencode(form).encode()
        headers.append("Content-Type: application/x-www-form-urlencoded")
    if document is not None:
        body = json.dumps(document).encode()
        headers.append("Content-Type: application/json")
    if method == "POST":
        headers.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*headers, "", ""]).encode() + body


def forms(path: str, tokens: Sequence[str], basic: tuple[str, str], *, may_repeat: bool = True) -> Load:
    """Send each token in a form of its own."""
    return Load([http("POST", path, form={"token": token}, basic=basic) for token in tokens], may_repeat=may_repeat)


def chain(path: str, tokens: Sequence[str], basic: tuple[str, str], **more: str) -> Load:
    """Refresh with each token; an answer brings the token of a later request."""
    form = {"refresh_token": tokens[0], "grant_type": "refresh_token", **more}
    before, after = http("POST", path, form=form, basic=basic).split(tokens[0].encode())
    return Load([token.encode() for token in tokens], around=(before, after), may_repeat=False)


def ask(port: int, request: bytes) -> tuple[int, Any]:
    """Send one request; return the status and the JSON document of the answer."""
    with socket.create_connection((LOOPBACK, port), timeout=10) as connection:
        connection.sendall(request)
        answer = HTTPResponse(connection)
        answer.begin()
        body = answer.read()
    return answer.status, json.loads(body) if body[:1] in (b"{", b"[") else body.decode()


async def drive(port: int, load: Load, seconds: float, *, connections: int = CONNECTIONS) -> Run:
    """Have wrk keep so many connections busy for a whole number of seconds."""
    return await asyncio.to_thread(_drive, port, load, max(1, round(seconds)), connections)


def _drive(port: int, load: Load, seconds: int, connections: int) -> Run:
    program = shutil.which("wrk")
    if program is None:
        raise NoGenerator("wrk is missing (apt install wrk, brew install wrk)")
    with tempfile.NamedTemporaryFile(prefix="authserver-bench-") as file:
        file.write(b"\0".join([*(load.around or ()), *load.requests]))
        file.flush()
        # One thread: it sends more than two workers can answer, and a chain needs to share nothing.
        command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(_SCRIPT),
                   f"http://{LOOPBACK}:{port}/", "--", file.name, "chain" if load.around else "list"]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    last = output.rstrip().rpartition("\n")[2]
    if process.returncode != 0 or not last.startswith("{"):
        raise RuntimeError(f"wrk failed:\n{output}")
    return Run(**json.loads(last), processor_seconds=usage.ru_utime + usage.ru_stime)
