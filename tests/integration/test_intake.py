"""The way that records take from a real Kafka into the compiled library's memory."""

import threading
import time
from collections.abc import Callable

import pytest
from confluent_kafka import Producer
from flowagg.flow import encode_key, encode_value
from flowagg_consumer import effects as fx
from flowagg_consumer.log import Log
from flowagg_consumer.native import NativeRecords
from flowagg_consumer.settings import ConsumerSettings
from flowagg_stack.processes import wait_until

from tests.conftest import Place

KEY = encode_key("a", "b", "c", 1)


def produce(place: Place, count: int, first: int = 0, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"]})
    for number in range(first, first + count):
        producer.produce(place.topic, encode_value(number, 1), KEY, partition)
    assert producer.flush(20) == 0


def fetch_until(log: Log, done: Callable[[fx.Fetched], bool], seconds: float = 30) -> list[fx.Fetched]:
    """What came until something did that is waited for."""
    found = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found.append(log.fetch(0.1, 0.005))
        if done(found[-1]):
            return found
    raise AssertionError("it did not come")


@pytest.fixture(params=["classic", "auto"])
def log(place: Place, request: pytest.FixtureRequest) -> Log:
    known = {name.removeprefix("FLOWAGG_").lower(): value for name, value in place.environment_of("consumer").items()}
    return Log(ConsumerSettings(**known, group_protocol=request.param))  # type: ignore[arg-type] # as from the environment


def records_of(fetched: fx.Fetched) -> list[tuple[int, bytes | None]]:
    return [pair for run in fetched.records.get(0, ()) for pair in zip(run.offsets, run.values, strict=True)]


def test_records_come_again_from_wherever_a_partition_is_started_and_the_end_is_told(place: Place, log: Log) -> None:
    produce(place, 5)
    fetch_until(log, lambda fetched: 0 in fetched.assigned)
    for start in (0, 3, 0, 5, 2):
        log.restart(0, fx.Start(start, -1))
        found = fetch_until(log, lambda fetched: 0 in fetched.ends)
        assert [pair for fetched in found for pair in records_of(fetched)] == [
            (offset, encode_value(offset, 1)) for offset in range(start, 5)
        ]
        assert all(isinstance(run, NativeRecords) for fetched in found for run in fetched.records.get(0, ()))
        assert found[-1].ends == {0: 5}
        assert found[-1].waiting == {}
    log.pause(0)
    produce(place, 3, 5)
    assert not any(log.fetch(0.1, 0.005).records for _ in range(5))
    log.restart(0, fx.Start(5, -1))
    found = fetch_until(log, lambda fetched: bool(fetched.records))
    assert records_of(found[-1])[0] == (5, encode_value(5, 1))
    log.close()


def test_a_position_that_the_log_does_not_have_is_told(place: Place, log: Log) -> None:
    produce(place, 2)
    fetch_until(log, lambda fetched: 0 in fetched.assigned)
    log.restart(0, fx.Start(50, -1))
    assert "out of range" in str(fetch_until(log, lambda fetched: 0 in fetched.stops)[-1].stops[0]).lower()
    log.close()


def test_the_group_is_left_though_somebody_holds_records(place: Place, log: Log) -> None:
    """Such as the traceback of a fault: Kafka's client does not end before it has all of its messages."""
    produce(place, 500)
    fetch_until(log, lambda fetched: 0 in fetched.assigned)
    log.restart(0, fx.Start(0, -1))
    held = fetch_until(log, lambda fetched: bool(fetched.records))[-1]
    run = held.records[0][0]
    assert run.values[0] == encode_value(0, 1)
    closing = threading.Thread(target=log.close, daemon=True)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    with pytest.raises(IndexError):
        run.values[0]


def test_more_that_wait_are_counted(place: Place, log: Log) -> None:
    produce(place, 30_000)
    fetch_until(log, lambda fetched: 0 in fetched.assigned)
    log.restart(0, fx.Start(0, -1))
    found = fetch_until(log, lambda fetched: bool(fetched.records))[-1]
    came = len(records_of(found))
    assert came <= 4_000
    assert 0 < found.waiting[0] <= 30_000 - came
    found = fetch_until(log, lambda fetched: 0 in fetched.ends)[-1]
    assert found.waiting == {}
    log.close()


def test_what_belongs_to_an_open_transaction_does_not_wait_for_us(place: Place, log: Log) -> None:
    produce(place, 5)
    address = place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"]
    producer = Producer({"bootstrap.servers": address, "transactional.id": f"open-{place.topic}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(50):
        producer.produce(place.topic, encode_value(number, 1), KEY, 0)
    assert producer.flush(20) == 0
    fetch_until(log, lambda fetched: 0 in fetched.assigned)
    log.restart(0, fx.Start(0, -1))
    found = fetch_until(log, lambda fetched: 0 in fetched.ends)[-1]
    assert (found.ends, found.waiting) == ({0: 5}, {})
    assert log.fetch(0.1, 0.005).waiting == {}
    producer.commit_transaction(30)
    found = fetch_until(log, lambda fetched: 0 in fetched.ends)[-1]
    assert (found.ends, found.waiting) == ({0: 56}, {})
    log.close()


@pytest.mark.parametrize("fetches", [True, False])
def test_what_was_read_is_freed_by_its_brokers_thread_or_where_that_has_no_more_to_do_after_a_second(
    place: Place, log: Log, fetches: bool
) -> None:
    produce(place, 500)
    fetch_until(log, lambda fetched: 0 in fetched.assigned)
    log.restart(0, fx.Start(0, -1))
    fetch_until(log, lambda fetched: 0 in fetched.ends)
    intake = log._intake
    assert intake is not None
    if fetches:
        wait_until(lambda: intake.shelved == 0, "the broker has answered again", 10)
        log.close()
        return
    log.pause(0)
    time.sleep(2.5)  # a Fetch that was on its way has been answered, and no further one is sent
    produce(place, 500, 500)
    log.restart(0, fx.Start(500, -1))
    fetched = fetch_until(log, lambda fetched: bool(fetched.records))
    log.pause(0)
    time.sleep(0.6)
    del fetched
    before = intake.shelved
    deadline = time.monotonic() + 10
    while intake.shelved and time.monotonic() < deadline:
        log.fetch(0.1, 0.005)
    assert (before > 0, intake.shelved) == (True, 0)
    log.close()


def test_a_client_ends_with_messages_that_are_read_and_not_freed(place: Place, log: Log) -> None:
    produce(place, 500)
    fetch_until(log, lambda fetched: 0 in fetched.assigned)
    log.restart(0, fx.Start(0, -1))
    fetch_until(log, lambda fetched: 0 in fetched.ends)
    closing = threading.Thread(target=log.close, daemon=True)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
