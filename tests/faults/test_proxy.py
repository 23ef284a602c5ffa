"""The laboratory's proxy breaks an edge in the way it says, and mends it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.laboratory.proxy import Proxy
from tests.servers import LOOPBACK

SILENCE_SECONDS = 0.2


class Conversation:
    """A connection of a node through the proxy; the store answers each line with the same line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def say(self, line: str) -> str:
        self._writer.write(line.encode() + b"\n")
        return await self.hear()

    async def hear(self) -> str:
        return (await self._reader.readline()).decode().strip()

    def close(self) -> None:
        self._writer.close()


class Echo:
    """A store that answers each line with itself."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.hung_up = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.heard.append(line.decode().strip())
                writer.write(line)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.hung_up.set()
            writer.close()


@pytest.fixture
async def store() -> Echo:
    return Echo()


@pytest.fixture
async def edge(store: Echo) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(store.talk, LOOPBACK, 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


async def connect(edge: Proxy) -> Conversation:
    return Conversation(*await asyncio.open_connection(LOOPBACK, edge.port))


async def is_silent(talk: Conversation, line: str) -> bool:
    try:
        await asyncio.wait_for(talk.say(line), SILENCE_SECONDS)
    except TimeoutError:
        return True
    return False


async def test_it_passes_what_both_sides_say(edge: Proxy) -> None:
    talk = await connect(edge)
    assert await talk.say("hello") == "hello"
    assert await talk.say("again") == "again"
    talk.close()


async def test_a_delay_is_there_for_each_request(edge: Proxy) -> None:
    talk = await connect(edge)
    edge.delay(0.15)
    began = asyncio.get_running_loop().time()
    assert await talk.say("slowly") == "slowly"
    assert asyncio.get_running_loop().time() - began >= 0.15
    talk.close()


@pytest.mark.parametrize("way", ["requests", "replies", "both"])
async def test_a_black_hole_accepts_and_answers_nothing_until_it_is_mended(edge: Proxy, store: Echo, way: str) -> None:
    edge.swallow(requests=way != "replies", replies=way != "requests")
    talk = await connect(edge)
    assert await is_silent(talk, "lost")
    assert ("lost" in store.heard) == (way == "replies")
    await edge.mend()
    with pytest.raises(ConnectionResetError):
        await talk.hear()
    fresh = await connect(edge)
    assert await fresh.say("found") == "found"
    talk.close()
    fresh.close()


async def test_a_black_hole_does_not_even_tell_that_a_node_has_hung_up(edge: Proxy, store: Echo) -> None:
    talk = await connect(edge)
    assert await talk.say("hello") == "hello"
    edge.swallow()
    talk.close()
    await asyncio.sleep(SILENCE_SECONDS)
    assert not store.hung_up.is_set()
    await edge.mend()
    await asyncio.wait_for(store.hung_up.wait(), 5)


async def test_a_held_reply_comes_late_and_its_request_has_happened(edge: Proxy, store: Echo) -> None:
    talk = await connect(edge)
    edge.hold()
    assert await is_silent(talk, "held")
    assert store.heard == ["held"]
    await edge.mend()
    assert await talk.hear() == "held"
    talk.close()


async def test_a_held_reply_can_be_dropped(edge: Proxy, store: Echo) -> None:
    talk = await connect(edge)
    edge.hold()
    assert await is_silent(talk, "dropped")
    edge.reset()
    assert store.heard == ["dropped"]
    with pytest.raises(ConnectionResetError):
        await talk.hear()
    talk.close()


async def test_refused_connections_are_taken_again_on_the_same_port(edge: Proxy) -> None:
    talk = await connect(edge)
    assert await talk.say("hello") == "hello"
    edge.refuse()
    with pytest.raises(ConnectionResetError):
        await talk.hear()
    with pytest.raises(ConnectionRefusedError):
        await connect(edge)
    await edge.mend()
    fresh = await connect(edge)
    assert await fresh.say("hello") == "hello"
    talk.close()
    fresh.close()


async def test_a_cut_connection_ends_in_the_middle_of_an_answer(edge: Proxy) -> None:
    talk = await connect(edge)
    edge.cut(3)
    talk._writer.write(b"hello\n")
    assert await talk._reader.readexactly(3) == b"hel"
    with pytest.raises(ConnectionResetError):
        await talk.hear()
    assert edge.snapped == 1
    talk.close()


@pytest.mark.parametrize("is_delivered", [True, False])
async def test_it_resets_at_a_word_that_has_or_has_not_arrived(edge: Proxy, store: Echo, is_delivered: bool) -> None:
    talk = await connect(edge)
    edge.snap(b"COMMIT", is_delivered=is_delivered)
    assert await talk.say("BEGIN") == "BEGIN"
    talk._writer.write(b"COMMIT\n")
    with pytest.raises(ConnectionResetError):
        await talk.hear()
    await asyncio.wait_for(store.hung_up.wait(), 5)
    assert ("COMMIT" in store.heard) == is_delivered
    talk.close()


async def test_it_can_lead_to_another_store(edge: Proxy) -> None:
    other = Echo()
    server = await asyncio.start_server(other.talk, LOOPBACK, 0)
    talk = await connect(edge)
    assert await talk.say("here") == "here"
    edge.switch(server.sockets[0].getsockname()[1])
    with pytest.raises(ConnectionResetError):
        await talk.hear()
    fresh = await connect(edge)
    assert await fresh.say("there") == "there"
    assert other.heard == ["there"]
    talk.close()
    fresh.close()
    server.close()
