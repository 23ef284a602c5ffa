"""Answers on their way out (serving/answer.py): one packet, checked as uvicorn checks, and its way for the rest."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from authserver.serving import connection
from authserver.serving.answer import Answer
from authserver.serving.connection import Connection
from tests.servers import LOOPBACK

Headers = list[tuple[bytes, bytes]]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
PLAIN: Headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]


def start(headers: Headers, status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes, more_body: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more_body}


@asynccontextmanager
async def serving(answers: Sequence[Message], after: Callable[[uvicorn.Server], object] = id) -> AsyncIterator[int]:
    """Serve an application that answers with these messages, and then does something; yield the port."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in answers:
            await send(message)
        after(server)

    server = uvicorn.Server(uvicorn.Config(app, port=0, http=Connection, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def ask(port: int, request: bytes = GET) -> tuple[list[bytes], bytes]:
    """Return the lines of the head and what follows, of one answer on a connection that then ends or rests."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    rest = b""
    try:
        async with asyncio.timeout(0.3):
            while more := await reader.read(1000):
                rest += more
            rest += b"<end>"
    except TimeoutError:
        pass  # it rests
    await close(writer)
    return head.removesuffix(b"\r\n\r\n").split(b"\r\n"), rest


async def test_head_and_body_are_one_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    packets: list[bytes] = []
    made: Callable[[Connection, asyncio.Transport], None] = Connection.connection_made

    def connection_made(one: Connection, transport: asyncio.Transport) -> None:
        made(one, transport)
        one.transport = _Listener(transport, packets)  # type: ignore[assignment]

    monkeypatch.setattr(Connection, "connection_made", connection_made)
    async with serving([start(PLAIN), body(b"ok")]) as port:
        lines, rest = await ask(port)
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert {b"content-type: text/plain", b"content-length: 2"} < set(lines)
    assert rest == b"ok"
    assert len(packets) == 1


class _Listener:
    def __init__(self, transport: asyncio.Transport, packets: list[bytes]) -> None:
        self._transport = transport
        self._packets = packets

    def write(self, data: bytes) -> None:
        self._packets.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


CLOSE = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
OLD = b"GET / HTTP/1.0\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD")


@pytest.mark.parametrize(
    ("asked", "answered", "says", "rest"),
    [
        (CLOSE, [start(PLAIN), body(b"ok")], b"connection: close", b"ok<end>"),
        (OLD, [start(PLAIN), body(b"ok")], b"connection: close", b"ok<end>"),
        (GET, [start([*PLAIN, (b"connection", b"close")]), body(b"ok")], b"connection: close", b"ok<end>"),
        (HEAD, [start(PLAIN), body(b"ok")], b"content-length: 2", b""),
        (GET, [start([], 204), body(b"")], b"HTTP/1.1 204 No Content", b""),
        (GET, [start([]), body(b"ok")], b"transfer-encoding: chunked", b"2\r\nok\r\n0\r\n\r\n"),
        (GET, [start(PLAIN), body(b"o", True), body(b"k")], b"content-length: 2", b"ok"),
        (GET, [start([(b"Content-Length", b"2")]), body(b"ok")], b"content-length: 2", b"ok"),
    ],
    ids=["asked to close", "HTTP/1.0", "told to close", "HEAD", "no content", "no length", "in parts", "capitals"],
)
async def test_every_kind_of_answer(asked: bytes, answered: list[Message], says: bytes, rest: bytes) -> None:
    async with serving(answered) as port:
        lines, given = await ask(port, asked)
    assert says in lines
    assert given == rest


async def test_two_that_come_at_once_are_answered_one_after_the_other() -> None:
    async with serving([start(PLAIN), body(b"ok")]) as port:
        lines, rest = await ask(port, GET + GET)
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert rest.startswith(b"okHTTP/1.1 200 OK\r\n")
    assert rest.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize(
    "header",
    [(b"x-name", b"a\r\nset-cookie: b=c"), (b"x-name", b"a\nb"), (b"x-name", b"a\0b"), (b"x-na\r\nme", b"a")],
    ids=["a header in a value", "a line end", "a zero", "a line end in a name"],
)
async def test_a_header_that_would_begin_another_is_not_sent(
    header: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving([start([*PLAIN, header]), body(b"ok")]) as port:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.write(GET)
        assert await reader.read() == b""
        await close(writer)
    assert "Invalid HTTP header" in caplog.text


@pytest.mark.parametrize(
    "answered", [[start(PLAIN)], [start(PLAIN), start(PLAIN)], []], ids=["no body", "two heads", "nothing"]
)
async def test_half_an_answer_is_a_500(answered: list[Message], caplog: pytest.LogCaptureFixture) -> None:
    async with serving(answered) as port:
        lines, rest = await ask(port)
    assert lines[0] == b"HTTP/1.1 500 Internal Server Error"
    assert rest == b"Internal Server Error<end>"
    assert "ASGI callable returned without starting response." in caplog.text


async def test_a_body_that_is_not_as_long_as_said_ends_the_connection() -> None:
    async with serving([start(PLAIN), body(b"much longer")]) as port:
        lines, rest = await ask(port)
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert rest == b"<end>"


async def test_answers_of_one_moment_leave_together_and_one_client_who_has_gone_is_left_out() -> None:
    events: list[str] = []

    def cycle(name: str, *, is_gone: bool = False, keep_alive: bool = True) -> Any:
        transport = SimpleNamespace(
            is_closing=lambda: is_gone,
            write=lambda packet: events.append(f"{name} gets {packet[-2:].decode()}"),
            close=lambda: events.append(f"{name} ends"),
        )
        return SimpleNamespace(
            transport=transport, flow=SimpleNamespace(write_paused=False), scope={"method": "GET"}, default_headers=[],
            response_started=False, disconnected=False, keep_alive=keep_alive, message_event=asyncio.Event(), send=None,
            on_response=lambda: events.append(f"{name} is done"),
        )  # fmt: skip

    for one in (cycle("A"), cycle("B", is_gone=True), cycle("C", keep_alive=False)):
        answer = Answer(one)
        await answer.send(start(PLAIN))
        await answer.send(body(b"ok"))
        assert one.response_complete
    assert events == []
    await asyncio.sleep(0)
    assert events == ["A gets ok", "A is done", "B is done", "C gets ok", "C ends", "C is done"]


async def test_who_is_told_to_stop_while_an_answer_leaves_ends_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PARTING_SECONDS", 0.1)

    def shut_down(server: uvicorn.Server) -> None:
        for one in server.server_state.connections:
            one.shutdown()

    async with serving([start(PLAIN), body(b"ok")], shut_down) as port:
        lines, rest = await ask(port)
    assert b"connection: close" not in lines
    assert rest == b"ok<end>"


async def test_who_does_not_read_is_waited_for() -> None:
    size = 8 * 1024 * 1024
    length: Headers = [(b"content-length", b"%d" % size)]
    sent: list[uvicorn.Server] = []
    async with serving([start(length), body(b"x" * size)], sent.append) as port:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.write(GET * 3)
        await asyncio.sleep(0.2)
        assert len(sent) == 1
        for _ in range(3):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            assert await reader.readexactly(size) == b"x" * size
        await close(writer)
