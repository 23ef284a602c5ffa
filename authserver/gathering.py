"""Many who ask at the same time share one round trip."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Gathering(Generic[Question, Answer]):
    """Puts questions together: all that come while some are under way are the next ones, at most `at_once` of them.

    So nobody waits longer than for those before them, and under load a store is asked once for many. `ask` gets
    questions and returns their answers in the same order; what it raises, everybody hears whose question it was. The
    question of somebody who has gone meanwhile is not asked.
    """

    def __init__(self, ask: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]], at_once: int) -> None:
        self._ask = ask
        self._at_once = at_once
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """Return the answer; a caller who goes away takes nobody else's with him."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._asking is None:
            # For many requests, so with nothing of the one that happens to be first: not its patience, not its name.
            self._asking = asyncio.create_task(self._ask_for_all(), context=Context())
        return await answer

    async def _ask_for_all(self) -> None:
        while self._waiting:
            there = [(question, answer) for question, answer in self._waiting if not answer.done()]
            asked, self._waiting = there[: self._at_once], there[self._at_once :]
            if not asked:
                break
            answers: Sequence[Answer] | BaseException
            try:
                answers = await self._ask([question for question, _ in asked])
            except (Exception, asyncio.CancelledError) as failure:  # noqa: BLE001 - it is theirs who asked
                answers = failure
            for number, (_, answer) in enumerate(asked):
                if answer.done():  # whoever asked has gone
                    continue
                if isinstance(answers, BaseException):
                    answer.set_exception(answers)
                else:
                    answer.set_result(answers[number])
        self._asking = None
