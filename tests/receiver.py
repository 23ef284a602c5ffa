"""A client's back-channel logout endpoint on 127.0.0.1, which behaves as a test wants, for tests of the deliverer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from tests.servers import LOOPBACK

HANG = 0
"""In place of a status: never answer."""


@dataclass
class Receiver:
    """What came, and what is answered: each status once, the last one for ever."""

    statuses: list[int] = field(default_factory=lambda: [200])
    headers: str = ""
    heads: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    port: int = 0
    hanging: int = 0
    most_hanging: int = 0

    @property
    def uri(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/logout?kept=1"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = (await reader.readexactly(int(fields["content-length"]))).decode()
        self.tokens += parse_qs(body, strict_parsing=True)["logout_token"]
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status == HANG:
            self.hanging += 1
            self.most_hanging = max(self.most_hanging, self.hanging)
            await reader.read()  # until the deliverer hangs up
            self.hanging -= 1
        else:
            writer.write(f"HTTP/1.1 {status} As told\r\n{self.headers}Content-Length: 0\r\n\r\n".encode())
        writer.close()


@asynccontextmanager
async def receiving(*statuses: int, headers: str = "") -> AsyncIterator[Receiver]:
    """Run one around the block."""
    receiver = Receiver(list(statuses) or [200], headers)
    server = await asyncio.start_server(receiver.answer, LOOPBACK)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
