"""Metrics that alerts go by: they say what is waited for, and are there before anything goes wrong."""

import asyncio
from collections.abc import Callable
from typing import cast

import httpx
import pytest
import redis
from flowagg.position import Position
from flowagg.view import Meta
from flowagg_consumer.effects import Fetched, LogAway
from flowagg_consumer.log import Log as ConsumerLog
from flowagg_consumer.partition import DeadLetterReason
from flowagg_consumer.settings import ConsumerSettings
from flowagg_consumer.store import Store as ConsumerStore
from flowagg_consumer.worker import Worker
from flowagg_reader.access import EVERYTHING
from flowagg_reader.app import Watch, create_app
from flowagg_reader.hour import Seen
from flowagg_reader.log import Log as ReaderLog
from flowagg_reader.metrics import GETS
from flowagg_reader.settings import ReaderSettings
from flowagg_reader.store import Store as ReaderStore
from flowagg_writer.metrics import POSTS
from prometheus_client import REGISTRY, Counter


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


class LastFetch:
    """A consumer's log and store of which one round is wanted; the round brings these errors."""

    def __init__(self, *errors: str) -> None:
        self._errors = list(errors)
        self.then: Callable[[], None] = lambda: None
        self.rejoins = 0

    def keep_pace(self, _: float) -> None: ...

    def fetch(self, _: float, __: float | None) -> Fetched:
        self.then()
        return Fetched(errors=self._errors)

    def start_describe(self) -> None:
        raise LogAway("Kafka did not answer in time")

    def close(self) -> None: ...

    def serve_logs(self) -> None: ...


@pytest.mark.parametrize(
    ("errors", "trouble", "shown"),
    [((), None, 0), (("all brokers are down",), None, 1), ((), "127.0.0.1:1: connection refused", 1)],
)
def test_a_consumer_shows_what_it_waits_for(
    errors: tuple[str, ...], trouble: str | None, shown: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowagg_consumer.worker.connection_trouble", lambda: trouble)
    fake = LastFetch(*errors)
    worker = Worker(ConsumerSettings(), cast(ConsumerLog, fake), cast(ConsumerStore, fake), "writer", lambda: "i")
    fake.then = worker.stop
    worker.run()
    assert value("flowagg_consumer_waiting", source="kafka") == shown
    for other in ("redis", "topic", "dead_letters"):
        assert value("flowagg_consumer_waiting", source=other) == 0


@pytest.mark.parametrize("reason", list(DeadLetterReason))
def test_dead_letters_are_shown_before_the_first_one(reason: DeadLetterReason) -> None:
    assert value("flowagg_consumer_dead_letters_total", reason=reason.value) is not None


@pytest.mark.parametrize("status", ["200", "500", "503"])
@pytest.mark.parametrize("answers", [GETS, POSTS], ids=["GET", "POST"])
def test_answers_are_shown_before_the_first_one(answers: Counter, status: str) -> None:
    (metric,) = answers.collect()
    assert status in {sample.labels["status"] for sample in metric.samples}


@pytest.mark.parametrize("result", ["ok", "failed"])
def test_look_ups_are_shown_before_the_first_one(result: str) -> None:
    assert value("flowagg_reader_end_offset_lookups_total", result=result) is not None


class Redis:
    """A reader's log and store: Redis is there or away, and lags one record behind."""

    def __init__(self, error: redis.RedisError | None = None) -> None:
        self._error = error
        self.looked = asyncio.Event()

    async def ping(self) -> None:
        if self._error is not None:
            raise self._error

    def serve_logs(self) -> None:
        self.looked.set()

    async def look(self, *_: object) -> dict[int, Seen]:
        meta = Meta(position=9, topic_id="t", leader_epoch=0, start=0, incomplete=False, incarnation="i")
        return {0: Seen(meta)}

    async def read_hour(self, *_: object) -> dict[int, tuple[Seen, list[bytes]]]:
        raise AssertionError("the hour has no rows")

    async def end(self) -> Position:
        return Position("t", {0: 10})


@pytest.mark.parametrize(("error", "shown"), [(None, 0), (redis.ConnectionError("refused"), 1)])
def test_a_reader_shows_whether_it_waits_for_redis(error: redis.RedisError | None, shown: float) -> None:
    async def watch() -> None:
        fake = Redis(error)
        watching = asyncio.create_task(Watch(cast(ReaderStore, fake), cast(ReaderLog, fake)).run())
        async with asyncio.timeout(5):
            await fake.looked.wait()
        watching.cancel()

    asyncio.run(watch())
    assert value("flowagg_reader_waiting", source="redis") == shown


@pytest.mark.parametrize(("consistency", "counted"), [("fresh", 1), ("strict", 1), ("eventual", 0)])
def test_a_stale_answer_counts_where_a_fresh_one_was_asked_for(consistency: str, counted: float) -> None:
    async def read() -> None:
        fake, settings = Redis(), ReaderSettings(fresh_wait_seconds=0.01)
        app = create_app(settings, cast(ReaderStore, fake), cast(ReaderLog, fake), lambda _: EVERYTHING)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://reader") as client:
            await client.get(f"/flows?hour=1&consistency={consistency}")

    before = value("flowagg_reader_stale_total") or 0
    asyncio.run(read())
    assert (value("flowagg_reader_stale_total") or 0) - before == counted
