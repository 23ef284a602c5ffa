"""People: each registers, signs in, and uses the sign-in in all ways there are, until the load is over."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.laboratory.asking import Token, Tokens
from tests.laboratory.history import Outcome
from tests.laboratory.nodes import Node

if TYPE_CHECKING:
    from tests.laboratory.load import Load


@dataclass
class Session:
    """A sign-in, as its client knows it."""

    refresh: Token
    accesses: list[Token]
    spent: list[Token] = field(default_factory=list)
    is_over: bool = False

    def moved_on(self, tokens: Tokens) -> None:
        """Note what a refresh gave."""
        if tokens.refresh.text != self.refresh.text:
            self.spent.append(self.refresh)
            self.refresh = tokens.refresh
        self.accesses.append(tokens.access)


class Person:
    """Lives on the laboratory's nodes, and knows what it has been told."""

    def __init__(self, load: "Load") -> None:
        self._load, self._asker = load, load.asker
        self.left: list[Session] = []
        """Sessions that nobody has ended on purpose."""
        self._begin()

    def _begin(self) -> None:
        self.user = f"user-{secrets.token_hex(6)}"
        self.passwords = [_new_password()]
        """The current one last; when a change is in doubt, both that may be."""
        self.old_passwords: list[str] = []
        self.is_registered = False

    async def live(self) -> None:
        """Register, then sign in again and again."""
        while not self._load.is_over:
            if not self.is_registered:
                await self._register()
            elif (session := await self._sign_in()) is not None:
                await self._use(session)

    async def _register(self) -> None:
        event = await self._asker.register(self._load.node(), self.user, self.passwords[-1])
        # Taken: an attempt of ours whose answer was lost.
        self.is_registered = event.outcome in {Outcome.YES, Outcome.NO}
        await self._load.pause(event)

    async def _sign_in(self) -> Session | None:
        password = self._load.random.choice(self.passwords)
        event, tokens = await self._asker.sign_in(self._load.node(), self.user, password)
        await self._load.pause(event)
        if tokens is None:
            if event.outcome is Outcome.NO and len(self.passwords) > 1:
                self.passwords.remove(password)
            elif event.outcome is Outcome.NO:
                self._begin()  # the checker knows whether that is right
            return None
        # Only one of two can be right, but the change that is in doubt may still come.
        self._load.recent.append(tokens.access)
        return Session(tokens.refresh, [tokens.access])

    async def _use(self, session: Session) -> None:
        for _ in range(self._load.random.randint(3, 12)):
            if self._load.is_over or session.is_over:
                break
            step = self._load.random.choices(*zip(*STEPS, strict=True))[0]
            await step(self, session)
            await self._load.pause()
        if not session.is_over:
            self.left.append(session)

    async def verify(self) -> None:
        """Try every password, the old ones too, and all that was left signed in."""
        node = self._load.node
        if self.is_registered:
            for password in [*self.old_passwords[-2:], *self.passwords]:
                await self._asker.sign_in(node(), self.user, password)
        for session in self.left[-4:]:
            await asyncio.gather(*(self._load.look(token) for token in (session.accesses[-1], session.refresh)))
            await self._asker.refresh(node(), session.refresh)

    # ── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def look(self, session: Session) -> None:
        await self._load.look(session.accesses[-1])

    async def look_at_refresh_token(self, session: Session) -> None:
        await self._load.look(session.refresh)

    async def call(self, session: Session) -> None:
        ask = self._load.random.choice([self._asker.userinfo, self._asker.me])
        await ask(self._load.node(), session.accesses[-1])

    async def refresh(self, session: Session) -> None:
        """Once, or on all nodes at the same moment, as two tabs do."""
        is_twice = self._load.random.random() < 0.3
        nodes = self._load.lab.nodes * 2 if is_twice else [self._load.node()]
        await self._trade(session, session.refresh, nodes)

    async def retry(self, session: Session) -> None:
        """Ask for the answer to the last refresh again."""
        if session.spent:
            await self._trade(session, session.spent[-1], [self._load.node()])

    async def reuse(self, session: Session) -> None:
        """Use a refresh token whose successor is spent too."""
        if len(session.spent) > 1:
            await self._end(session, lambda: self._asker.refresh(self._load.node(), session.spent[-2]))

    async def revoke_access_token(self, session: Session) -> None:
        token = session.accesses[-1]
        event = await self._asker.revoke(self._load.node(), token)
        self._load.ended.append(token)
        await self._load.look(token)
        if event.outcome is not Outcome.YES and self._load.random.random() < 0.5:
            await self._load.pause(event)
            await self._asker.revoke(self._load.node(), token)
            await self._load.look(token)

    async def revoke_refresh_token(self, session: Session) -> None:
        await self._end(session, lambda: self._asker.revoke(self._load.node(), session.refresh))

    async def revoke_while_refreshing(self, session: Session) -> None:
        """A sign-out that races a refresh must win."""
        token = session.refresh
        refreshing = self._trade(session, token, [self._load.node()])
        await asyncio.gather(refreshing, self._end(session, lambda: self._asker.revoke(self._load.node(), token)))
        self._load.ended.extend(session.accesses[-1:])
        await self._load.look(session.accesses[-1])

    async def sign_out(self, session: Session) -> None:
        await self._end(session, lambda: self._asker.sign_out(self._load.node(), session.accesses[-1]))

    async def sign_out_everywhere(self, session: Session) -> None:
        others, self.left = self.left[-3:], []
        await self._end(session, lambda: self._asker.sign_out_everywhere(self._load.node(), session.accesses[-1]))
        for other in others:
            self._load.ended.append(other.accesses[-1])
            await self._load.look(other.accesses[-1])

    async def change_password(self, session: Session) -> None:
        old, new = self.passwords[-1], _new_password()
        if len(self.passwords) > 1:
            return  # first find out which one it is, by signing in
        others, self.left = self.left[-3:], []
        event = await self._asker.change_password(self._load.node(), session.accesses[-1], old, new)
        if event.outcome is Outcome.YES:
            self.passwords = [new]
            self.old_passwords.append(old)
        elif event.outcome is not Outcome.NO:
            self.passwords = [old, new]
        for other in others:
            self._load.ended.append(other.accesses[-1])
            await self._load.look(other.accesses[-1])

    async def delete_account(self, session: Session) -> None:
        event = await self._asker.delete_account(self._load.node(), session.accesses[-1])
        self._load.ended.append(session.accesses[-1])
        await self._load.look(session.accesses[-1])
        session.is_over = True
        if event.outcome is Outcome.YES:
            self.left = []
            self._begin()

    async def _trade(self, session: Session, token: Token, nodes: list[Node]) -> None:
        answers = await asyncio.gather(*(self._asker.refresh(node, token) for node in nodes))
        for event, tokens in answers:
            if tokens is not None:
                session.moved_on(tokens)
                self._load.recent.append(tokens.access)
            elif event.outcome is Outcome.NO:
                session.is_over = True
        if session.is_over:
            self._load.ended.extend([session.refresh, *session.accesses[-2:]])

    async def _end(self, session: Session, how: Callable[[], Awaitable[object]]) -> None:
        """End the session, and look at once whether everybody knows."""
        session.is_over = True
        await how()
        tokens = [session.refresh, session.accesses[-1], session.accesses[0]]
        self._load.ended.extend(tokens)
        await asyncio.gather(*(self._load.look(token) for token in tokens))


STEPS: list[tuple[Callable[[Person, Session], Awaitable[None]], int]] = [
    (Person.look, 20),
    (Person.look_at_refresh_token, 5),
    (Person.call, 10),
    (Person.refresh, 25),
    (Person.retry, 8),
    (Person.reuse, 4),
    (Person.revoke_access_token, 12),
    (Person.revoke_refresh_token, 5),
    (Person.revoke_while_refreshing, 4),
    (Person.sign_out, 3),
    (Person.sign_out_everywhere, 3),
    (Person.change_password, 6),
    (Person.delete_account, 2),
]
"""What people do, and how often."""


def _new_password() -> str:
    return f"a long sentence {secrets.token_hex(8)}"
