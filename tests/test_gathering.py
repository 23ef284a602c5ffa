"""Many who ask at the same time share one round trip."""

import asyncio
from collections.abc import Sequence

import pytest

from authserver.gathering import Gathering


class Store:
    """Answers with ten times the question, when it is let."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.may_answer = asyncio.Event()
        self.failure: BaseException | None = None

    async def ask(self, questions: Sequence[int]) -> Sequence[int]:
        self.asked.append(list(questions))
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return [question * 10 for question in questions]


async def test_all_that_come_while_one_is_under_way_go_together() -> None:
    store = Store()
    gathering: Gathering[int, int] = Gathering(store.ask, at_once=3)
    callers = [asyncio.create_task(gathering.ask(1))]
    await asyncio.sleep(0)
    callers += [asyncio.create_task(gathering.ask(number)) for number in range(2, 7)]
    await asyncio.sleep(0)
    store.may_answer.set()
    assert await asyncio.gather(*callers) == [10, 20, 30, 40, 50, 60]
    assert store.asked == [[1], [2, 3, 4], [5, 6]]
    assert await gathering.ask(7) == 70


async def test_everybody_hears_why_there_is_no_answer_and_the_next_ones_are_asked_anew() -> None:
    store = Store()
    store.may_answer.set()
    store.failure = ValueError("broken")
    gathering: Gathering[int, int] = Gathering(store.ask, at_once=10)
    answers = await asyncio.gather(*(gathering.ask(number) for number in range(3)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["broken"] * 3
    store.failure = None
    assert await gathering.ask(4) == 40


async def test_a_store_that_gives_up_in_an_odd_way_is_asked_anew_too() -> None:
    """What a library lets escape is not always an Exception; whoever asks next must not wait for ever."""
    store = Store()
    store.may_answer.set()
    store.failure = asyncio.CancelledError()
    gathering: Gathering[int, int] = Gathering(store.ask, at_once=10)
    with pytest.raises(asyncio.CancelledError):
        await gathering.ask(1)
    store.failure = None
    assert await asyncio.wait_for(gathering.ask(4), 5) == 40


async def test_a_caller_who_goes_away_takes_no_answer_with_him() -> None:
    store = Store()
    gathering: Gathering[int, int] = Gathering(store.ask, at_once=10)
    first, second = asyncio.create_task(gathering.ask(1)), asyncio.create_task(gathering.ask(2))
    await asyncio.sleep(0)
    first.cancel()
    store.may_answer.set()
    assert await second == 20
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_who_has_gone_before_his_turn_is_not_asked_for() -> None:
    store = Store()
    gathering: Gathering[int, int] = Gathering(store.ask, at_once=2)
    callers = [asyncio.create_task(gathering.ask(number)) for number in range(1, 7)]
    await asyncio.sleep(0)
    for gone in callers[2:4]:
        gone.cancel()
    store.may_answer.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, int)] == [10, 20, 50, 60]
    assert store.asked == [[1, 2], [5, 6]]
    everybody = [asyncio.create_task(gathering.ask(7)), asyncio.create_task(gathering.ask(8))]
    await asyncio.sleep(0)
    everybody[0].cancel()
    assert await everybody[1] == 80
