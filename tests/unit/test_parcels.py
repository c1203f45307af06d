"""Bodies that the compiled library reads make the records that Python makes of them; all others are left to Python."""

import json
import logging
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, Producer
from flowagg.flow import Flow, InvalidFlow, decode_flows, encode_key, encode_value
from flowagg.position import Position
from flowagg_native.client import ClientRefuses, with_plugin
from flowagg_native.outlet import Outlet, Parcel, Tray, error_text
from flowagg_writer.accepted import accepted_body
from flowagg_writer.murmur2 import partition_of
from flowagg_writer.parcels import plan_parcel
from hypothesis import given
from hypothesis import strategies as st

SILENT = logging.Logger("silent", logging.CRITICAL)
LARGEST = 2**53 - 1
PLAIN = {"src_app": "a", "dest_app": "b", "vpc_id": "c", "hour": 1, "bytes_tx": 2, "bytes_rx": 3}


def records(parcel: Parcel) -> list[tuple[bytes, bytes]]:
    return [parcel.record(number) for number in range(len(parcel))]


def of_python(flows: list[Flow]) -> list[tuple[bytes, bytes]]:
    return [
        (encode_key(flow.src_app, flow.dest_app, flow.vpc_id, flow.hour), encode_value(flow.bytes_tx, flow.bytes_rx))
        for flow in flows
    ]


names = st.one_of(
    st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=5),
    st.sampled_from(["{", "}{", "n" * 256, "n" * 257]),
)
numbers = st.one_of(
    st.integers(0, 20), st.sampled_from([LARGEST, LARGEST + 1, -1, 1.5, 1.0, True, None, "1", 10**17, 10**30])
)
flows_ = st.fixed_dictionaries(
    {"src_app": names, "dest_app": names, "vpc_id": names, "hour": numbers, "bytes_tx": numbers, "bytes_rx": numbers},
    optional={"more": names},
).flatmap(lambda flow: st.permutations(list(flow.items())).map(dict))
good = st.builds(
    Flow,
    *[st.sampled_from(["a", "application-1", "n" * 256, "x y{}[],:"])] * 3,
    *[st.sampled_from([0, 1, 10, LARGEST])] * 3,
).map(msgspec.to_builtins)
spacing = st.sampled_from([(",", ":"), (", ", ": "), ("\n,\t", " :\r\n ")])


@given(st.lists(st.one_of(good, good, good, flows_), max_size=5), spacing, st.booleans())
def test_a_parcel_has_the_records_that_python_makes(
    made: list[dict[str, Any]], separators: tuple[str, str], ascii_: bool
) -> None:
    body = json.dumps(made, separators=separators, ensure_ascii=ascii_).encode()
    parcel = Parcel.of(body)
    try:
        expected = of_python(decode_flows(body))
    except InvalidFlow:
        assert parcel is None
        return
    if parcel is not None:
        assert records(parcel) == expected
    plain = all(
        len(flow) == 6 and all(str(flow[n]).isascii() for n in ("src_app", "dest_app", "vpc_id")) for flow in made
    )
    if plain and b"\\" not in body and b"\x7f" not in body:
        assert parcel is not None


@given(st.lists(good, min_size=1, max_size=3), st.data())
def test_a_body_that_was_cut_or_changed_is_never_read_otherwise_than_by_python(
    made: list[dict[str, Any]], data: st.DataObject
) -> None:
    body = bytearray(json.dumps(made).encode())
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b" ", b'"', b"{", b"}", b"]", b",", b"0", b"9", b"\xff", b"e1"])
        )
    parcel = Parcel.of(bytes(body))
    if parcel is not None:
        assert records(parcel) == of_python(decode_flows(bytes(body)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"[]]",
        b"[],",
        b"{}",
        b"[{}]",
        b"[1]",
        b"null",
        json.dumps([PLAIN | {"more": 1}]).encode(),
        json.dumps([PLAIN | {"src_app": ""}]).encode(),
        json.dumps([PLAIN | {"src_app": "\u00e9"}], ensure_ascii=False).encode(),
        json.dumps([PLAIN | {"src_app": "\u00e9"}]).encode(),
        json.dumps([PLAIN | {"hour": "1"}]).encode(),
        json.dumps([PLAIN]).replace('"hour": 1', '"hour": 01').encode(),
        json.dumps([PLAIN]).replace('"hour": 1', '"hour": 1.0').encode(),
        json.dumps([PLAIN]).replace('"hour": 1', '"hour": 1e0').encode(),
        json.dumps([PLAIN]).replace('"hour": 1', '"hour": 1, "hour": 1').encode(),
        json.dumps([PLAIN]).replace("}", ",}").encode(),
        json.dumps([PLAIN]).replace("]", ",]").encode(),
        json.dumps([PLAIN])[:-1].encode(),
        json.dumps([PLAIN]).encode() + b"\0",
    ],
)
def test_any_other_body_is_left_to_python(body: bytes) -> None:
    assert plan_parcel(body) is None


@pytest.mark.parametrize("body", [b"[]", b" [ \n] \t", b"[\r\n]"])
def test_no_flows_are_a_parcel_of_none(body: bytes) -> None:
    batch = plan_parcel(body)
    assert batch is not None
    assert (batch.count, batch.size_bytes, batch.key, batch.partitions_needed) == (0, len(body), None, 1)


def test_a_large_body_is_read_whole() -> None:
    made = [Flow("s" * (1 + n % 256), "d", "v", n, LARGEST, n) for n in range(30_000)]
    batch = plan_parcel(msgspec.json.encode(made))
    assert batch is not None
    assert records(batch._parcel) == of_python(made)
    with pytest.raises(IndexError):
        batch._parcel.record(30_000)


def test_a_body_of_braces_takes_no_more_memory_than_flows_would() -> None:
    """Sixteen million of them: each would have had a record's room, two gigabytes in all."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert Parcel.of(b"[" + b"{" * 16_000_000) is None
    many = [Flow("{" * 256, "{" * 256, "{" * 256, 1, 2, 3)] * 500
    parcel = Parcel.of(msgspec.json.encode(many))
    assert parcel is not None
    assert records(parcel) == of_python(many)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_what_is_not_handed_over_is_told_as_the_error_that_ended_it() -> None:
    parcel, tray, done = Parcel.of(json.dumps([PLAIN] * 3).encode()), Tray(), []
    assert parcel is not None
    sending = tray.send(parcel, 6, lambda: done.append(True))
    tray.serve()
    assert (parcel.told().all, done, len(tray)) == (False, [], 1)
    sending.close(-152)
    tray.serve()
    told = parcel.told()
    assert (told.taken, told.all, told.next_offsets, done, len(tray)) == (0, True, {}, [True], 0)
    assert told.error == error_text(-152)
    assert "purged" in told.error.lower()


def test_what_the_client_refuses_and_what_it_gives_up_is_told() -> None:
    """A producer that has no broker, and room for five records."""
    producer = Producer(
        with_plugin({"bootstrap.servers": "127.0.0.1:1", "queue.buffering.max.messages": 5, "logger": SILENT})
    )
    outlet, tray, done, reports = Outlet("flows"), Tray(), [], []
    producer.produce("flows", b"value", b"key", on_delivery=lambda error, _: reports.append(error and error.code()))
    batch = plan_parcel(json.dumps([PLAIN] * 9).encode())
    assert batch is not None
    for _ in batch.hand_over(outlet, tray, 0, lambda: done.append(True)):
        pass
    producer.poll(0)
    tray.serve()
    told = batch.told()
    assert (told.handed, told.complete, done) == (4, False, [])
    assert told.error is not None
    assert "full" in told.error.lower()
    producer.purge()
    producer.flush(5)
    tray.serve()
    told = batch.told()
    assert (told.handed, told.complete, told.next_offsets, done, len(tray)) == (4, True, {}, [True], 0)
    assert reports == [KafkaError._PURGE_QUEUE]  # a record of Python's has its own report
    none = plan_parcel(json.dumps([PLAIN]).encode())
    assert none is not None
    outlet.close()
    assert list(none.hand_over(outlet, tray, 6, lambda: done.append(False))) == []
    tray.serve()
    told = none.told()
    assert (told.handed, told.complete, done) == (0, True, [True, False])
    assert told.error is not None


def test_an_outlet_is_of_a_producer_with_the_plugin() -> None:
    with pytest.raises(ClientRefuses):
        Outlet("flows")


@pytest.fixture
def mocked() -> Iterator[tuple[Producer, Outlet]]:
    """librdkafka's own mock of a cluster, in which a topic has four partitions, and a producer to it."""
    properties = {"test.mock.num.brokers": 1, "bootstrap.servers": "", "partitioner": "murmur2_random", "linger.ms": 1}
    producer = Producer(with_plugin(properties | {"logger": SILENT}))
    outlet = Outlet("flows")
    yield producer, outlet
    outlet.close()
    producer.flush(5)


def serve_until(tray: Tray, done: Sequence[object], count: int, producer: Producer) -> None:
    deadline = time.monotonic() + 20
    while len(done) < count:
        assert time.monotonic() < deadline
        producer.poll(0.01)
        tray.serve()


@pytest.mark.parametrize("known", [0, 1, 3, 4, 5, 64])
def test_each_record_goes_where_its_key_belongs_however_many_partitions_are_known(
    mocked: tuple[Producer, Outlet], known: int
) -> None:
    """Of more than there are, and of none, the client knows better: as a topic that has got more since."""
    producer, outlet = mocked
    tray, done = Tray(), []
    made = [Flow(f"s{n}", "d", "v", n, 1, n) for n in range(700)]
    batch, first = plan_parcel(msgspec.json.encode(made)), plan_parcel(msgspec.json.encode(made[:1]))
    assert batch is not None
    assert first is not None
    first.send(outlet, tray, 0, lambda: done.append(0))  # whereupon the client knows the topic
    serve_until(tray, done, 1, producer)
    ends = first.told().next_offsets
    batch.send(outlet, tray, known, lambda: done.append(1))
    serve_until(tray, done, 2, producer)
    told = batch.told()
    assert (told.handed, told.complete, told.error) == (700, True, None)
    expected = Counter(dict.fromkeys(range(4), 0) | ends)
    for key, _ in of_python(made):
        wanted = partition_of(key, known or 4)
        expected[wanted if wanted < 4 else partition_of(key, 4)] += 1
    assert told.next_offsets == {part: end for part, end in expected.items() if end > ends.get(part, 0)}
    whole = accepted_body(700, Position("topic_id-", told.next_offsets))
    assert batch.answer(tray, "topic_id-") == (whole if 1 <= known <= 5 else None)  # else Python's to spell


def test_what_the_client_does_not_know_yet_is_sent_once_it_does(mocked: tuple[Producer, Outlet]) -> None:
    producer, outlet = mocked
    tray, done = Tray(), []
    batch = plan_parcel(msgspec.json.encode([Flow(f"s{n}", "d", "v", n, 1, n) for n in range(50)]))
    assert batch is not None
    batch.send(outlet, tray, 4, lambda: done.append(True))
    assert batch.answer(tray, "t") is None  # not yet
    serve_until(tray, done, 1, producer)
    assert sum(batch.told().next_offsets.values()) == 50
    assert batch.told().error is None


def test_a_parcel_of_which_not_all_is_there_has_no_answer(mocked: tuple[Producer, Outlet]) -> None:
    producer, outlet = mocked
    tray, done = Tray(), []
    batches = [plan_parcel(json.dumps([PLAIN] * 3).encode()) for _ in range(2)]
    for batch in batches:
        assert batch is not None
        batch.send(outlet, tray, 4, lambda: done.append(True))
        serve_until(tray, done, len(done) + 1, producer)
        outlet.close()
    sent, refused = batches
    assert sent is not None
    assert refused is not None
    assert refused.answer(tray, "t") is None
    assert (refused.told().handed, refused.told().complete) == (0, True)
    assert refused.told().error is not None
    assert sent.answer(tray, "t") is not None
    assert sent.answer(tray, 'a "topic"') is None  # Python knows how to spell that
    assert sent.answer(tray, "t" * 5_000) is None
