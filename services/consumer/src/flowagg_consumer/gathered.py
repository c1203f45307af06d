"""Messages of Kafka's client as columns of records, and what else they say."""

from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaError, Message

from flowagg_consumer import effects as fx
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
    """What one fetch has brought so far. Nothing of the messages is kept but their contents.

    messages: how many, what is no record included. records: how many. fatal: why the member can go on no longer.
    """

    def __init__(self) -> None:
        self.messages = 0
        self.records = 0
        self.fatal: str | None = None
        self._runs: dict[int, list[_Run]] = {}
        self._ends: dict[int, int] = {}
        self._stops: dict[int, tuple[StopReason, str]] = {}
        self._errors: list[str] = []

    def add(self, messages: Sequence[Message]) -> None:
        """Take the next messages in."""
        self.messages += len(messages)
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            error = message.error()
            number = message.partition()
            if error is not None or number is None:
                self._add_error(message, error, number)
                continue
            found = by_partition.get(number)
            if found is None:
                by_partition[number] = [message]
            else:
                found.append(message)
        for number, some in by_partition.items():
            self.records += len(some)
            self._add_records(self._runs.setdefault(number, []), some)

    def fetched(self, revoked: Sequence[int], assigned: Sequence[int], commit_failed: bool) -> fx.Fetched:
        """All of it."""
        records = {number: [run.records() for run in runs] for number, runs in self._runs.items()}
        return fx.Fetched(revoked, assigned, records, self._ends, self._stops, self._errors, commit_failed)

    def _add_error(self, message: Message, error: KafkaError | None, number: int | None) -> None:
        if error is not None and (error.fatal() or error.code() == KafkaError._FATAL):
            self.fatal = self.fatal or error.str()
        if number is None or error is None:
            self._errors.append(str(error))
        elif error.code() == KafkaError._PARTITION_EOF:
            self._ends[number] = _offset(message)
        elif error.code() in _STOPS:
            # With auto.offset.reset=error librdkafka tells a truncated log as a reset that may not be, too.
            truncated = _TRUNCATED in error.str()
            self._stops[number] = StopReason.LOG_TRUNCATED if truncated else _STOPS[error.code()], error.str()
        else:
            self._errors.append(f"{error.name()}: {error.str()}")

    def _add_records(self, runs: "list[_Run]", messages: Sequence[Message]) -> None:
        """Add messages of one partition to its runs, which end where the leader epoch changes."""
        first, last = messages[0], messages[-1]
        epoch = first.leader_epoch()
        if epoch != last.leader_epoch():
            split = next(place for place, message in enumerate(messages) if message.leader_epoch() != epoch)
            self._add_records(runs, messages[:split])
            self._add_records(runs, messages[split:])
            return
        known = -1 if epoch is None else epoch
        if not runs or runs[-1].leader_epoch != known:
            runs.append(_Run(known))
        runs[-1].add(messages)


class _Run:
    """Consecutive records of one partition and leader epoch."""

    __slots__ = ("_keys", "_offsets", "_timestamps", "_values", "leader_epoch")

    def __init__(self, leader_epoch: int) -> None:
        self.leader_epoch = leader_epoch
        self._offsets: range | list[int] = range(0)
        self._keys: list[bytes | None] = []
        self._values: list[bytes | None] = []
        self._timestamps: list[int] = []

    def add(self, messages: Sequence[Message]) -> None:
        """Take messages in, in offset order."""
        start, stop = _offset(messages[0]), _offset(messages[-1]) + 1
        before = self._offsets
        follows = not before or before[-1] + 1 == start
        if isinstance(before, range) and follows and stop - start == len(messages):  # offsets ascend: no gap inside
            self._offsets = range(before.start if before else start, stop)
        else:
            self._offsets = [*before, *map(_offset, messages)]
        self._keys += [message.key() for message in messages]
        self._values += [message.value() for message in messages]
        self._timestamps += [message.timestamp()[1] for message in messages]

    def records(self) -> Records:
        """All of them."""
        return Records(self._offsets, self._keys, self._values, self.leader_epoch, self._timestamps)


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None  # noqa: S101 - a fetched message has one
    return offset
