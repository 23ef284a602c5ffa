"""Delivers notices of logout to clients, in the background of every process (Back-Channel Logout §2.5).

Nothing waits for it: requests only write notices, and while it waits for a client it holds no database connection.
A client that hangs has a few deliveries at a time, so the others need not wait behind it.
"""

import asyncio
import logging
import ssl
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from authserver.db import Database
from authserver.errors import AuthserverError
from authserver.observability import metrics
from authserver.sessions import logout_notices
from authserver.sessions.logout_notices import Picked
from authserver.settings import Settings, is_loopback
from authserver.tokens.logout_token import LogoutTokens

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
TIMEOUT_SECONDS = 5.0
"""For a whole delivery; far less than the lease on the notice."""
_AT_ONCE = 32
_AT_ONCE_TO_ONE_CLIENT = 4
_HEARD = frozenset({200, 204})
"""§2.8; some frameworks make 204 of an empty answer."""


class LogoutDelivery:
    """The deliverer of one process."""

    def __init__(self, settings: Settings, db: Database, tokens: LogoutTokens) -> None:
        self._is_development = settings.is_development
        self._db = db
        self._tokens = tokens
        self._under_way: Counter[str] = Counter()
        """Deliveries by client."""
        self._look_again = asyncio.Event()

    async def watch(self) -> None:
        """Deliver what is due. Runs for ever."""
        self._under_way.clear()
        client: httpx.AsyncClient | None = None
        try:
            async with asyncio.TaskGroup() as deliveries:
                while True:
                    self._look_again.clear()
                    try:
                        if await self._is_any_due():
                            if client is None:
                                client = await asyncio.to_thread(_new_client)
                            await self._begin(deliveries, client)
                    except AuthserverError as unavailable:
                        log.debug("logout_notices_not_read", extra={"reason": str(unavailable)})
                    await self._pause()
        finally:
            if client is not None:
                await client.aclose()

    async def _is_any_due(self) -> bool:
        waiting, due = await logout_notices.count(self._db)
        metrics.LOGOUT_NOTICES_WAITING.set(waiting)
        return due > 0

    async def _begin(self, deliveries: asyncio.TaskGroup, client: "httpx.AsyncClient") -> None:
        """Begin as many deliveries as there is room for."""
        while (room := _AT_ONCE - self._under_way.total()) > 0:
            busy = [name for name, count in self._under_way.items() if count >= _AT_ONCE_TO_ONE_CLIENT]
            picked = await logout_notices.pick(self._db, min(room, _AT_ONCE_TO_ONE_CLIENT), but_of=busy)
            if not picked:
                return
            for notice in picked:
                self._under_way[notice.client_id] += 1
                deliveries.create_task(self._deliver(client, notice))

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._look_again.wait()
        except TimeoutError:
            return

    async def _deliver(self, client: "httpx.AsyncClient", notice: Picked) -> None:
        try:
            problem = await self._sent(client, notice)
            await self._settle(notice, problem)
        except AuthserverError as unavailable:  # due again when the lease is over
            log.warning("logout_notice_not_settled", extra={"reason": str(unavailable)})
        finally:
            self._under_way[notice.client_id] -= 1
            self._under_way = +self._under_way  # without the clients that have none
            self._look_again.set()

    async def _sent(self, client: "httpx.AsyncClient", notice: Picked) -> str | None:
        """Send a notice; return what went wrong, if anything did."""
        import httpx  # noqa: PLC0415 - see _new_client

        if not self._may_call(notice.uri):
            return "not https"
        token = self._tokens.issue(
            algorithm=notice.id_token_alg,
            client_id=notice.client_id,
            subject=str(notice.user_id),
            session_id=str(notice.session_id),
        )
        try:
            # The body of the answer says nothing that we need, so it is not read, however long it is.
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                client.stream("POST", notice.uri, data={"logout_token": token}) as response,
            ):
                return None if response.status_code in _HEARD else f"status {response.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as failure:
            return type(failure).__name__

    async def _settle(self, notice: Picked, problem: str | None) -> None:
        about = {"client_id": notice.client_id, "session_id": str(notice.session_id), "attempts": notice.attempts}
        if problem is None:
            await logout_notices.delivered(self._db, notice)
            metrics.LOGOUT_NOTICES.labels("delivered").inc()
            log.info("logout_notice_delivered", extra=about)
            return
        is_given_up = await logout_notices.failed(self._db, notice, problem)
        metrics.LOGOUT_NOTICES.labels("given_up" if is_given_up else "failed").inc()
        log.warning("logout_notice_failed", extra={**about, "reason": problem, "given_up": is_given_up})

    def _may_call(self, uri: str) -> bool:
        """Tell whether a notice may go there: without TLS only on this machine, or for developers."""
        parts = urlsplit(uri)
        return parts.scheme == "https" or (
            parts.scheme == "http" and (self._is_development or is_loopback(parts.hostname or ""))
        )


def _new_client() -> "httpx.AsyncClient":
    """Make what all deliveries share. httpx comes in only now: 90 ms and 6 MB that most processes never need."""
    import httpx  # noqa: PLC0415

    return httpx.AsyncClient(
        timeout=TIMEOUT_SECONDS,
        follow_redirects=False,
        limits=httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=0),
        verify=ssl.create_default_context(),  # the machine's own list of authorities, not one that httpx brings along
        trust_env=False,
    )
