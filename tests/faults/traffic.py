"""Honest traffic in a closed loop: introspections over real connections, each answer looked at."""

import asyncio
import base64
from dataclasses import dataclass, field
from urllib.parse import urlencode

from tests.factories import App
from tests.servers import LOOPBACK

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Question:
    """A request, and what must be in the answer's body."""

    request: bytes
    expected: bytes


def introspection(app: App, token: str, *, is_active: bool) -> Question:
    """Ask whether a token is good, knowing the answer."""
    proof = base64.b64encode(f"{app.client_id}:{app.secret}".encode())
    body = urlencode({"token": token}).encode()
    head = (
        b"POST /introspect HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Authorization: Basic " + proof + b"\r\nContent-Length: " + str(len(body)).encode()
    )
    return Question(head + b"\r\n\r\n" + body, b'"active":true' if is_active else b'"active":false')


@dataclass
class Traffic:
    """What a number of visitors have seen; each asks, reads the answer, and asks again."""

    port: int
    questions: list[Question]
    answered: int = 0
    last_answers: int = 0
    """Connections that ended as they should: with `Connection: close` in the answer."""
    wrong: list[bytes] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Requests that were sent and have no complete answer."""
    turned_away: int = 0
    """Connections that were reset before their first answer began: perhaps nobody ever accepted them."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def visit(self, *, requests: int = 10**9, pause: float = 0) -> None:
        """Ask until it is over or nobody listens; so many requests over each connection, with pauses (seconds)."""
        while not self.over.is_set():
            try:
                reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
            except ConnectionError:
                return
            try:
                for number in range(requests):
                    if self.over.is_set() or not await self._ask(reader, writer, number):
                        break
                    await asyncio.sleep(pause)
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        """Ask once; tell whether the connection may be used again."""
        question = self.questions[self.answered % len(self.questions)]
        try:
            writer.write(question.request)
            async with asyncio.timeout(PATIENCE_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
        except (OSError, EOFError, TimeoutError) as failure:
            if number == 0 and isinstance(failure, ConnectionResetError):
                self.turned_away += 1
            else:
                self.lost.append(f"request {number} of its connection: {failure!r}")
            return False
        self.answered += 1
        if not head.startswith(b"http/1.1 200 ") or question.expected not in body:
            self.wrong.append(head + body)
        if b"connection: close" in head:
            self.last_answers += 1
            return False
        return True
