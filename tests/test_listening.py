"""serving/listening.py: who takes a connection, of several that listen on one port."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from authserver.serving import listening
from authserver.serving.listening import Listener, Seats
from tests.application import Program
from tests.bench.processes import workers
from tests.servers import LOOPBACK
from tests.stores import Stores

Listen = Callable[..., list[socket.socket]]


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A port that nobody listens on yet."""
    (bound,) = listening.sockets(LOOPBACK, 0)
    with bound:
        yield bound


@pytest.fixture
async def listen(port: socket.socket) -> AsyncIterator[Listen]:
    """Have one more listener, whose connections come into the list that it returns."""
    listeners: list[Listener] = []
    taken: list[socket.socket] = []

    def begin(has_enough: Callable[[], bool] = lambda: False) -> list[socket.socket]:
        own: list[socket.socket] = []

        def take(connection: socket.socket) -> None:
            taken.append(connection)
            own.append(connection)

        listeners.append(Listener(port.dup(), 100, take, has_enough))
        return own

    yield begin
    for listener in listeners:
        listener.close()
        listener._port.close()
    for connection in taken:
        connection.close()


def call(port: socket.socket, times: int) -> list[socket.socket]:
    """Connect so often."""
    return [socket.create_connection(port.getsockname()) for _ in range(times)]


async def until(what: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(5):
        while not what():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.001)


async def test_two_take_as_many(listen: Listen, port: socket.socket) -> None:
    seats = Seats(2)
    one: list[socket.socket] = listen(lambda: seats.are_fewer_elsewhere(0, len(one)))
    other: list[socket.socket] = listen(lambda: seats.are_fewer_elsewhere(1, len(other)))
    callers = call(port, 12)
    await until(lambda: len(one) + len(other) == 12)
    assert abs(len(one) - len(other)) <= 2
    for caller in callers:
        caller.close()


async def test_who_has_enough_leaves_them_to_others(
    listen: Listen, port: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_STEP_BACK_SECONDS", 1.0)
    full, other = listen(lambda: True), listen()
    callers = call(port, 8)
    await until(lambda: len(other) == 8)
    assert full == []
    for caller in callers:
        caller.close()


async def test_what_nobody_comes_for_is_taken_by_who_has_enough(listen: Listen, port: socket.socket) -> None:
    full = listen(lambda: True)
    callers = call(port, 10)
    await until(lambda: len(full) == 10)
    for caller in callers:
        caller.close()


async def test_without_room_for_a_file_it_looks_again_now_and_then(
    listen: Listen, port: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_full = True
    accept = socket.socket.accept

    def fail(self: socket.socket) -> object:
        if is_full:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(self)

    monkeypatch.setattr(listening, "_FULL_SECONDS", 0.1)
    monkeypatch.setattr(socket.socket, "accept", fail)
    own = listen()
    (caller,) = call(port, 1)
    await asyncio.sleep(0.25)
    assert own == []
    assert {record.getMessage() for record in caplog.records} == {"cannot_accept"}
    assert len(caplog.records) in {1, 2, 3}
    is_full = False
    await until(lambda: len(own) == 1)
    caller.close()


async def test_a_caller_who_has_gone_is_no_fault(
    listen: Listen, port: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faults = [ConnectionAbortedError()]
    accept = socket.socket.accept

    def fail(self: socket.socket) -> object:
        if faults:
            raise faults.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", fail)
    own = listen()
    (caller,) = call(port, 1)
    await until(lambda: len(own) == 1)
    assert caplog.records == []
    caller.close()


async def test_at_the_end_all_that_wait_are_taken_and_no_more(
    port: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_STEP_BACK_SECONDS", 0.05)
    own: list[socket.socket] = []
    has_looked = asyncio.Event()

    def has_enough() -> bool:
        has_looked.set()
        return True

    listener = Listener(port, 100, own.append, has_enough)
    callers = call(port, 6)
    await has_looked.wait()
    listener.close()
    assert len(own) == 6
    callers += call(port, 1)
    await asyncio.sleep(0.1)
    assert len(own) == 6
    for connection in (*own, *callers):
        connection.close()


def test_a_worker_knows_whether_another_has_fewer() -> None:
    seats = Seats(3)
    assert not seats.are_fewer_elsewhere(0, 0)
    assert seats.are_fewer_elsewhere(0, 1)
    assert not seats.are_fewer_elsewhere(1, 0)
    assert seats.are_fewer_elsewhere(1, 5)
    for seat, connections in enumerate((100, 80, 110)):
        seats.are_fewer_elsewhere(seat, connections)
    assert not seats.are_fewer_elsewhere(0, 100)
    assert seats.are_fewer_elsewhere(2, 110)


async def test_each_worker_has_connections(tmp_path: Path, databases: Stores) -> None:
    server = Program(tmp_path, {"database_url": await databases.new_database("sqlite")}, "--workers", "2")
    try:
        await server.ready()
        pids = workers(server.process.pid)

        def counts() -> list[int]:
            return [
                sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == server.port for one in connections)
                for connections in (psutil.Process(pid).net_connections() for pid in pids)
            ]

        callers = []
        for number in range(12):
            callers.append(socket.create_connection((LOOPBACK, server.port)))
            await until(lambda number=number: sum(counts()) > number)  # type: ignore[misc]
        assert min(counts()) >= 3, counts()  # six each, if nothing else keeps one from running
        for caller in callers:
            caller.close()
        await server.stop()
    finally:
        server.kill()
