"""The load: people who live on the nodes, watchers who ask about everybody's tokens, and a last look at all of it."""

import asyncio
import random
from collections import deque
from time import monotonic

from tests.laboratory.asking import Asker, Token
from tests.laboratory.history import Event, Outcome
from tests.laboratory.nodes import Laboratory, Node
from tests.laboratory.people import Person

PEOPLE, WATCHERS = 6, 3
_PAUSE_SECONDS = 0.02
"""Between two requests of one person, on average: the machine is not to be the fault."""
_RETRY_SECONDS = 0.2
"""After a 503, on average."""
_TICK_SECONDS = 0.05
_REMEMBERED = 150
_AT_ONCE = 8


class Load:
    """Runs it; everything that is random comes from the seed."""

    def __init__(self, lab: Laboratory, seed: int) -> None:
        self.lab = lab
        self.random = random.Random(seed)
        self.asker = Asker(lab.app)
        self.people = [Person(self) for _ in range(PEOPLE)]
        self.recent: deque[Token] = deque(maxlen=_REMEMBERED)
        """Access tokens, the newest last; whether dead or alive is for the checker to know."""
        self.ended: deque[Token] = deque(maxlen=_REMEMBERED)
        """Access and refresh tokens that were to be ended."""
        self.lag_seconds = 0.0
        self.is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        jobs = [person.live() for person in self.people] + [self._watch() for _ in range(WATCHERS)] + [self._tick()]
        self._tasks = [asyncio.create_task(job) for job in jobs]

    async def stop(self) -> None:
        """Let everybody finish what they are at."""
        self.is_over = True
        await asyncio.gather(*self._tasks)

    def node(self) -> Node:
        """Pick one."""
        return self.random.choice(self.lab.nodes)

    async def pause(self, event: Event | None = None) -> None:
        """Wait a little; longer after a 503."""
        is_well = event is None or event.outcome in {Outcome.YES, Outcome.NO}
        await asyncio.sleep(self.random.uniform(0.5, 1.5) * (_PAUSE_SECONDS if is_well else _RETRY_SECONDS))

    async def look(self, token: Token) -> None:
        """Ask all nodes about a token at once."""
        await asyncio.gather(*(self.asker.introspect(node, token) for node in self.lab.nodes))

    async def _watch(self) -> None:
        while not self.is_over:
            pool = self.ended if self.ended and self.random.random() < 0.6 else self.recent
            if pool:
                # Half of the time one of the newest, for which everything is still under way.
                newest = min(len(pool), 10 if self.random.random() < 0.5 else _REMEMBERED)
                token = pool[-self.random.randint(1, newest)]
                ask = self.asker.introspect
                if token.jti and self.random.random() < 0.2:
                    ask = self.random.choice([self.asker.userinfo, self.asker.me])
                await self.pause(await ask(self.node(), token))
            else:
                await self.pause()

    async def _tick(self) -> None:
        """Measure how late this process is: nobody else may be blamed for that."""
        while not self.is_over:
            due = monotonic() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            self.lag_seconds = max(self.lag_seconds, monotonic() - due)

    async def verify(self) -> None:
        """Look, when all is well again, whether everything is as it was acknowledged: passwords, sessions, deaths."""
        await asyncio.gather(*(person.verify() for person in self.people))
        tokens = [*self.ended, *self.recent]
        for first in range(0, len(tokens), _AT_ONCE):
            await asyncio.gather(*(self.look(token) for token in tokens[first : first + _AT_ONCE]))
