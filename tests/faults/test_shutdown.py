"""SIGTERM under load: whoever has been let in gets an answer, a complete and right one."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from authserver.serving import connection, listening
from authserver.serving.connection import Connection
from authserver.serving.server import Server
from tests.application import Program
from tests.factories import NewClient, NewUser, basic, sign_in
from tests.faults.traffic import Traffic, introspection
from tests.servers import LOOPBACK

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Serve = Callable[..., Awaitable[Program]]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("backend", ["postgres"], indirect=True, scope="session")
async def test_a_server_told_to_stop_under_load_loses_no_answer(
    serve: Serve, new_client: NewClient, new_user: NewUser, workers: str
) -> None:
    program = await serve("--workers", workers)
    app, user = await new_client(), await new_user()
    async with httpx.AsyncClient(base_url=program.url) as client:
        live, dead = [(await sign_in(client, app, user)).json()["access_token"] for _ in range(2)]
        assert (await client.post("/revoke", data={"token": dead}, auth=basic(app))).status_code == 200
    traffic = Traffic(
        program.port, [introspection(app, live, is_active=True), introspection(app, dead, is_active=False)]
    )
    renewed = [traffic.visit(requests=requests) for requests in (1, 1, 2)]
    kept = [traffic.visit(pause=pause / 100) for pause in range(12)]
    visitors = [asyncio.create_task(visit) for visit in (*renewed, *kept)]
    while traffic.answered < 300:  # noqa: ASYNC110 - it is about another process
        await asyncio.sleep(0.01)
    program.process.terminate()
    await asyncio.wait_for(asyncio.gather(*visitors), 30)
    assert traffic.lost == []
    assert traffic.turned_away <= len(renewed)
    assert traffic.wrong == []
    assert traffic.last_answers >= len(kept)
    assert await asyncio.to_thread(program.process.wait, 30) == 0
    assert "Traceback" not in program.errors.read_text()


@pytest.fixture
async def server() -> tuple[Server, listening.Sockets, int]:
    """A server in this process, whose loop turns only when the test says so; with its sockets and port."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    config = uvicorn.Config(app, http=Connection, lifespan="off", log_config=None, access_log=False)
    config.load()
    server = Server(config, lambda: None)
    server.lifespan = config.lifespan_class(config)
    sockets = listening.sockets(LOOPBACK, 0)
    await server.startup(sockets)
    return server, sockets, sockets[0].getsockname()[1]


async def test_who_waits_in_the_queue_of_the_port_is_still_let_in(
    server: tuple[Server, listening.Sockets, int],
) -> None:
    stopping, sockets, port = server
    waiting = [socket.create_connection((LOOPBACK, port), 5) for _ in range(20)]
    for client in waiting:
        client.sendall(REQUEST)
    await stopping.shutdown(sockets)
    for client in waiting:
        with client:
            answer = client.recv(1024)
        assert answer.startswith(b"HTTP/1.1 204 ")
        assert b"connection: close" in answer


async def test_a_request_on_its_way_to_a_connection_at_rest_is_answered(
    server: tuple[Server, listening.Sockets, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PARTING_SECONDS", 5.0)
    stopping, sockets, port = server
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(REQUEST)
    assert b"connection: close" not in await reader.readuntil(b"\r\n\r\n")
    stop = asyncio.create_task(stopping.shutdown(sockets))
    await asyncio.sleep(0.3)
    writer.write(REQUEST)
    assert b"connection: close" in await reader.read()
    await asyncio.wait_for(stop, 4)  # it need not wait for the connection any longer
    writer.close()


async def test_connections_at_rest_and_half_requests_do_not_keep_a_server_from_stopping(
    server: tuple[Server, listening.Sockets, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PARTING_SECONDS", 0.2)
    stopping, sockets, port = server
    clients = [socket.create_connection((LOOPBACK, port), 5) for _ in range(2)]
    clients[1].sendall(b"GET / HT")
    await asyncio.sleep(0.1)
    await asyncio.wait_for(stopping.shutdown(sockets), 10)
    for client in clients:
        with client:
            assert client.recv(1024) == b""
