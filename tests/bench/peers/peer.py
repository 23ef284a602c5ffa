"""What the peers have in common: a server that is sent the same operations as ours."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tests.bench import load
from tests.bench.contest import Sample
from tests.bench.load import Load
from tests.bench.operations import WrongAnswer, driven
from tests.bench.servers import Stores

_GRANTS = ("refresh", "refresh-openid", "client_credentials", "password")


class NoPeer(Exception):
    """What the peer needs is not installed."""


class Peer(Protocol):
    """A running server."""

    @property
    def port(self) -> int:
        """Where it listens."""

    @property
    def stores(self) -> Stores | None:
        """What it keeps its data in, unless it does so itself."""

    def workers(self) -> Sequence[int]:
        """Return the processes that answer."""

    def load(self, name: str, seconds: float, *, is_signed: bool) -> Load:
        """Return what is sent for an operation in so many seconds."""


@dataclass(frozen=True)
class PeerOperation:
    """One operation of it."""

    name: str
    title: str
    operation: str
    peer: Peer
    is_signed: bool = False

    async def measure(self, seconds: float) -> Sample:
        """Send it over all connections for so long."""
        sent = await asyncio.to_thread(self.peer.load, self.operation, seconds, is_signed=self.is_signed)
        status, answer = await asyncio.to_thread(load.ask, self.peer.port, sent.first())
        if status != 200 or not self._is_right(answer):
            raise WrongAnswer(f"{self.title}: {status} {answer}")
        return await driven(self.peer.port, sent.rest(), seconds, self.peer.workers(), self.peer.stores)

    def _is_right(self, answer: Any) -> bool:
        if self.operation == "introspect":
            return answer["active"] is True
        if self.operation == "userinfo":
            return "sub" in answer
        if self.operation not in _GRANTS:
            return True
        return (
            "access_token" in answer
            and ("refresh_token" in answer or not self.operation.startswith("refresh"))
            and ("id_token" in answer or self.operation != "refresh-openid")
            and (answer["access_token"].count(".") == 2 or not self.is_signed)
        )
