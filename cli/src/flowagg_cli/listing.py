"""The views in Redis, and how far each is."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import redis
from confluent_kafka import KafkaException
from flowagg.errors import FlowaggError
from flowagg.redis_client import connect
from flowagg.view import Meta, hours_key

from flowagg_cli.kafka_look import Bounds, KafkaLook
from flowagg_cli.keys import MEMBERS, view_of
from flowagg_cli.redis_source import RedisAway
from flowagg_cli.redis_target import Import, look
from flowagg_cli.settings import ViewSettings

_SCAN_COUNT: Final = 1000


@dataclass(frozen=True, slots=True)
class Ends:
    """What Kafka tells of the topic; topic_id is None where it did not, and trouble says why."""

    topic_id: str | None
    bounds: Mapping[int, Bounds]
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """A view. hours: number of hours by partition."""

    name: str
    partitions: Mapping[int, tuple[Meta | None, Import | None]]
    hours: Mapping[int, int]


def find_views(settings: ViewSettings) -> list[Listed]:
    """The views in Redis, by name. Raises RedisAway, DamagedView."""
    try:
        with closing(connect(settings, "cli", max_connections=2)) as client:
            names = {view_of(key) for key in client.scan_iter(MEMBERS, count=_SCAN_COUNT)}
            return [_find(client, name) for name in sorted(name for name in names if name is not None)]
    except redis.RedisError as error:
        raise RedisAway(f"Redis does not answer, or refuses: {error}") from error


def _find(client: "redis.Redis", name: str) -> Listed:
    partitions = look(client, name)
    metas = {number: meta for number, (meta, _) in partitions.items() if meta is not None}
    with client.pipeline(transaction=False) as pipeline:
        for number, meta in metas.items():
            pipeline.hlen(hours_key(name, number, meta.incarnation))
        return Listed(name, partitions, dict(zip(metas, pipeline.execute(), strict=True)))


def find_ends(settings: ViewSettings) -> Ends:
    """Where the log ends now."""
    try:
        with closing(KafkaLook(settings)) as kafka:
            topic = kafka.topic()
            return Ends(topic.topic_id, kafka.bounds(topic.partitions))
    except (FlowaggError, KafkaException) as error:
        return Ends(None, {}, str(error))


def rows(views: Iterable[Listed], ends: Ends) -> list[dict[str, Any]]:
    """The views for --json. lag: in records; None where it is not known. Pure."""
    return [_row(view, ends) for view in views]


def _row(view: Listed, ends: Ends) -> dict[str, Any]:
    parts = []
    for number, (meta, import_) in sorted(view.partitions.items()):
        end = ends.bounds.get(number)
        same = meta is not None and meta.topic_id == ends.topic_id
        parts.append(
            {
                "partition": number,
                "position": None if meta is None else meta.position,
                "start": None if meta is None else meta.start,
                "topic_id": None if meta is None else meta.topic_id,
                "incomplete": None if meta is None else meta.incomplete,
                "lost": None if meta is None else meta.lost,
                "floor": None if meta is None else meta.floor,
                "hours": view.hours.get(number, 0),
                "lag": end.high - meta.position if meta is not None and same and end is not None else None,
                "importing": import_ is not None,
            }
        )
    lags = [part["lag"] for part in parts]
    begun = [part for part in parts if part["position"] is not None]
    return {
        "view": view.name,
        "partitions": parts,
        "position": sum(part["position"] for part in begun),
        "incomplete": any(part["incomplete"] for part in begun),
        "hours": max(view.hours.values(), default=0),
        "lag": sum(lags) if lags and None not in lags else None,
        "state": "absent" if not begun else "importing" if any(part["importing"] for part in parts) else "ready",
    }


def table(found: list[dict[str, Any]]) -> str:
    """The views as text. Pure."""
    head = ("VIEW", "PARTITIONS", "APPLIED", "HOURS", "LAG", "INCOMPLETE", "STATE")
    lines = [head]
    lines += [
        (
            row["view"],
            str(len(row["partitions"])),
            str(row["position"]),
            str(row["hours"]),
            "?" if row["lag"] is None else str(row["lag"]),
            "yes" if row["incomplete"] else "no",
            row["state"],
        )
        for row in found
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
