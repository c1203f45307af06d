"""Look-ups that a client does not answer are asked by another one, which takes its place."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from flowagg import kafka
from flowagg.kafka import LookUps, known_offset
from flowagg.settings import KafkaSettings

HEDGE = 0.05


class Client:
    """An AdminClient that answers with its number; the deaf ones never do."""

    made = 0
    deaf = 0

    def __init__(self, _: dict[str, Any]) -> None:
        Client.made += 1
        self.number = Client.made
        self.asked = 0

    def ask(self, after: float = 0.0) -> "Future[int]":
        self.asked += 1
        future: Future[int] = Future()
        if self.number > Client.deaf:
            threading.Timer(after, future.set_result, [self.number]).start()
        return future


def ask(client: Any, after: float = 0.0) -> "Future[int]":
    found: Future[int] = client.ask(after)
    return found


async def ask_soon(client: Any) -> int:
    return await asyncio.wrap_future(ask(client))


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch) -> Iterator[LookUps]:
    monkeypatch.setattr(kafka, "AdminClient", Client)
    Client.made = Client.deaf = 0
    made = LookUps(KafkaSettings(kafka_hedge_seconds=HEDGE), "test")
    yield made
    made.close()


def test_a_client_that_answers_is_the_only_one(look_ups: LookUps) -> None:
    assert [look_ups.answer(ask(look_ups.client), ask, 5) for _ in range(3)] == [1, 1, 1]
    assert [asyncio.run(look_ups.answer_soon(ask_soon)) for _ in range(3)] == [1, 1, 1]
    assert Client.made == 1


@pytest.mark.parametrize("deaf", [1, 2, 3])
def test_another_takes_the_place_of_one_that_does_not(look_ups: LookUps, deaf: int) -> None:
    Client.deaf = deaf
    assert look_ups.answer(ask(look_ups.client), ask, 5) == deaf + 1
    look_ups.worked()
    assert look_ups.answer(ask(look_ups.client), ask, 5) == deaf + 1
    assert Client.made == deaf + 1


def test_the_same_in_an_event_loop(look_ups: LookUps) -> None:
    Client.deaf = 2
    assert asyncio.run(look_ups.answer_soon(ask_soon)) == 3
    assert asyncio.run(look_ups.answer_soon(ask_soon)) == 3
    assert Client.made == 3


def test_one_that_is_slow_keeps_its_place_where_it_is_still_the_first(look_ups: LookUps) -> None:
    first = ask(look_ups.client, 3 * HEDGE)
    assert look_ups.answer(first, lambda client: ask(client, 60 * HEDGE), 5) == 1
    assert look_ups.answer(ask(look_ups.client), ask, 5) == 1


def test_without_any_answer_the_clients_become_rare(look_ups: LookUps) -> None:
    Client.deaf = 1000
    for _ in range(3):
        with pytest.raises(TimeoutError):
            look_ups.answer(ask(look_ups.client), ask, 10 * HEDGE)
    assert Client.made <= 1 + 5  # pauses of 1, 2, 4, 8, 16 times HEDGE

    async def bounded() -> None:
        async with asyncio.timeout(5 * HEDGE):
            await look_ups.answer_soon(ask_soon)

    with pytest.raises(TimeoutError):
        asyncio.run(bounded())


def test_an_error_is_raised_at_once_and_that_of_one_of_two_waits_for_the_other(look_ups: LookUps) -> None:
    refused = KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))

    def refuse(_: Any) -> "Future[int]":
        future: Future[int] = Future()
        future.set_exception(refused)
        return future

    began = time.monotonic()
    with pytest.raises(KafkaException):
        look_ups.answer(refuse(None), refuse, 5)
    assert time.monotonic() < began + 2.5
    assert Client.made == 1
    assert look_ups.answer(ask(look_ups.client, 4 * HEDGE), refuse, 5) == 1


def test_an_offset_that_was_not_told_is_an_error() -> None:
    class Info:
        offset = -1001

    with pytest.raises(KafkaException, match="did not tell"):
        known_offset(Info())  # type: ignore[arg-type]
