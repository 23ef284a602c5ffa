"""Finds the Redis master that keeps our keys, each time that somebody connects.

A master may be another one a moment later, so nothing found here is kept, and nobody here decides whom to believe: a
connection to the wrong process is a fault like any other, and the next one asks anew.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from redis import exceptions
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from typing_extensions import override

from authserver.redis_url import Address, Kind, RedisUrl

TAG = "{authserver}"
"""All our keys begin so: a cluster keeps them in one slot, that is, in one master, as if there were no other."""

_SLOT = key_slot(TAG.encode())
_NOT_HERE = (
    exceptions.AskError,  # and MOVED
    exceptions.BusyLoadingError,
    exceptions.ClusterDownError,  # and MASTERDOWN
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
)


class Master:
    """Tells where the master is: at a fixed address, or where sentinels or nodes of the cluster say."""

    def __init__(self, url: RedisUrl, seconds: float) -> None:
        self._url = url
        self._seconds = seconds
        self._options: dict[str, Any] = {
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            "retry": Retry(NoBackoff(), 0),  # an answer that comes late is worth less than the database's
            "protocol": 2,  # nothing comes unasked, such as what makes redis-py wait longer
            "decode_responses": True,
        }
        self._shard: tuple[Address, ...] = ()
        """Master and replicas when a node was last asked: who takes the master's place is one of them."""

    async def address(self) -> Address:
        """Return where the master is at this moment; ConnectionError if nobody says so in time."""
        match self._url.kind:
            case Kind.STANDALONE:
                return self._url.addresses[0]
            case Kind.SENTINEL:
                return await self._agreed(self._url.addresses, self._ask_sentinel)
            case Kind.CLUSTER:
                return await self._agreed(tuple({*self._url.addresses, *self._shard}), self._ask_node)

    def pool(self) -> ConnectionPool:
        """Make a pool of connections, each to the master, wherever it is when that one connects."""
        kind = _TlsMasterConnection if self._url.is_tls else _MasterConnection
        return ConnectionPool(connection_class=kind, master=self, **self._url.options, **self._options)

    async def _agreed(self, guides: tuple[Address, ...], ask: Callable[[Address], Awaitable[Address]]) -> Address:
        """Ask all at once: the first answer that more than half give, or the commonest in time.

        One that hangs costs no time then, and one that is cut off from the others does not mislead.
        """
        asked = [asyncio.ensure_future(ask(guide)) for guide in guides]
        answers: Counter[Address] = Counter()
        reason: Exception | str = "no answer in time"
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    for answer in asyncio.as_completed(asked):
                        try:
                            answers[await answer] += 1
                        except (exceptions.RedisError, OSError) as failure:
                            reason = failure
                        if answers and answers.most_common(1)[0][1] * 2 > len(guides):
                            break
        finally:
            for question in asked:
                question.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if not answers:
            raise exceptions.ConnectionError(f"none of {len(guides)} asked says where the master is: {reason}")
        return answers.most_common(1)[0][0]

    async def _ask_sentinel(self, sentinel: Address) -> Address:
        answer = await self._ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.service)
        if answer is None:
            raise exceptions.ConnectionError("the sentinel does not know this service")
        return answer[0], int(answer[1])

    async def _ask_node(self, node: Address) -> Address:
        for first, last, *shard in await self._ask(node, "CLUSTER", "SLOTS"):
            if first <= _SLOT <= last:
                # A node that does not know its own name leaves it to us.
                self._shard = tuple((node[0] if host in (None, "", "?") else host, port) for host, port, *_ in shard)
                return self._shard[0]
        raise exceptions.ConnectionError("nobody has our slot")

    async def _ask(self, guide: Address, *command: str) -> Any:
        kind = SSLConnection if self._url.is_tls else Connection
        options = self._url.guide_options | self._options
        connection = kind(host=guide[0], port=guide[1], driver_info=None, **options)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command(*command)
            return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)


class _MasterConnection(Connection):
    """A connection that asks where to go each time that it connects, and hangs up on whoever is not the master."""

    def __init__(self, *, master: Master, **options: Any) -> None:
        super().__init__(**options)
        self._master = master

    @override
    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        if not self.is_connected:
            self.host, self.port = await self._master.address()
        await super().connect_check_health(check_health, retry_socket_connect)

    @override
    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except _NOT_HERE:
            await self.disconnect(nowait=True)
            raise


class _TlsMasterConnection(_MasterConnection, SSLConnection):
    """The same through TLS."""
