"""`authserver serve` as a process: how it starts, what it prints, how it ends."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families as parse
from starlette.types import Receive, Scope, Send

from authserver import health
from authserver.serving import connection, listening
from tests import application
from tests.application import Program
from tests.servers import LOOPBACK
from tests.stores import Backend, Stores

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")]
Serve = Callable[..., Awaitable[Program]]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def on_one_backend(backend: Backend) -> None:
    """Have the parametrisation above apply to all: the store makes no difference here."""


@pytest.fixture
async def start(tmp_path: Path, databases: Stores) -> AsyncIterator[Start]:
    """Start `authserver serve` with defaults on a database of its own."""
    own = {"AUTHSERVER_DATABASE_URL": await databases.new_database("sqlite")}
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, path: str = "") -> subprocess.Popen[str]:
        environment = application.environment(own)
        if path:
            environment["PYTHONPATH"] = f"{path}:{environment['PYTHONPATH']}"
        process = subprocess.Popen(
            [sys.executable, "-m", "authserver", "serve", *arguments],
            env=environment, cwd=tmp_path, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@asynccontextmanager
async def request_in_flight(program: Program) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Make a request whose body, two bytes, the server waits for."""
    reader, writer = await asyncio.open_connection(LOOPBACK, program.port)
    writer.write(
        b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    yield reader, writer
    writer.close()


async def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


def is_refusing(program: Program) -> bool:
    try:
        socket.create_connection((LOOPBACK, program.port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def is_up(program: Program, starts: int) -> bool:
    """Tell whether so many workers have started since the beginning."""
    return [line["event"] for line in program.logs()].count("Application startup complete.") == starts


def workers_of(program: Program) -> list[psutil.Process]:
    return psutil.Process(program.process.pid).children()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_when_what_is_in_flight_is_done(
    serve: Serve, workers: str, number: signal.Signals
) -> None:
    program = await serve("--workers", workers)
    async with request_in_flight(program) as (reader, writer):
        program.process.send_signal(number)
        await wait_for(lambda: is_refusing(program))
        assert program.process.poll() is None
        writer.write(b"a=")
        answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert await asyncio.to_thread(program.process.wait, 10) == 0
    assert "Traceback" not in program.errors.read_text()
    assert not [line for line in program.logs() if line["level"] not in {"INFO", "WARNING"}]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_ctrl_c_in_the_terminal_ends_it_quietly(serve: Serve, workers: str) -> None:
    program = await serve("--workers", workers)
    for process in (psutil.Process(program.process.pid), *workers_of(program)):
        process.send_signal(signal.SIGINT)  # a terminal sends it to all
    assert await asyncio.to_thread(program.process.wait, 10) == 0
    assert "Traceback" not in program.errors.read_text()


@pytest.mark.parametrize("arguments", [(), ("--workers", "2"), ("--reload",)])
async def test_all_that_is_printed_is_json_and_the_welcome_comes_once(serve: Serve, arguments: tuple[str, ...]) -> None:
    program = await serve(*arguments)
    async with httpx.AsyncClient(base_url=program.url) as client:
        for path in ("/nowhere", "/token", "/metrics"):
            await client.get(path)
    reader, writer = await asyncio.open_connection(LOOPBACK, program.port)
    writer.write(b"this is not HTTP\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    assert await program.stop() == 0
    lines = program.logs()
    assert all({"timestamp", "level", "logger", "event"} <= line.keys() for line in lines)
    assert [line["url"] for line in lines if line["event"] == "listening"] == [program.url]
    assert len([line for line in lines if line["event"] == "request" and line["path"] == "/nowhere"]) == 1
    assert program.errors.read_text().count("authserver is up") == 1
    assert program.errors.read_text().count(program.url) > 1
    assert "INFO" not in program.errors.read_text(), "uvicorn's own lines"


async def test_the_welcome_can_be_pasted(serve: Serve, tmp_path: Path) -> None:
    program = await serve()
    pasted = "\n".join(line for line in program.errors.read_text().splitlines() if line.startswith("  "))
    environment = psutil.Process(program.process.pid).environ()
    shell = partial(subprocess.run, ["/bin/sh"], env=environment, cwd=tmp_path, capture_output=True, text=True)
    done = await asyncio.to_thread(shell, input=pasted, check=True)
    assert done.stderr == ""
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"access_token", "refresh_token", "expires_in"} <= answers[1].keys()
    assert answers[2]["active"] is True
    assert answers[2]["username"] == "alice"
    assert answers[3:] == [{}, {"active": False}]


async def test_no_welcome_in_production(serve: Serve, databases: Stores) -> None:
    database_url = await databases.new_database("sqlite")  # its keys are for this secret only
    program = await serve(environment="production", secret_key="x" * 40, database_url=database_url)
    assert await program.stop() == 0
    assert program.errors.read_text() == ""


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_port_in_use_is_said_in_one_line(start: Start, workers: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        written, complaint = await asyncio.to_thread(start("--port", str(port), "--workers", workers).communicate)
    assert complaint == f"authserver cannot listen on 127.0.0.1, port {port}: Address already in use\n"
    (line,) = [json.loads(line) for line in written.splitlines()]
    assert (line["level"], line["event"], line["port"]) == ("CRITICAL", "cannot_listen", port)


@pytest.mark.parametrize("host", ["host.invalid", "203.0.113.77"])
async def test_an_address_that_is_not_ours_is_said_in_one_line(start: Start, host: str) -> None:
    process = start("--host", host, "--port", "0")
    written, complaint = await asyncio.to_thread(process.communicate)
    assert process.returncode == 1
    assert len(complaint.splitlines()) == len(written.splitlines()) == 1
    assert json.loads(written)["host"] == host


async def test_in_development_the_issuer_is_where_it_listens(start: Start, tmp_path: Path) -> None:
    process = start("--port", "0", "--host", "localhost")
    assert process.stdout
    try:
        while True:
            line = json.loads(await asyncio.to_thread(process.stdout.readline))
            if line["event"] == "listening":
                break
        url = line["url"]
        assert re.fullmatch(r"http://localhost:\d+", url)
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/.well-known/openid-configuration")).json()["issuer"] == url
    finally:
        process.terminate()
        await asyncio.to_thread(process.communicate)
    assert process.returncode == 0


async def test_answers_do_not_name_the_server_and_nobody_forges_an_address(serve: Serve) -> None:
    program = await serve()
    async with httpx.AsyncClient(base_url=program.url) as client:
        response = await client.get("/nowhere", headers={"X-Forwarded-For": "203.0.113.9"})
    assert "server" not in response.headers
    assert "date" in response.headers
    await program.stop()
    (line,) = [line for line in program.logs() if line.get("path") == "/nowhere"]
    assert line["ip"] == LOOPBACK


async def test_workers_count_together_and_dead_ones_are_replaced(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program = await serve("--workers", "2")
    before = workers_of(program)
    assert len(before) == 2
    (directory,) = tmp_path.glob("authserver-metrics-*")  # noqa: ASYNC240 - a handful of files

    # A connection for each request, so that any worker answers.
    client = httpx.AsyncClient(base_url=program.url, headers={"Connection": "close"})

    async def scrape() -> dict[str, float]:
        text = (await client.get("/metrics")).text
        samples = [sample for family in parse(text) for sample in family.samples]
        return {
            name: sum(
                sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
            )
            for name, labels in (
                ("authserver_http_requests_total", {"route": "/health/live"}),
                ("authserver_build_info", {}),
                ("authserver_signing_keys_loaded", {}),
            )
        }

    async def visit(times: int) -> None:
        for _ in range(times):
            assert (await client.get("/health/live")).status_code == 200

    await wait_for(lambda: is_up(program, 2))
    await visit(20)
    await asyncio.sleep(health.SAMPLE_SECONDS + 0.5)  # so old may be what a process tells of another one
    for scraped in [await scrape() for _ in range(5)]:
        assert scraped.pop("authserver_signing_keys_loaded") >= 1  # other tests of this database may have rotated them
        assert scraped == {"authserver_http_requests_total": 20, "authserver_build_info": 1}
    before[0].kill()
    before[0].wait()
    await wait_for(lambda: is_up(program, 3))
    await visit(5)
    await asyncio.sleep(health.SAMPLE_SECONDS + 0.5)
    assert (await scrape())["authserver_http_requests_total"] == 25
    await client.aclose()
    assert not list(directory.glob(f"gauge_live*_{before[0].pid}.db"))
    assert await program.stop() == 0
    assert not directory.exists()
    assert [line["exit_status"] for line in program.logs() if line["event"] == "worker_died"] == [-9]


async def test_workers_end_with_a_supervisor_that_was_killed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # what it leaves behind
    program = await serve("--workers", "3")
    workers = workers_of(program)
    workers[1].suspend()  # none shall wait for another
    program.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, [workers[0], workers[2]], 5)
    workers[1].resume()
    _, still_alive = await asyncio.to_thread(psutil.wait_procs, [workers[1]], 5)
    assert alive == still_alive == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory processes share")
async def test_workers_share_what_is_imported(serve: Serve) -> None:
    program = await serve("--workers", "2")
    memory = [worker.memory_full_info() for worker in workers_of(program)]
    assert all(worker.pss < 0.7 * worker.rss for worker in memory)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_an_application_that_cannot_start_ends_it(start: Start, tmp_path: Path, workers: str) -> None:
    broken = tmp_path / "authserver_without_app"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text("import sys\nsys.modules['uvicorn.lifespan.on'] = None\n")
    process = start("--port", "0", "--workers", workers, path=str(broken))
    written, complaint = await asyncio.to_thread(process.communicate)
    assert process.returncode == 1
    assert complaint == ""
    assert "CRITICAL" in {json.loads(line)["level"] for line in written.splitlines()}


@pytest.fixture
async def bounded(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Serve an application that reads its requests, with little patience; yields the port."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            continue
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.5)
    sockets = listening.sockets(LOOPBACK, 0)
    config = uvicorn.Config(app, http=connection.Connection, lifespan="off", log_config=None, access_log=False)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, args=(sockets,))
    thread.start()
    while not running.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield sockets[0].getsockname()[1]
    running.should_exit = True
    await asyncio.to_thread(thread.join)


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
    ],
)
async def test_a_request_that_does_not_arrive_is_not_waited_for(bounded: int, beginning: bytes) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, bounded)
    writer.write(beginning)
    began = time.monotonic()
    assert b" 200 " not in await asyncio.wait_for(reader.read(), 5)
    assert 0.4 < time.monotonic() - began < 3
    writer.close()


@pytest.mark.parametrize("pause", [0.0, 0.2], ids=["at once", "later"])
@pytest.mark.parametrize("beginning", [b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"])
async def test_a_second_request_that_does_not_arrive_is_not_waited_for(
    bounded: int, beginning: bytes, pause: float
) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, bounded)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(pause)
    writer.write(beginning)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
    began = time.monotonic()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert 0.3 < time.monotonic() - began < 3
    writer.close()


async def test_a_connection_may_rest_between_requests(bounded: int) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, bounded)
    for _ in range(2):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
        await asyncio.sleep(0.8)
    writer.close()


@pytest.mark.parametrize(
    ("portions", "status"),
    [
        ([b"X-A: " + b"a" * 30_000 + b"\r\n\r\n"], b"204"),
        ([b"X-A: " + b"a" * 33_000 + b"\r\n\r\n"], b"400"),
        ([b"X-A: " + b"a" * 16_000, b"a" * 16_000 + b"\r\n\r\n"], b"204"),
        ([b"X-A: " + b"a" * 20_000, b"a" * 20_000 + b"\r\n\r\n"], b"400"),
        ([b"X-A: ", *[b"a" * 10_000] * 4], b"400"),
        ([b"Content-Length: 100000\r\n\r\n" + b"a" * 100_000], b"204"),
    ],
    ids=["30 KB", "33 KB", "two halves of 16 KB", "two halves of 20 KB", "without end", "a body of 100 KB"],
)
async def test_a_head_has_at_most_32_kib(bounded: int, portions: list[bytes], status: bytes) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, bounded)
    for portion in (b"POST / HTTP/1.1\r\nHost: x\r\n" + portions[0], *portions[1:]):
        writer.write(portion)
        await asyncio.sleep(0.05)
    assert (await reader.readuntil(b"\r\n")).split()[1] == status
    writer.close()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_the_url_is_one_that_can_be_opened(host: str, url: str) -> None:
    assert listening.url(host, 8000) == url
