"""The core of a POST: which records it makes, when they are acknowledged, which keys are known.

No I/O and no clock: the producer's `produce` comes in as an argument, so that a simulation can
stand in for Kafka and fail at any record.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count, repeat
from operator import length_hint
from typing import Final, NamedTuple, Protocol

import msgspec
from flowagg.errors import FlowaggError
from flowagg.flow import ByteCounts, Flow, decode_flows, encode_column, encode_value
from flowagg.idempotency import Mark, body_digest

from flowagg_writer.murmur2 import partition_of

FLOWS_A_STEP: Final = 2_000
"""Flows handed to Kafka before other requests get their turn: some 2 ms, 8 ms if keyed and all flow keys are new."""

Produce = Callable[..., object]
"""A Kafka producer's `produce`, called by position: topic, value, key, partition, callback. Partition -1
leaves the choice to the producer's partitioner. Returns once the record is queued, raises if it is not."""


class KeyReused(FlowaggError):
    """An Idempotency-Key that this writer has seen with another body."""


class DeliveryError(Protocol):
    """Why a record was not delivered."""

    def str(self) -> str:
        """The reason as text."""


class Report(Protocol):
    """The producer's report of one delivered record."""

    def partition(self) -> int | None:
        """The partition that it is in."""

    def offset(self) -> int | None:
        """Its offset there; None where Kafka did not tell."""


class Told(NamedTuple):
    """What the reports of a batch's records say so far.

    handed: how many records the producer has taken. complete: whether all of these are reported. error: the first
    reason why a record may be missing from the log, or from next_offsets; None if there is none. next_offsets: by
    partition, the offset after the largest acknowledged one.
    """

    handed: int
    complete: bool
    error: str | None
    next_offsets: dict[int, int]


class Acknowledgements:
    """The reports of one batch's records as they come in.

    expected: records that will be reported; fewer after `stopped`. delivered: takes the report of one
    record. on_complete: called once, when the last report is in.
    """

    __slots__ = ("_errors", "_fewer", "_last", "_on_complete", "delivered", "expected")

    def __init__(self, expected: int, on_complete: Callable[[], None]) -> None:
        self.expected = left = expected
        self._last = last = dict[int | None, Report]()
        self._errors = errors = list[str]()

        # Closures and not methods, for one is called for each record; and such that do not hold their owner.
        def delivered(error: DeliveryError | None, report: Report) -> None:
            nonlocal left
            if error is None:
                # Reports of a partition come in offset order, so the last one is its largest offset.
                last[report.partition()] = report
            else:
                errors.append(error.str())
            left -= 1
            if not left:
                on_complete()

        def fewer(count: int) -> int:
            nonlocal left
            left -= count
            return left

        self.delivered = delivered
        self._on_complete = on_complete
        self._fewer = fewer  # expect so many reports less; how many are left

    def stopped(self, handed: int, reason: str) -> None:
        """No record from place `handed` on was handed to Kafka: expect the reports of those before alone."""
        self._errors.append(reason)
        fewer, self.expected = self.expected - handed, handed
        if not self._fewer(fewer):
            self._on_complete()

    def told(self) -> Told:
        """All of it at once."""
        return Told(self.expected, self.complete, self.error, self.next_offsets)

    @property
    def complete(self) -> bool:
        """Whether every expected report is in."""
        return not self._fewer(0)

    @property
    def error(self) -> str | None:
        """The first reason why a record may be missing from the log, or from next_offsets; None if there is none."""
        if self._errors:
            return self._errors[0]
        # librdkafka found out late that a retry was a repeat.
        unknown = any(report.offset() is None for report in self._last.values())
        return "a record's offset is unknown" if unknown else None

    @property
    def next_offsets(self) -> dict[int, int]:
        """Partition -> the offset after the largest acknowledged one."""
        known = ((part, report.offset()) for part, report in self._last.items())
        return {part: offset + 1 for part, offset in known if part is not None and offset is not None}


class KnownKeys:
    """The Idempotency-Keys that this writer has seen last, with their bodies' digests.

    A courtesy to the client that mixes up its keys: bounded and of this writer alone. That a repeat
    never counts twice is the consumer's work, so a known key never answers a POST.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._digests: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._digests)

    def check(self, key: str, digest: str) -> None:
        """Raises KeyReused where the key is known with another digest."""
        known = self._digests.get(key)
        if known is None:
            return
        self._digests.move_to_end(key)
        if known != digest:
            raise KeyReused(
                "this Idempotency-Key came with another body before: "
                "send that body again unchanged, or this one with a key of its own"
            )

    def remember(self, key: str, digest: str) -> None:
        """Keep a key, in the place of the least recently used one when there are too many."""
        self._digests[key] = digest
        self._digests.move_to_end(key)
        if len(self._digests) > self._capacity:
            self._digests.popitem(last=False)


class Batch(msgspec.Struct, frozen=True):
    """The valid flows of one POST on their way to the log, one record each.

    size_bytes: at most what the records hold. key and digest: the Idempotency-Key and the body's
    digest; None and empty without one. keyed_partitions: partitions that keyed records are spread over.
    """

    flows: list[Flow]
    size_bytes: int
    key: str | None
    digest: str
    keyed_partitions: int

    @property
    def count(self) -> int:
        """Flows that are not handed over yet."""
        return len(self.flows)

    @property
    def partitions_needed(self) -> int:
        """The fewest partitions that the topic may have."""
        return 1 if self.key is None else self.keyed_partitions

    def check(self, known: KnownKeys) -> None:
        """Raises KeyReused where the batch's key is known with another body."""
        if self.key is not None:
            known.check(self.key, self.digest)

    def hand_over(
        self,
        produce: Produce,
        topic: str,
        acknowledgements: Acknowledgements,
        known: KnownKeys,
        partition_of: Callable[[bytes, int], int] = partition_of,
    ) -> Iterator[None]:
        """Hand every record to Kafka in order, pausing (yielding) after each FLOWS_A_STEP of them.

        The flows are let go as they are handed over: the wait for acknowledgements is long, and their
        memory, still in the processor's caches, serves the next body.

        The key is known from its first record on. Raises what produce raises; whenever it ends early,
        acknowledgements expect no more than what was handed over.
        """
        flows, key, digest, delivered = self.flows, self.key, self.digest, acknowledgements.delivered
        # Marks count the batch's records per partition: without holes they are one range to remember.
        next_index = [count().__next__ for _ in range(0 if key is None else self.keyed_partitions)]
        handed = 0  # records, once this step is through
        values: Iterator[bytes] = iter([])
        try:
            while flows:
                if handed:
                    yield
                step = flows[:FLOWS_A_STEP]
                del flows[:FLOWS_A_STEP]
                # By columns: a call of the encoder, and a turn of a loop here, for each record cost more.
                keys = encode_column([(flow.src_app, flow.dest_app, flow.vpc_id, flow.hour) for flow in step])
                partitions: Iterable[int] = repeat(-1)
                if key is None:
                    counts = [ByteCounts(flow.bytes_tx, flow.bytes_rx) for flow in step]
                else:
                    partitions = list(map(partition_of, keys, repeat(self.keyed_partitions)))
                    counts = [
                        ByteCounts(flow.bytes_tx, flow.bytes_rx, Mark(key, digest, next_index[partition]()))
                        for flow, partition in zip(step, partitions, strict=True)
                    ]
                del step
                handed += len(keys)
                values = iter(encode_column(counts))
                del counts
                deque(map(produce, repeat(topic), values, keys, partitions, repeat(delivered)), maxlen=0)
                if key is not None:
                    known.remember(key, digest)
        except GeneratorExit:
            acknowledgements.stopped(handed, "the request has ended")
            raise
        except BaseException as error:
            handed -= length_hint(values) + 1  # the record in hand was not taken
            if key is not None and handed:
                known.remember(key, digest)
            acknowledgements.stopped(handed, str(error))
            raise


def plan(
    body: bytes,
    idempotency_key: str | None,
    keyed_partitions: int,
    decode: Callable[[bytes], list[Flow]] = decode_flows,
) -> Batch:
    """The batch that a POST's body makes: all of it or, raising InvalidFlow, nothing.

    decode: reads the flows of a body. The digest is of the body without its Content-Encoding.

    idempotency_key: None, or one that flowagg.idempotency.is_key accepts. With it every record
    carries a mark, and its partition is taken modulo keyed_partitions, however many partitions the
    topic has by now: so a repeat meets what the consumer knows of the first time.
    """
    flows = decode(body)
    if idempotency_key is None:
        return Batch(flows, len(body), None, "", keyed_partitions)
    digest = body_digest(body)
    # A record's key and value are never longer than its flow in the body; the mark comes on top.
    largest_mark = Mark(idempotency_key, digest, len(flows))
    mark_bytes = len(encode_value(0, 0, largest_mark)) - len(encode_value(0, 0))
    return Batch(flows, len(body) + mark_bytes * len(flows), idempotency_key, digest, keyed_partitions)
