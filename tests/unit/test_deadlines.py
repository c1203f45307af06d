"""Deadlines: each comes in its time, but for those that are cleared before."""

import asyncio
import time
from functools import partial

import pytest
from flowagg.deadlines import Deadlines


def test_what_is_not_cleared_comes_in_its_order_and_in_its_time() -> None:
    async def scenario() -> None:
        came: list[tuple[int, float]] = []
        deadlines = Deadlines(0.2)
        began = time.monotonic()

        def come(number: int) -> None:
            came.append((number, time.monotonic() - began))

        numbers = [deadlines.set(partial(come, number)) for number in range(4)]
        deadlines.clear(numbers[0])
        deadlines.clear(numbers[2])
        deadlines.clear(numbers[2])
        await asyncio.sleep(0.1)
        deadlines.set(partial(come, 9))
        assert came == []
        await asyncio.sleep(1)
        assert [n for n, _ in came] == [1, 3, 9]
        assert [seconds >= wanted for (_, seconds), wanted in zip(came, (0.19, 0.19, 0.29), strict=True)] == [True] * 3
        assert len(deadlines) == 0

    asyncio.run(scenario())


def test_after_a_rest_and_after_a_failure_it_goes_on() -> None:
    async def scenario() -> None:
        came: list[int] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, __: came.append(-1))

        def fail() -> None:
            came.append(0)
            raise RuntimeError("as no callback should")

        deadlines = Deadlines(0.01)
        deadlines.set(fail)
        deadlines.set(lambda: deadlines.set(lambda: came.append(2)))
        await asyncio.sleep(0.2)
        assert came == [0, -1, 2]
        deadlines.set(lambda: came.append(3))
        await asyncio.sleep(0.2)
        assert came == [0, -1, 2, 3]

    asyncio.run(scenario())


@pytest.mark.parametrize("cleared", [0, 1])
def test_nothing_is_waited_for_where_all_is_cleared(cleared: int) -> None:
    async def scenario() -> None:
        deadlines = Deadlines(0.01)
        number = deadlines.set(lambda: None)
        if cleared:
            deadlines.clear(number)
        await asyncio.sleep(0.1)
        assert (len(deadlines), deadlines._timer) == (0, None)

    asyncio.run(scenario())
