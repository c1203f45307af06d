"""Messages of Kafka's client as columns of records, and what else they say."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, overload

from confluent_kafka import KafkaError, Message
from flowagg_native.chunk import Chunk

from flowagg_consumer.native import NativeRecords
from flowagg_consumer.partition import StopReason
from flowagg_consumer.records import Records

_TRUNCATED: Final = KafkaError(KafkaError._LOG_TRUNCATION).str()

# Kafka's words for "the position is not in the log"; the core finds out on which side it lies.
_STOPS: Final = {
    KafkaError._AUTO_OFFSET_RESET: StopReason.POSITION_BEYOND_LOG,
    KafkaError.OFFSET_OUT_OF_RANGE: StopReason.POSITION_BEYOND_LOG,
    KafkaError._LOG_TRUNCATION: StopReason.LOG_TRUNCATED,
}


class Gathered:
    """What messages that came together say; those of Kafka's client, and those that a chunk holds.

    messages: how many, what is no record included. count: how many records. by_partition: runs of them, of one leader
    epoch each. ends, stops, errors: as in Fetched. fatal: why the member can go on no longer.

    A loop in Python over messages costs more than all else here: it is C that goes over them, column by column.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self.by_partition: dict[int, list[Records]] = {}
        self.messages = len(messages)
        self.count = 0
        self.ends: dict[int, int] = {}
        self.stops: dict[int, tuple[StopReason, str]] = {}
        self.errors: list[str] = []
        self.fatal: str | None = None
        errors = list(map(Message.error, messages))
        if any(errors):
            for message, error in zip(messages, errors, strict=True):
                if error is not None:
                    self._add_error(message.partition(), message.offset(), error)
            messages = [message for message, error in zip(messages, errors, strict=True) if error is None]
        stop = 0
        for number, places in groupby(map(Message.partition, messages)):
            start, stop = stop, stop + sum(1 for _ in places)
            if number is None:
                self.errors.append("a record without a partition")
                continue
            self.count += stop - start
            self._add_records(self.by_partition.setdefault(number, []), messages[start:stop])

    def add(self, chunk: Chunk) -> None:
        """Add what was taken by the chunk."""
        said = chunk.said()
        self.messages += len(chunk) + len(said)
        self.count += len(chunk)
        for each in said:
            number = None if each.partition < 0 else each.partition
            self._add_error(number, each.offset, KafkaError(each.error, each.text))
        for number, leader_epoch, start, stop in chunk.runs():
            self.by_partition.setdefault(number, []).append(NativeRecords(chunk, start, stop, leader_epoch))

    def _add_error(self, number: int | None, offset: int | None, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self.fatal = self.fatal or error.str()
        if number is None:
            self.errors.append(str(error))
        elif error.code() == KafkaError._PARTITION_EOF:
            assert offset is not None  # noqa: S101 - the end of a log is one
            self.ends[number] = offset
        elif error.code() in _STOPS:
            # With auto.offset.reset=error librdkafka tells a truncated log as a reset that may not be, too.
            truncated = _TRUNCATED in error.str()
            self.stops[number] = StopReason.LOG_TRUNCATED if truncated else _STOPS[error.code()], error.str()
        else:
            self.errors.append(f"{error.name()}: {error.str()}")

    def _add_records(self, runs: list[Records], messages: Sequence[Message]) -> None:
        """Add messages of one partition to its runs, which end where the leader epoch changes."""
        first, last = messages[0], messages[-1]
        epoch = first.leader_epoch()
        if epoch != last.leader_epoch():
            split = next(place for place, message in enumerate(messages) if message.leader_epoch() != epoch)
            self._add_records(runs, messages[:split])
            self._add_records(runs, messages[split:])
            return
        start, stop = _offset(first), _offset(last) + 1
        contiguous = stop - start == len(messages)  # offsets ascend: no gap inside
        runs.append(
            Records(
                range(start, stop) if contiguous else list(map(_offset, messages)),
                list(map(Message.key, messages)),
                list(map(Message.value, messages)),
                -1 if epoch is None else epoch,
                _Timestamps(messages),
            )
        )


class _Timestamps(Sequence[int]):
    """The timestamps of messages, asked for when they are looked at: few records need theirs."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> "_Timestamps": ...
    def __getitem__(self, place: int | slice) -> "int | _Timestamps":
        if isinstance(place, slice):
            return _Timestamps(self._messages[place])
        return self._messages[place].timestamp()[1]

    def __iter__(self) -> Iterator[int]:
        return (message.timestamp()[1] for message in self._messages)


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None  # noqa: S101 - a fetched message has one
    return offset
