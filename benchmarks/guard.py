"""A guard against slower hot loops: CPU per flow of each, beside a bare loop on the same data in the same process.

    make bench-guard

The loops are the services' own code without I/O. Each turn runs the bare loop and then the hot one; the ratio is of
these neighbours, so that a slow or busy machine slows both. REFERENCE has the medians when they were last looked
at; a loop fails when it takes more than BAND times its reference. Prints what to change where that was meant.
"""

import argparse
import asyncio
import gc
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, cast

import msgspec
import uvicorn
from flowagg.flow import ByteCounts, Flow, encode_key, encode_value
from flowagg.http_guard import Limits, Phase, guard
from flowagg.view import Meta, encode_totals, totals_field
from flowagg_consumer.marks import Window
from flowagg_consumer.native import NativeRecords, NativeTotals
from flowagg_consumer.partition import Partition
from flowagg_consumer.records import Records
from flowagg_load.generator import Shape, flows
from flowagg_native.outlet import Parcel
from flowagg_reader.compiled import render_compiled
from flowagg_reader.union import render
from flowagg_writer.app import create_app
from flowagg_writer.batch import Acknowledgements, KnownKeys, plan
from flowagg_writer.log import Log
from flowagg_writer.parcels import ParcelBatch
from flowagg_writer.partitioner import partitioner
from flowagg_writer.settings import WriterSettings
from uvicorn.server import ServerState

BAND: Final = 1.5
REFERENCE: Final = {
    "consumer": 0.23,
    "consumer, Python": 1.55,
    "writer": 0.72,
    "writer, Python": 2.5,
    "writer, keyed": 6.1,
    "requests": 13.0,
    "reader": 3.0,
    "reader, Python": 9.0,
}
_TURNS: Final = 15
_FLOWS: Final = 60_000
_KEYS: Final = 20_000
_BATCH: Final = 10_000
_BODY: Final = 1_000


@dataclass(frozen=True, slots=True)
class Loop:
    """Two ways through the same flows. bare: what no service can do without. hot: what the service does."""

    name: str
    bare: Callable[[], object]
    hot: Callable[[], object]


def main() -> None:
    """Measure and print; the exit status says whether each loop is within its band."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=_TURNS, help="turns of each loop (%(default)s)")
    given = parser.parse_args()
    gc.set_threshold(100_000, 50, 100)  # as the services do
    sample = list(islice(flows(Shape(keys=_KEYS, hours=3), seed=1), _FLOWS))
    loops = [
        *consumer(sample),
        parcels(sample),
        writer(sample),
        writer(sample, "guard"),
        requests(sample),
        *reader(sample),
    ]
    gc.freeze()
    print(f"{len(sample):,} flows over {_KEYS:,} flow keys, {given.turns} turns; ns of CPU per flow, medians")
    print(f"{'':16}{'bare':>8}{'hot':>8}{'ratio':>8}{'reference':>11}")
    slow = [loop.name for loop in loops if not within(loop, given.turns, len(sample))]
    print(f"slower than {BAND:g} times the reference: {', '.join(slow)}" if slow else f"all within {BAND:g} times")
    if slow:
        print("Where that was meant, say why in docs/performance.md and set REFERENCE in benchmarks/guard.py.")
    sys.exit(1 if slow else 0)


def within(loop: Loop, turns: int, count: int) -> bool:
    """Whether a loop is within its band; prints its line."""
    bare, hot, ratios = [], [], []
    loop.bare(), loop.hot()  # the first turn fills caches
    for _ in range(turns):
        bare.append(_cpu_seconds(loop.bare))
        hot.append(_cpu_seconds(loop.hot))
        ratios.append(hot[-1] / bare[-1])
    ratio, reference = statistics.median(ratios), REFERENCE[loop.name]
    each = [statistics.median(seconds) / count * 1e9 for seconds in (bare, hot)]
    print(f"{loop.name:16}{each[0]:>8.0f}{each[1]:>8.0f}{ratio:>8.2f}{reference:>11.2f}")
    return ratio <= BAND * reference


def consumer(sample: list[Flow]) -> list[Loop]:
    """From records of one partition whose flow keys are in memory to the totals that are written: compiled, by Python.

    Bare: decode, fold into a dictionary.
    """
    keys = [encode_key(flow.src_app, flow.dest_app, flow.vpc_id, flow.hour) for flow in sample]
    values = [encode_value(flow.bytes_tx, flow.bytes_rx) for flow in sample]
    batches = [(keys[at : at + _BATCH], values[at : at + _BATCH]) for at in range(0, len(sample), _BATCH)]
    decode = msgspec.json.Decoder(ByteCounts).decode_lines
    sums: dict[bytes, tuple[int, int]] = {}
    totals = NativeTotals(1, 0)
    chunks = [
        NativeRecords.of(Records(range(len(some_keys)), some_keys, some_values, 0, [0] * len(some_keys)))
        for some_keys, some_values in batches
    ]
    partition = Partition(0, Meta(0, "topic", 0, 0, incomplete=False, incarnation="i"), Window(86_400_000))

    def bare() -> object:
        for some_keys, some_values in batches:
            for key, each in zip(some_keys, decode(b"\n".join(some_values)), strict=True):
                bytes_tx, bytes_rx = sums.get(key, (0, 0))
                sums[key] = (bytes_tx + each.bytes_tx, bytes_rx + each.bytes_rx)
        return sums

    def compiled() -> object:
        changed = None
        for records in chunks:
            totals.open(read_back=False)
            assert not totals.fold(records, records.decode(), None)
            changed = totals.changed()
        return changed

    def python() -> object:
        written = None
        for some_keys, some_values in batches:
            offsets = range(partition.position, partition.position + len(some_keys))
            examined = partition.examine(Records(offsets, some_keys, some_values, 0, [0] * len(some_keys)))
            assert examined is not None
            folded = partition.fold(examined)
            if folded.missing:
                partition.fill(folded, partition.sent_position, "i", [None] * folded.missing)
            written = partition.totals(folded)
            partition.sent(folded)
            partition.acknowledged(folded)
        return written

    return [Loop("consumer", bare, compiled), Loop("consumer, Python", bare, python)]


def writer(sample: list[Flow], key: str | None = None) -> Loop:
    """From bodies of 1,000 flows to the calls of a producer that takes everything. Bare: decode the bodies."""
    bodies = [msgspec.json.encode(sample[start : start + _BODY]) for start in range(0, len(sample), _BODY)]
    decode = msgspec.json.Decoder(list[Flow]).decode
    reports: deque[object] = deque(maxlen=0)
    partition_of = partitioner()

    def bare() -> object:
        return sum(len(decode(body)) for body in bodies)

    def take(*record: object) -> None:
        reports.append(record)

    def hot() -> object:
        known = KnownKeys(1_000)
        handed = 0
        for number, body in enumerate(bodies):
            batch = plan(body, None if key is None else f"{key}-{number}", 6)
            handed += len(batch.flows)
            acknowledgements = Acknowledgements(len(batch.flows), lambda: None)
            deque(batch.hand_over(take, "flows", acknowledgements, known, partition_of), maxlen=0)
        return handed

    return Loop("writer, Python" if key is None else "writer, keyed", bare, hot)


def parcels(sample: list[Flow]) -> Loop:
    """From bodies of 1,000 flows to the records in the library's memory. Bare: decode the bodies."""
    bodies = [msgspec.json.encode(sample[start : start + _BODY]) for start in range(0, len(sample), _BODY)]
    decode = msgspec.json.Decoder(list[Flow]).decode

    def bare() -> object:
        return sum(len(decode(body)) for body in bodies)

    def hot() -> object:
        return sum(len(parcel) for parcel in map(Parcel.of, bodies) if parcel is not None)

    return Loop("writer", bare, hot)


class _Transport:
    """Of a client that takes all."""

    def __init__(self) -> None:
        self.answers = 0

    def write(self, _: bytes) -> None:
        self.answers += 1

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, _: str) -> None:
        """Nothing is known of it."""


class _Log:
    """Has every batch at once."""

    def __init__(self) -> None:
        self._taken: list[tuple[int, Callable[[Any], None]]] = []

    def begin(self, batch: ParcelBatch, ended: Callable[[Any], None]) -> None:
        self._taken.append((batch.count, ended))

    def acknowledge(self) -> None:
        """Whatever was taken."""
        for count, ended in self._taken:
            ended(_Appended(count))
        self._taken.clear()


class _Appended(msgspec.Struct):
    count: int

    def answer(self) -> bytes:
        """That of any parcel."""
        return b'{"accepted":1,"position":"eyJ0IjoidG9waWMiLCJwIjp7IjAiOjF9fQ"}'


def requests(sample: list[Flow]) -> Loop:
    """From the bytes of a POST of one flow, by a client that has sent others, to those of its answer; without Kafka.

    Bare: decode the flow, encode an answer.
    """
    bodies = [msgspec.json.encode([flow]) for flow in sample]
    head = b"POST /flows HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    packets = [head % len(body) + body for body in bodies]
    decode, encode = msgspec.json.Decoder(list[Flow]).decode, msgspec.json.encode
    log, loop, transport = _Log(), asyncio.new_event_loop(), _Transport()
    application: Any = create_app(WriterSettings(), cast(Log, log))
    protocol = guard(Limits(), Phase(), application.exchanges)
    config = uvicorn.Config(application, http=protocol, ws="none", lifespan="off")
    config.load()
    connection = protocol(config, ServerState(), {}, loop)
    connection.connection_made(cast(Any, transport))

    def bare() -> object:
        return sum(len(encode({"accepted": len(decode(body)), "position": "eyJ0Ij"})) for body in bodies)

    def hot() -> object:
        before = transport.answers
        for packet in packets:
            connection.data_received(packet)
            log.acknowledge()
        if transport.answers != before + len(packets):
            raise AssertionError("a request was not answered")
        return transport

    return Loop("requests", bare, hot)


def reader(sample: list[Flow]) -> list[Loop]:
    """From what Redis holds of an hour in 6 partitions to its body: compiled, by Python.

    Bare: encode the rows, which are sorted already.
    """
    totals = [
        (totals_field(encode_key(flow.src_app, flow.dest_app, flow.vpc_id, 0)), encode_totals(number, number + 1))
        for number, flow in enumerate({(f.src_app, f.dest_app, f.vpc_id): f for f in sample}.values())
    ]
    partitions = [[part for pair in totals[number::6] for part in pair] for number in range(6)]
    # As many rows as flows are counted, so that ns per flow are ns per row.
    times, left = divmod(len(sample), len(totals))
    turns = times + (left > 0)
    rows = [
        Flow(src_app, dest_app, vpc_id, 0, number, number + 1)
        for number, (src_app, dest_app, vpc_id) in enumerate(
            sorted({(flow.src_app, flow.dest_app, flow.vpc_id) for flow in sample})
        )
    ]
    encode_into, buffer = msgspec.json.Encoder().encode_into, bytearray()

    def bare() -> object:
        for _ in range(turns):
            # Not into bytes of their own: whether those 2 MiB get fresh pages each time is glibc's choice, which
            # differs from process to process and doubles the time.
            encode_into(rows, buffer)
        return buffer

    def hot(way: Callable[..., Generator[None, None, Any]]) -> object:
        return [_result(way(0, [list(part) for part in partitions])) for _ in range(turns)]

    return [Loop("reader", bare, partial(hot, render_compiled)), Loop("reader, Python", bare, partial(hot, render))]


def _result(steps: Generator[None, None, Any]) -> Any:
    """What a generator returns in the end."""

    def through() -> Iterator[Any]:
        yield (yield from steps)

    *_, result = through()
    return result


def _cpu_seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


if __name__ == "__main__":
    main()
