"""Kafka as the commands on views see it: the topic, its bounds, and a view's consumer group; and what they tell."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec
from flowagg.kafka import (
    KafkaUnavailable,
    LookUps,
    Topic,
    connection_trouble,
    describe_topic,
    group_names,
    known_offset,
    look_up_error,
    resolve_topic,
)
from flowagg.settings import KafkaSettings
from flowagg.view import Meta

from flowagg_cli.errors import Busy

_SERVICE: Final = "cli"
_MARGIN_SECONDS: Final = 1.0
_WITHOUT_MEMBERS: Final = frozenset({"EMPTY", "DEAD"})


def group_of(view: str) -> str:
    """The consumer group that keeps a view."""
    return group_names(view)[0]


@dataclass(frozen=True, slots=True)
class Bounds:
    """A partition's first offset and its end."""

    low: int
    high: int


class KafkaLook:
    """Look-ups. Each raises KafkaUnavailable."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic = settings.kafka_topic
        self._seconds = settings.kafka_timeout_seconds
        self._look_ups = LookUps(settings, _SERVICE)

    def close(self) -> None:
        """End the client."""
        self._look_ups.close()

    def topic(self) -> Topic:
        """The topic as it is now."""
        description = describe_topic(self._look_ups.client, self._topic, self._seconds)
        return resolve_topic(description, self._topic, self._seconds)

    def bounds(self, partitions: Iterable[int]) -> dict[int, Bounds]:
        """Each partition's bounds; the end is that of what can be read, before open transactions."""
        asked = [TopicPartition(self._topic, number) for number in partitions]
        low = self._offsets(asked, OffsetSpec.earliest())
        high = self._offsets(asked, OffsetSpec.latest())
        return {number: Bounds(low[number], high[number]) for number in low}

    def group_state(self, view: str) -> str:
        """The state of a view's consumer group, as Kafka calls it in capitals; EMPTY also where there is none.

        Where another one has taken its place, the state of that. From the list of groups: a description does not know
        groups of the protocol of KIP-848.
        """
        states, error = self._groups(view)
        with_members = next((state for state in states.values() if state not in _WITHOUT_MEMBERS), None)
        if with_members is None and error is not None:
            # Each broker lists its own, and that of one with members may be the one that did not answer.
            raise look_up_error(error, self._topic)
        return with_members or next(iter(states.values()), "EMPTY")

    def _groups(self, view: str) -> tuple[dict[str, str], Any]:
        """The states of the view's groups that there are; and the first error of a broker."""
        groups = self._result(self._look_ups.client.list_consumer_groups(request_timeout=self._seconds))
        listed = {group.group_id: group.state.name for group in groups.valid}
        states = {name: listed[name] for name in group_names(view) if name in listed}
        return states, groups.errors[0] if groups.errors else None

    def delete_group(self, view: str) -> bool:
        """Delete a view's consumer groups; whether there was one.

        Its own as the last: others are there where its coordinator cannot answer.
        """
        own, *others = group_names(view)
        there, _ = self._groups(view)
        deleted = [self._delete(name) for name in (*(name for name in others if name in there), own)]
        return any(deleted)

    def _delete(self, group: str) -> bool:
        futures = self._look_ups.client.delete_consumer_groups([group], request_timeout=self._seconds)
        try:
            futures[group].result(self._seconds + _MARGIN_SECONDS)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return False
            if error.args[0].code() == KafkaError.NON_EMPTY_GROUP:
                raise Busy(f"the group {group} has members again: stop them, and remove the view again") from None
            raise look_up_error(error, self._topic) from error
        return True

    def _offsets(self, asked: Iterable[TopicPartition], spec: OffsetSpec) -> dict[int, int]:
        futures = self._look_ups.client.list_offsets(
            dict.fromkeys(asked, spec), request_timeout=self._seconds, isolation_level=IsolationLevel.READ_COMMITTED
        )
        return {part.partition: known_offset(self._result(future)).offset for part, future in futures.items()}

    def _result(self, future: Any) -> Any:
        try:
            return future.result(self._seconds + _MARGIN_SECONDS)
        except KafkaException as error:
            raise look_up_error(error, self._topic) from error
        except TimeoutError as error:
            raise KafkaUnavailable(connection_trouble() or "Kafka did not answer in time") from error


def check_no_members(state: str, view: str, doing: str) -> None:
    """Refuse while consumers of the view run."""
    if state not in _WITHOUT_MEMBERS:
        raise Busy(
            f"consumers of the view {view!r} are running (group {group_of(view)}: {state.lower()}): stop them before "
            f"{doing}, and wait until they have left the group"
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """What consumers would make of restored positions.

    refusals: why they would stop, or must not start. losses: what would be missing from the totals, exactly told by
    the view. tail: records that they will apply, by partition.
    """

    refusals: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    tail: dict[int, int] = field(default_factory=dict)


def fit(metas: Mapping[int, Meta], topic_name: str, topic: Topic, bounds: Mapping[int, Bounds]) -> Fit:
    """Compare positions with the log, as a consumer would. Pure."""
    found = Fit()
    topic_ids = {meta.topic_id for meta in metas.values()}
    if topic_ids - {topic.topic_id}:
        found.refusals.append(
            f"the positions count in another topic (id {', '.join(sorted(topic_ids))}; {topic_name} is "
            f"{topic.topic_id} now): consumers would stop with TopicChanged. A restore needs the log that was exported "
            "from; for a new log begin a new view"
        )
        return found
    gone = sorted(metas.keys() - topic.partitions)
    if gone:
        found.refusals.append(f"{topic_name} has no partition {', '.join(map(str, gone))}")
    for number, at in sorted(bounds.items()):
        meta = metas.get(number)
        if meta is None:
            found.tail[number] = at.high - at.low
            if at.low > 0:
                found.losses.append(f"partition {number} is not in the view, and its records before {at.low} are gone")
        elif meta.position > at.high:
            found.refusals.append(
                f"partition {number}: the position {meta.position} is beyond the log, which ends at {at.high}: "
                "consumers would stop with PositionBeyondLog"
            )
        elif meta.position < at.low:
            found.tail[number] = at.high - at.low
            found.losses.append(
                f"partition {number}: the log begins at {at.low} now: records {meta.position} to {at.low - 1} are gone"
            )
        else:
            found.tail[number] = at.high - meta.position
    return found
