"""Kafka: client properties and look-ups that more than one service needs."""

import asyncio
import atexit
import logging
import re
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ConsumerGroupDescription,
    ListOffsetsResultInfo,
    OffsetSpec,
    TopicDescription,
)

from flowagg.errors import FlowaggError
from flowagg.memory import give_back
from flowagg.settings import KafkaSettings

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_librdkafka = logging.getLogger("librdkafka")

_FROM_FILE = re.compile(r"\$\{file:(/[^}]+)\}")

_TIMES = re.compile(r" \(after \d+ms in state \w+(, \d+ identical error\(s\) suppressed)?\)")
_SAID_SECONDS = 10.0
_LOG_AGAIN_SECONDS = 30.0
_LINES_REMEMBERED = 256
_REFUSALS = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})
_OF_A_CONNECTION = _REFUSALS | {KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._FAIL}
_NO_CONNECTION = frozenset(
    {KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT}
)

_FAILURES_TO_RENEW = 3
_LEAST_RENEW_SECONDS = 5.0
_REST_SECONDS: Final = 5.0
"""Before a client ends that others have taken the place of: by then what it was asked has timed out. librdkafka (2.16)
loses the memory of what a client that ends has still been asked: 13 KB for the ends of six partitions, 0.2 MiB of a
reader's with each stall of a broker."""
_MOST_HEDGE_SECONDS = 60.0
_GROUP_PATIENCE_SECONDS = 10.0
_MOST_GROUP_PATIENCE_SECONDS = 300.0
_COORDINATOR_SECONDS = 3600.0
_GROUPS = 4
_MOVED = (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE)
"""The longest that librdkafka takes."""

METADATA_MAX_AGE_MS = 10_000
"""librdkafka refreshes metadata every 5 minutes by default: far too late to see a topic grow."""


RESERVED_PROPERTIES = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.gapless.guarantee",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.instance.id",
        "group.protocol",
        "isolation.level",
        "partition.assignment.strategy",
        "partitioner",
        "request.required.acks",
        "transactional.id",
    }
)
"""Properties that no file may set: with other values records could be lost or counted twice."""


class KafkaUnavailable(FlowaggError):
    """Kafka did not answer, or refused."""


class TopicMissing(KafkaUnavailable):
    """The topic does not exist."""


class InvalidProperties(FlowaggError):
    """The file of librdkafka properties cannot be read."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as Kafka describes it now. topic_id: changes when a topic is deleted and made again."""

    topic_id: str
    partitions: frozenset[int]


def client_properties(settings: KafkaSettings, service: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """librdkafka properties: the service's own, over them the user's file, over them the address.

    Raises InvalidProperties, or KafkaException at the client's construction for an unknown property.
    """
    properties: dict[str, Any] = {
        "client.id": f"flowagg-{service}",
        "topic.metadata.refresh.interval.ms": METADATA_MAX_AGE_MS,
        "allow.auto.create.topics": False,
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": 1000,
        # By default 30 s: so long a client was seen to knock at the address of a broker's pod that is gone, where
        # not even a refusal comes back, while its name leads to the next one.
        "socket.connection.setup.timeout.ms": 3000,
        **own,
    }
    if settings.kafka_properties_file is not None:
        given = read_properties(settings.kafka_properties_file)
        reserved = sorted(RESERVED_PROPERTIES & given.keys())
        if reserved:
            raise InvalidProperties(
                f"{settings.kafka_properties_file}: exactness rests on {', '.join(reserved)}: take it out"
            )
        properties |= given
    properties["bootstrap.servers"] = settings.kafka_bootstrap_servers
    properties.setdefault("error_cb", log_error)
    properties["logger"] = _librdkafka  # served by poll and consume, as callbacks are
    return properties


class LookUps:
    """A service's AdminClient, and a new one in its place where it does not answer.

    One that lost its brokers was seen to wait for an address or for the controller for seconds or for good, while a
    new one was answered at once. The end of one whose broker is gone was seen to wait for good, too (librdkafka
    2.16, in rd_kafka_destroy): so none ends in a thread that has other work, nor with the process.
    """

    def __init__(self, settings: KafkaSettings, service: str, own: Mapping[str, Any] | None = None) -> None:
        """own: properties of the client's own. Raises what admin_properties and the client's construction raise."""
        self._make = partial(AdminClient, admin_properties(settings, service) | dict(own or {}))
        self._failures = 0
        self._made_at = time.monotonic()
        self._hedge_seconds = self._pause_seconds = settings.kafka_hedge_seconds
        self._next_at = 0.0
        self.client: AdminClient = self._make()
        atexit.register(self.close)  # keeps it until then

    def close(self) -> None:
        """Have no client any more."""
        atexit.unregister(self.close)
        if (client := self.__dict__.pop("client", None)) is not None:
            _end([client])

    def answer(self, first: "Future[_T]", ask: "Callable[[AdminClient], Future[_T]]", seconds: float) -> _T:
        """What a look-up of this client brings, or, where it is late, the same one of another client, whichever is
        the first. That client takes this one's place. Raises TimeoutError, and what the look-up raises."""
        deadline = time.monotonic() + seconds
        asked = {first: self.client}
        spares: list[AdminClient] = []
        try:
            while (left := deadline - time.monotonic()) > 0:
                done, _ = wait(asked, min(left, self._hedge_seconds), FIRST_COMPLETED)
                for future in done:
                    client = asked.pop(future)
                    if future.exception() is None or not asked:
                        self._prefer(client, spares)
                        return future.result()
                if (spare := self._spare()) is not None:
                    spares.append(spare)
                    asked[ask(spare)] = spare
            raise TimeoutError
        finally:
            _end(spares, _REST_SECONDS)

    async def answer_soon(self, ask: Callable[[AdminClient], Awaitable[_T]]) -> _T:
        """As answer, in an event loop. The caller bounds the time."""
        asked = {_started(ask(self.client)): self.client}
        spares: list[AdminClient] = []
        try:
            while True:
                done, _ = await asyncio.wait(asked, timeout=self._hedge_seconds, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    client = asked.pop(future)
                    if future.exception() is None or not asked:
                        self._prefer(client, spares)
                        return future.result()
                if (spare := self._spare()) is not None:
                    spares.append(spare)
                    asked[_started(ask(spare))] = spare
        finally:
            for future in asked:
                future.cancel()
            _end(spares, _REST_SECONDS)

    def worked(self) -> None:
        """A look-up was answered."""
        self._failures = 0
        self._pause_seconds = self._hedge_seconds

    def failed(self) -> None:
        """A look-up was not answered."""
        self._failures += 1
        now = time.monotonic()
        if self._failures < _FAILURES_TO_RENEW or now < self._made_at + _LEAST_RENEW_SECONDS:
            return
        self._failures, self._made_at = 0, now
        old, self.client = [self.client], self._make()
        _end(old, _REST_SECONDS)

    def _spare(self) -> AdminClient | None:
        """Another client; None where one was made a moment ago.

        The pause between two doubles until a look-up is answered: Kafka as a whole may be away, and a client may
        never end.
        """
        now = time.monotonic()
        if now < self._next_at:
            return None
        self._next_at = now + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, _MOST_HEDGE_SECONDS)
        return self._make()

    def _prefer(self, client: AdminClient, spares: list[AdminClient]) -> None:
        """A spare one that has answered takes the place of the client, which is spare then."""
        if client in spares:
            spares.remove(client)
            spares.append(self.client)
            self.client, self._made_at = client, time.monotonic()


def group_names(view: str) -> tuple[str, ...]:
    """The consumer groups of a view: its own, and those that take its place while its coordinator cannot answer.

    No view can have such a name: names of views have no dots.
    """
    return groups_in_place_of(f"flowagg-{view}")


def groups_in_place_of(group: str) -> tuple[str, ...]:
    """A group, and those that take its place."""
    return (group, *(f"{group}.{number}" for number in range(2, _GROUPS + 1)))


def _has_moved(asked: "Future[Any]") -> bool:
    """Whether a look-up was told that its coordinator is another one."""
    error = None if asked.cancelled() else asked.exception()
    found = error.args[0] if isinstance(error, KafkaException) and error.args else None
    return isinstance(found, KafkaError) and found.code() in _MOVED


class GroupLooks:
    """Descriptions of a consumer group, one at a time, by a client of their own.

    Without a time-out of librdkafka's: a look-up at a coordinator that has timed out there ends the process
    once the coordinator can be reached (2.16: rd_kafka_admin_coord_request frees what rd_kafka_coord_req_fail uses
    then; seen as the assertion `eonce->refcnt > 0`, and as SIGSEGV). So the caller waits for as long as it likes, and a
    look-up that is under way is not begun again. One without an answer for long was seen to never get one, though the
    coordinator is back: then a new client takes the client's place.

    So it does after NOT_COORDINATOR: a client asks the broker that was the coordinator again and again, for good (seen
    after a broker's kill, from which the coordinator had long moved on).
    """

    def __init__(self, settings: KafkaSettings, service: str, own: Mapping[str, Any] | None = None) -> None:
        """own: properties of the client's own. Raises what admin_properties and the client's construction raise."""
        self._make = partial(AdminClient, admin_properties(settings, service) | dict(own or {}))
        self._client: AdminClient | None = None
        self._asked: Future[ConsumerGroupDescription] | None = None
        self._asked_at = 0.0
        self._group = ""
        self._patience_seconds = _GROUP_PATIENCE_SECONDS

    def start(self, group: str) -> "Future[ConsumerGroupDescription]":
        """The description that is under way, else a new one."""
        now = time.monotonic()
        if group != self._group:
            if self._asked is not None and not self._asked.done():
                self.close()  # of another group: its answer is not waited for
            self._group, self._asked, self._patience_seconds = group, None, _GROUP_PATIENCE_SECONDS
        if self._asked is not None and self._asked.done():
            if _has_moved(self._asked):
                self.close()
            self._patience_seconds, self._asked = _GROUP_PATIENCE_SECONDS, None
        if self._asked is not None and now >= self._asked_at + self._patience_seconds:
            self._patience_seconds = min(2 * self._patience_seconds, _MOST_GROUP_PATIENCE_SECONDS)
            self.close()
        if self._asked is None:
            if self._client is None:
                self._client = self._make()
                atexit.register(self.close)  # keeps it until then
            futures = self._client.describe_consumer_groups([group], request_timeout=_COORDINATOR_SECONDS)
            self._asked, self._asked_at = futures[group], now
        return self._asked

    def poll(self) -> None:
        """Serve callbacks and librdkafka's log lines, which would pile up."""
        if self._client is not None:
            self._client.poll(0)

    def close(self) -> None:
        """Have no client any more."""
        atexit.unregister(self.close)
        old, self._client, self._asked = [self._client] if self._client is not None else [], None, None
        _end(old)


def awaited(future: "Future[_T]") -> "asyncio.Future[_T]":
    """A look-up's future for an event loop, whose end is not the look-up's: confluent-kafka (2.16) loses the memory of
    an answer to a look-up that was cancelled, 7 KB each."""
    inner = asyncio.wrap_future(future)
    inner.add_done_callback(_seen)
    outer = asyncio.shield(inner)
    outer.add_done_callback(_seen)
    return outer


def _started(look_up: Awaitable[_T]) -> "asyncio.Future[_T]":
    """A task whose error counts as seen, also where nobody waits for it any more."""
    future = asyncio.ensure_future(look_up)
    future.add_done_callback(_seen)
    return future


def _seen(done: "asyncio.Future[Any]") -> None:
    if not done.cancelled():
        done.exception()


_ENDED: Final[list[AdminClient]] = []


def _end(clients: list[AdminClient], rest_seconds: float = 0.0) -> None:
    """Drop clients in a thread of their own, which may wait for good. rest_seconds: to wait before."""
    if not clients:
        return
    try:
        threading.Thread(target=_drop, args=(clients, rest_seconds), name="kafka-old-client", daemon=True).start()
    except RuntimeError:  # this process ends, and takes them with it
        _ENDED.extend(clients)


def _drop(clients: list[AdminClient], rest_seconds: float) -> None:
    time.sleep(rest_seconds)
    clients.clear()
    give_back()


def admin_properties(settings: KafkaSettings, service: str) -> dict[str, Any]:
    """Like client_properties for an AdminClient: producer's and consumer's properties are left out."""
    properties = client_properties(settings, service, {})
    client_only = (
        "batch.",
        "linger.",
        "queue.",
        "compression.",
        "fetch.",
        "delivery.",
        "message.timeout",
        "allow.auto",
        "group.",
    )
    return {name: value for name, value in properties.items() if not name.startswith(client_only)}


def read_properties(path: Path) -> dict[str, str]:
    """Read key=value lines; empty lines and lines that begin with # are skipped.

    A value ${file:/path} stands for that file's content, without the last line end. Raises
    InvalidProperties, whose text never shows a value.
    """
    properties = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidProperties(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidProperties(f"{path}, line {number}: write key=value")
        try:
            properties[name.strip()] = _resolved(value.strip())
        except ValueError as error:
            raise InvalidProperties(f"{path}, line {number}: {name.strip()}: {error}") from None
    return properties


def _resolved(value: str) -> str:
    """What a value stands for. Raises ValueError."""
    if "${file:" not in value:
        return value
    match = _FROM_FILE.fullmatch(value)
    if match is None:
        raise ValueError("write ${file:/path} with an absolute path, and nothing before or after it")
    try:
        return Path(match[1]).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{match[1]} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{match[1]} is not UTF-8 text") from None


def describe_topic(admin: AdminClient, topic: str, timeout_seconds: float) -> "Future[TopicDescription]":
    """Start a description of the topic; resolve it with topic_of."""
    futures = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_seconds)
    return futures[topic]


def topic_of(description: TopicDescription) -> Topic:
    """The Topic in a description."""
    return Topic(str(description.topic_id), frozenset(p.id for p in description.partitions))


def resolve_topic(
    description: "Future[TopicDescription]", topic: str, timeout_seconds: float, look_ups: LookUps | None = None
) -> Topic:
    """Wait for a description. look_ups: who has asked, and asks by another client where the answer is late.

    Raises TopicMissing or KafkaUnavailable.
    """
    ask = partial(describe_topic, topic=topic, timeout_seconds=timeout_seconds)
    seconds = timeout_seconds + 1
    try:
        found = description.result(seconds) if look_ups is None else look_ups.answer(description, ask, seconds)
        return topic_of(found)
    except KafkaException as error:
        raise look_up_error(error, topic) from error
    except TimeoutError as error:
        raise KafkaUnavailable(connection_trouble() or "Kafka did not answer in time") from error


def look_up_error(error: KafkaException, topic: str) -> KafkaUnavailable:
    """The project's error for a failed look-up."""
    code = error.args[0].code() if error.args and isinstance(error.args[0], KafkaError) else None
    if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return TopicMissing(f"topic {topic} does not exist: create it (6 partitions unless you know better)")
    # Without a connection a look-up only times out; the clients have said why there is none.
    trouble = connection_trouble() if code in _NO_CONNECTION else None
    return KafkaUnavailable(f"Kafka look-up failed: {trouble or error}")


def end_offsets(
    admin: AdminClient, topic: str, partitions: frozenset[int], timeout_seconds: float
) -> "dict[int, Future[Any]]":
    """Start a look-up of the partitions' end offsets: high watermarks, past open transactions.

    An acknowledged record behind another producer's open transaction cannot be read yet; with the
    last stable offset a view that lacks it would pass for fresh.
    """
    request = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in partitions}
    futures = admin.list_offsets(request, request_timeout=timeout_seconds)
    return {part.partition: future for part, future in futures.items()}


def known_offset(info: ListOffsetsResultInfo) -> ListOffsetsResultInfo:
    """What a look-up of an offset told. Raises KafkaException where it told nothing.

    librdkafka asks each leader by itself, and a leader that does not answer leaves its partitions at OFFSET_INVALID
    without an error (rd_kafka_ListOffsets_leaders_queried_cb). Taken for an end, that would make any view fresh.
    """
    if info.offset < 0:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT, "a partition's leader did not tell its offset"))
    return info


class _Repeats(logging.Filter):
    """Lets a line through once in a while: without a connection librdkafka says why ten times a second and more."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line has not passed for a while."""
        text, now = _without_times(f"{record.getMessage()} {getattr(record, 'reason', '')}"), time.monotonic()
        passed = self._passed.get(text)
        if passed is not None and now - passed < _LOG_AGAIN_SECONDS:
            return False
        if len(self._passed) >= _LINES_REMEMBERED:
            self._passed.clear()
        self._passed[text] = now
        return True


class _Connections:
    """What the clients of this process last said of their connections to brokers."""

    def __init__(self) -> None:
        self._said = ("", 0.0)
        self._refused = False

    def note(self, error: KafkaError, now: float) -> None:
        """Remember why a connection failed."""
        code = error.code()
        # After a refusal the connection's end is told too, in words that say less.
        told = self.trouble(now) is not None and self._refused
        refused = code in _REFUSALS
        if refused or (code in _OF_A_CONNECTION and not told):
            self._said, self._refused = (_words(error), now), refused

    def trouble(self, now: float) -> str | None:
        """Why there is no connection, where that was said a moment ago."""
        text, at = self._said
        return text if text and now - at < _SAID_SECONDS else None


def _without_times(text: str) -> str:
    return _TIMES.sub("", text)


def _words(error: KafkaError) -> str:
    """An error of a connection, with what to look at, and without what differs each time it is said."""
    text = _without_times(error.str())
    if error.code() == KafkaError._AUTHENTICATION:
        return f"AuthenticationFailed: {text}: look at sasl.* in the file of FLOWAGG_KAFKA_PROPERTIES_FILE"
    if error.code() == KafkaError._SSL or "SSL " in text:  # an alert of the broker's counts as its hanging up
        return f"TlsFailed: {text}: look at ssl.* in the file of FLOWAGG_KAFKA_PROPERTIES_FILE"
    return text


_connections = _Connections()
for _logger in (_log, _librdkafka):
    _logger.addFilter(_Repeats())


def connection_trouble() -> str | None:
    """Why a client of this process has no connection to a broker, where it said so in the last seconds."""
    return _connections.trouble(time.monotonic())


def log_error(error: KafkaError) -> None:
    """librdkafka's error callback: log it, and remember why."""
    _connections.note(error, time.monotonic())
    _log.warning("kafka client error", extra={"code": error.name(), "reason": _words(error)})
