"""Where exports lie: a file, a folder, or an object store (s3://, gs://, az://)."""

import contextlib
import io
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import obstore
import obstore.exceptions
import obstore.store
from flowagg.view import VIEW_NAME

from flowagg_cli.archive import SUFFIX
from flowagg_cli.errors import CommandError, Refused, WrongUsage

_URL = re.compile(r"^([a-z][a-z0-9]+)://")
_SCHEMES: Final = frozenset({"s3", "s3a", "gs", "az", "abfs", "abfss", "adl", "azure"})
_NAME = re.compile(
    rf"(?P<view>{VIEW_NAME.strip('^$')})-(?P<time>[0-9]{{8}}T[0-9]{{6}}\.[0-9]{{3}}Z){re.escape(SUFFIX)}"
)
_PART_BYTES: Final = 8 * 2**20
_LEFT_SECONDS: Final = 86_400.0


class PlaceAway(CommandError):
    """An object store or a folder does not answer, or refuses."""


def export_name(view: str, at: datetime) -> str:
    """The name of an export that is given a folder alone: it carries the view and the time, UTC, in milliseconds."""
    utc = at.astimezone(UTC)
    return f"{view}-{utc:%Y%m%dT%H%M%S}.{utc.microsecond // 1000:03d}Z{SUFFIX}"


def exports_of(view: str, names: Iterator[str] | list[str]) -> list[str]:
    """Those of the names that are exports of a view, oldest first."""
    matches = [match for name in names if (match := _NAME.fullmatch(name)) and match["view"] == view]
    return [match[0] for match in sorted(matches, key=lambda match: match["time"])]


class Place(Protocol):
    """A folder of exports."""

    def writing(self, name: str) -> "contextlib.AbstractContextManager[BinaryIO]":
        """A file that is there under its name only once the context has ended well."""

    def reading(self, name: str) -> "contextlib.AbstractContextManager[BinaryIO]":
        """A file."""

    def names(self) -> list[str]:
        """The names in it, folders in it left out."""

    def remove(self, name: str) -> None:
        """Remove a file."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A place, the name in it ('' where only a folder was given), and how to write both down."""

    place: Place
    name: str
    text: Callable[[str], str]


def spot(given: str, endpoint: str | None) -> Spot:
    """What a path or URL names. endpoint: of an S3-compatible store. Raises WrongUsage."""
    match = _URL.match(given)
    if match is None:
        path = Path(given)
        folder = given.endswith("/") or path.is_dir()
        directory, name = (path, "") if folder else (path.parent, path.name)
        return Spot(Folder(directory), name, lambda in_it: str(directory / in_it))
    if match[1] not in _SCHEMES:
        raise WrongUsage(f"{given}: give a path, or a URL that begins with s3://, gs:// or az://")
    prefix, _, name = given.rpartition("/")
    if prefix.endswith("/") or prefix.endswith(":"):  # s3://bucket
        prefix, name = given, ""
    from_url: Any = obstore.store.from_url  # its overloads take one kind of store's configuration each
    config: dict[str, Any] = {}
    options: dict[str, Any] = {"timeout": "60s", "connect_timeout": "10s"}
    if endpoint is not None:
        if not match[1].startswith("s3"):
            raise WrongUsage("--endpoint is for s3:// alone")
        config["endpoint"] = endpoint
        options["allow_http"] = endpoint.startswith("http://")
    try:
        store: Any = from_url(prefix, config=config, client_options=options)
    except (obstore.exceptions.BaseError, ValueError) as error:
        raise WrongUsage(f"{given}: {_first_line(error)}") from None
    return Spot(Store(store), name, lambda in_it: f"{prefix}/{in_it}")


class Folder:
    """A folder of the file system."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """See Place: written beside its name, forced to the disk, and renamed."""
        beside = self._directory / f".{name}.{uuid.uuid4().hex[:8]}.partial"
        with _told(str(self._directory / name)):
            self._directory.mkdir(parents=True, exist_ok=True)
            self._remove_left()
            with beside.open("xb") as file:
                try:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                    beside.rename(self._directory / name)
                except BaseException:
                    beside.unlink(missing_ok=True)
                    raise
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _remove_left(self) -> None:
        """What exports that were killed have left, as large as they were."""
        for left in self._directory.glob(".*.partial"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                    left.unlink()

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """See Place."""
        with _told(str(self._directory / name)), (self._directory / name).open("rb") as file:
            yield file

    def names(self) -> list[str]:
        """See Place."""
        with _told(str(self._directory)):
            return [path.name for path in self._directory.iterdir() if path.is_file()]

    def remove(self, name: str) -> None:
        """See Place."""
        with _told(str(self._directory / name)):
            (self._directory / name).unlink(missing_ok=True)


class Store:
    """A prefix of an object store."""

    def __init__(self, store: Any) -> None:
        self._store = store

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """See Place: an object is there once its last part is; in memory is one part at a time."""
        with _told(name, "there is no such bucket or container"):
            writer = obstore.open_writer(self._store, name, buffer_size=_PART_BYTES, max_concurrency=1)
            yield writer  # type: ignore[misc] # write is all that is called
            writer.close()  # not after an error: without it the object never appears

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """See Place."""
        with _told(name):
            raw = obstore.open_reader(self._store, name, buffer_size=_PART_BYTES)
            yield _Reader(raw)  # type: ignore[misc] # read is all that is called

    def names(self) -> list[str]:
        """See Place."""
        with _told("the store", "there is no such bucket or container"):
            found = obstore.list_with_delimiter(self._store)
            return [meta["path"].rpartition("/")[2] for meta in found["objects"]]

    def remove(self, name: str) -> None:
        """See Place."""
        with _told(name):
            obstore.delete(self._store, name)


class _Reader(io.RawIOBase):
    """Reads of obstore's reader, as bytes and with its errors told."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def read(self, size: int = -1) -> bytes:
        """Up to size bytes; none at the end."""
        return bytes(self._raw.read(size))


@contextlib.contextmanager
def _told(what: str, missing: str = "there is no such file") -> Iterator[None]:
    """Errors of the file system and of object stores, as the project's own."""
    try:
        yield
    except FileNotFoundError:
        raise Refused(f"{what}: {missing}") from None
    except OSError as error:
        raise PlaceAway(f"{what}: {error.strerror or error}") from error
    except obstore.exceptions.BaseError as error:
        raise PlaceAway(f"{what}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
