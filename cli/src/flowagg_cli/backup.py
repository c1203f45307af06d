"""Export, import, clone and removal of views: what is looked at, in which order, and what is refused."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

import redis
from flowagg.redis_client import connect
from flowagg.view import Meta

from flowagg_cli.archive import FORMAT, Begin, End, Frame, Header, Hour, Marks, Sink, Trailer, Writer, meta_of, read
from flowagg_cli.errors import CommandError, DamagedFile, Refused
from flowagg_cli.kafka_look import Fit, KafkaLook, check_no_members, fit
from flowagg_cli.places import Place, Spot, export_name, exports_of
from flowagg_cli.redis_source import Source
from flowagg_cli.redis_target import Target, remove
from flowagg_cli.settings import ViewSettings

_PROGRESS_SECONDS: Final = 0.2


class Progress:
    """A line on the terminal that tells how far it is; silent where standard error is none."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._shows = sys.stderr.isatty()
        self._next = 0.0
        self._began = time.monotonic()

    def tell(self, partition: int | None, entries: int) -> None:
        """Show it, some times a second."""
        now = time.monotonic()
        if self._shows and now >= self._next:
            self._next = now + _PROGRESS_SECONDS
            where = "" if partition is None else f" partition {partition},"
            seconds = now - self._began
            sys.stderr.write(f"\r\x1b[K{self._doing}:{where} {entries:,} flow keys and marks, {seconds:.0f} s")
            sys.stderr.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._shows:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has written, and which older ones it has removed."""

    where: str
    node: str
    header: Header
    trailer: Trailer
    positions: dict[int, int]
    removed: list[str] = field(default_factory=list)
    restarts: int = 0


def export(settings: ViewSettings, view: str, source: Source, to: Spot, keep: int | None) -> Exported:
    """Write a view to a file, while it lives; then remove older exports of it beside, but for so many.

    Raises Refused where there is no such view, and what its parts raise.
    """
    metas = _present(source, view)
    now = datetime.now(UTC)
    name = to.name or export_name(view, now)
    header = Header(
        format=FORMAT,
        view=view,
        topic=settings.kafka_topic,
        topic_id=_one_topic(metas),
        exported_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        program=f"flowagg {version('flowagg-cli')}",
        partitions=sorted(metas),
    )
    progress = Progress(f"exporting {view}")
    positions = {}
    with to.place.writing(name) as file:
        writer = Writer(file, header)
        for number in header.partitions:
            end = _take(source, number, writer, progress)
            positions[number] = int(end.meta["position"])
        trailer = writer.finish()
    progress.end()
    removed = [] if keep is None else _thin_out(to.place, header, keep, name)
    return Exported(to.text(name), source.what, header, trailer, positions, removed, source.counts.restarts)


def _thin_out(place: Place, header: Header, keep: int, written: str) -> list[str]:
    """Remove the oldest exports of a view, but for so many with the one that was written; their names.

    Those of the same log alone: several systems may keep a view of that name, and their exports here.
    """
    older = [name for name in exports_of(header.view, place.names()) if name != written]
    ours = [name for name in older if _topic_id_in(place, name) == header.topic_id]
    removed = ours[: max(0, len(ours) - (keep - 1))]
    for name in removed:
        place.remove(name)
    return removed


def _topic_id_in(place: Place, name: str) -> str | None:
    """The topic's id in an export's header; None where it cannot be read."""
    try:
        with place.reading(name) as file:
            header = next(read(file), None)
    except CommandError:
        return None
    return header.topic_id if isinstance(header, Header) else None


@dataclass(frozen=True, slots=True)
class Restored:
    """A view that is there now. tail: records that its consumers will apply, by partition."""

    view: str
    source: str
    entries: int
    metas: dict[int, Meta]
    fit: Fit
    cleaned: bool


@dataclass(slots=True)
class Content:
    """What a file holds, after all of it was checked."""

    header: Header
    trailer: Trailer
    metas: dict[int, Meta]


def inspect(spot: Spot) -> Content:
    """Read a file to its end. Raises DamagedFile, Refused where there is none."""
    header: Header | None = None
    metas: dict[int, Meta] = {}
    progress = Progress("checking the file")
    entries = 0
    for frame in _read(spot):
        match frame:
            case Header():
                header = frame
            case Begin():
                metas.pop(frame.partition, None)
            case Hour() | Marks():
                entries += len(frame.pairs) // 2
                progress.tell(None, entries)
            case End():
                metas[frame.partition] = meta_of(frame.meta)
            case Trailer():
                progress.end()
                assert header is not None  # noqa: S101 - read has seen to it
                if {meta.topic_id for meta in metas.values()} - {header.topic_id}:
                    raise DamagedFile("the file's partitions count in other topics than its header says")
                return Content(header, frame, metas)
    raise DamagedFile("the file has no trailer: it was cut")


def newest(folder: Spot, view: str) -> Spot:
    """The newest export of a view in a folder. Raises Refused where there is none."""
    names = exports_of(view, folder.place.names())
    if not names:
        raise Refused(f"there is no export of the view {view!r} in {folder.text('')}")
    return Spot(folder.place, names[-1], folder.text)


def restore(settings: ViewSettings, spot: Spot, as_name: str | None, accept_incomplete: bool) -> Restored:
    """Make an absent view of a file. Raises DamagedFile, Refused, and what its parts raise."""
    content = inspect(spot)
    view = as_name or content.header.view
    with closing(KafkaLook(settings)) as kafka:
        found = _check_fit(kafka, settings, view, content.metas, accept_incomplete)
        source = f"{content.header.view} of {content.header.exported_at}, sha256 {content.trailer.sha256}"
        with closing(Target(settings, view, source)) as target:
            cleaned = target.prepare(content.metas)
            progress = Progress(f"importing {view}")
            _load(spot, content, target, progress)
            progress.end()
            check_no_members(kafka.group_state(view), view, "the import")
            target.finish()
            return Restored(view, spot.text(spot.name), target.entries, content.metas, found, cleaned)


def _load(spot: Spot, content: Content, target: Target, progress: Progress) -> None:
    partition: int | None = None
    for frame in _read(spot):
        match frame:
            case Header():
                if frame != content.header:
                    raise DamagedFile("the file was replaced by another while it was read")
            case Begin():
                partition = frame.partition
                target.begin(frame.partition)
            case Hour():
                target.hour(frame.hour, frame.pairs)
            case Marks():
                target.marks(frame.bucket, frame.pairs)
            case End():
                target.end(frame)
            case Trailer():
                if frame != content.trailer:
                    raise DamagedFile("the file was replaced by another while it was read")
        progress.tell(partition, target.entries)


def clone(settings: ViewSettings, source: Source, src: str, dst: str, accept_incomplete: bool) -> Restored:
    """Make an absent view of a live one, in the same Redis, at the source's positions."""
    metas = _present(source, src)
    _one_topic(metas)
    with closing(KafkaLook(settings)) as kafka:
        _check_fit(kafka, settings, dst, metas, accept_incomplete)
        with closing(Target(settings, dst, f"clone of {src}")) as target:
            cleaned = target.prepare(metas)
            progress = Progress(f"cloning {src} to {dst}")
            taken = {number: meta_of(_take(source, number, target, progress).meta) for number in sorted(metas)}
            progress.end()
            found = _check_fit(kafka, settings, dst, taken, accept_incomplete)
            target.finish()
            return Restored(dst, f"the view {src}", target.entries, taken, found, cleaned)


def delete(settings: ViewSettings, view: str) -> tuple[int, bool]:
    """Remove a view and its consumer group: the number of Redis keys, and whether there was a group."""
    with closing(KafkaLook(settings)) as kafka:
        check_no_members(kafka.group_state(view), view, "the removal")
        try:
            with closing(connect(settings, "cli", max_connections=2)) as client:
                count = remove(client, view)
        except redis.RedisError as error:
            raise CommandError(f"Redis does not answer, or refuses: {error}: remove the view again") from error
        return count, kafka.delete_group(view)


def _take(source: Source, number: int, sink: Sink, progress: Progress) -> End:
    source.on_progress = lambda: progress.tell(number, source.counts.entries)
    end = source.take(number, sink)
    if end is None:
        raise Refused(f"partition {number} was removed while the view was read")
    return end


def _present(source: Source, view: str) -> Mapping[int, Meta]:
    metas = {number: meta for number, meta in source.metas().items() if meta is not None}
    if not metas:
        raise Refused(f"there is no view {view!r} in this Redis: flowagg views list shows those that are there")
    return metas


def _one_topic(metas: Mapping[int, Meta]) -> str:
    topic_ids = {meta.topic_id for meta in metas.values()}
    if len(topic_ids) > 1:
        raise Refused(
            f"the view's partitions count in several topics ({', '.join(sorted(topic_ids))}): its partitions are "
            "stopped; see docs/guides/stopped-partitions.md"
        )
    return topic_ids.pop()


def _check_fit(
    kafka: KafkaLook, settings: ViewSettings, view: str, metas: Mapping[int, Meta], accept_incomplete: bool
) -> Fit:
    """What consumers would make of the positions. Raises Refused where it is not to be."""
    check_no_members(kafka.group_state(view), view, "it is made from a copy")
    topic = kafka.topic()
    found = fit(metas, settings.kafka_topic, topic, kafka.bounds(topic.partitions))
    if found.refusals:
        raise Refused("\n  ".join(["nothing was restored:", *found.refusals]))
    if found.losses and not accept_incomplete:
        raise Refused(
            "\n  ".join(
                [
                    "nothing was restored: the log no longer holds what follows:",
                    *found.losses,
                    "With --accept-incomplete the view is restored; its consumers record what is lost, mark it "
                    "incomplete, and go on.",
                ]
            )
        )
    return found


def _read(spot: Spot) -> Iterator[Frame]:
    with spot.place.reading(spot.name) as file:
        yield from read(file)


def summary(restored: Restored) -> dict[str, Any]:
    """A restored view, for --json."""
    return {
        "view": restored.view,
        "from": restored.source,
        "entries": restored.entries,
        "positions": {str(number): meta.position for number, meta in sorted(restored.metas.items())},
        "tail": {str(number): count for number, count in sorted(restored.fit.tail.items())},
        "incomplete": any(meta.incomplete for meta in restored.metas.values()) or bool(restored.fit.losses),
        "losses": restored.fit.losses,
        "cleaned": restored.cleaned,
    }
