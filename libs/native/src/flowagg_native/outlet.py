"""Where flows of POSTs go: to confluent-kafka's producer, without an object of Python's for each of them."""

import ctypes
from collections.abc import Callable
from typing import NamedTuple

from flowagg_native.client import ClientRefuses
from flowagg_native.library import ParcelView, calls

_PARTITIONS = 64  # whose offsets are taken in one call; more of them take two
_ANSWER_BYTES = 4096


class Told(NamedTuple):
    """What became of a parcel's records so far.

    taken: how many the client took. all: each of them is acknowledged, or has failed. error: the first reason why one
    may be missing from the log, or from next_offsets; None where there is none. next_offsets: by partition, the one
    after the largest acknowledged.
    """

    taken: int
    all: bool
    error: str | None
    next_offsets: dict[int, int]


class Parcel:
    """The records of one body, so many (len)."""

    __slots__ = ("_count", "_in_client", "handle")

    def __init__(self, handle: int, count: int) -> None:
        self.handle = handle
        self._count = count
        self._in_client = False  # which reads the records where they are

    @classmethod
    def of(cls, body: bytes) -> "Parcel | None":
        """The records of a JSON array of flows that is spelled plainly; None for any other body."""
        count = ctypes.c_uint64()
        handle = calls.parcel_of(body, len(body), ctypes.byref(count))
        return None if handle is None else cls(handle, count.value)

    def __del__(self) -> None:
        if not self._in_client:
            calls.parcel_free(self.handle)

    def __len__(self) -> int:
        return self._count

    def record(self, number: int) -> tuple[bytes, bytes]:
        """Key and value of one record."""
        key, value, key_size, value_size = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_uint64()
        places = map(ctypes.byref, (key, key_size, value, value_size))
        if calls.parcel_record(self.handle, number, *places) != 0:
            raise IndexError("no such record")
        return ctypes.string_at(key, key_size.value), ctypes.string_at(value, value_size.value)

    def told(self) -> Told:
        """What became of the records so far."""
        view, last = ParcelView(), (ctypes.c_int64 * _PARTITIONS)()
        calls.parcel_told(self.handle, ctypes.byref(view), last, _PARTITIONS)
        if view.partitions > _PARTITIONS:
            last = (ctypes.c_int64 * (view.partitions + _PARTITIONS))()
            calls.parcel_told(self.handle, ctypes.byref(view), last, len(last))
        error = None
        if view.error != 0:
            error = error_text(view.error)
        elif view.lost:
            error = "a record's offset is unknown"  # librdkafka found out late that a retry was a repeat
        offsets = {part: offset + 1 for part, offset in enumerate(last[: view.partitions]) if offset >= 0}
        return Told(view.taken, bool(view.all), error, offsets)


class Tray:
    """Parcels on their way, until all is told of them."""

    def __init__(self) -> None:
        self._handle = calls.tray_new()
        self._on_way: dict[int, tuple[Parcel, Callable[[], object]]] = {}
        self._answer = ctypes.create_string_buffer(_ANSWER_BYTES)

    def __len__(self) -> int:
        return len(self._on_way)

    def ring(self, bell: int) -> None:
        """Have a file be written to, by any thread, when a parcel is complete and none was; -1: none any more.

        bell: an eventfd or the end of a pipe, which never blocks.
        """
        calls.tray_ring(self._handle, bell)

    def send(self, parcel: Parcel, partitions: int, complete: Callable[[], object]) -> "Sending":
        """Begin to hand a parcel over. complete: called by serve() once all is told.

        partitions: of the topic, as far as is known; the client has the last word.
        """
        calls.parcel_address(parcel.handle, self._handle, partitions)
        parcel._in_client = True
        self._on_way[parcel.handle] = parcel, complete
        return Sending(parcel)

    def send_whole(
        self, parcel: Parcel, outlet: "Outlet", partitions: int, error: int, complete: Callable[[], object]
    ) -> None:
        """As send, all of it in one call. error: the code that says why, should the outlet be closed."""
        handle = parcel.handle
        parcel._in_client = True
        self._on_way[handle] = parcel, complete
        calls.parcel_send(handle, self._handle, outlet.handle_or_none, partitions, error)

    def answer(self, parcel: Parcel, topic_id: bytes) -> bytes | None:
        """The body of the answer to its POST, once the log has all of it; None where that is for Python to say."""
        size = calls.parcel_answer(parcel.handle, topic_id, len(topic_id), self._answer, _ANSWER_BYTES)
        return ctypes.string_at(self._answer, size) if size else None

    def serve(self) -> None:
        """Call complete() of the parcels of which all is told."""
        while (handle := calls.tray_take(self._handle)) is not None:
            parcel, complete = self._on_way.pop(handle)
            parcel._in_client = False
            complete()


class Sending:
    """A parcel that is handed over."""

    __slots__ = ("_parcel",)

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel

    def hand_over(self, outlet: "Outlet", most: int) -> bool:
        """Hand up to so many further records over; whether more are left. The client may refuse: told() says so."""
        left: int = calls.parcel_hand_over(self._parcel.handle, outlet.handle, most)
        return left > 0

    def close(self, error: int) -> None:
        """Hand nothing more over. error: the code that says why, should any be left."""
        calls.parcel_close(self._parcel.handle, error)


class Outlet:
    """A topic, by the producer that this thread has made last with the plugin. To be closed before the producer is."""

    def __init__(self, topic: str) -> None:
        """Raises ClientRefuses."""
        self.handle_or_none: int | None = calls.outlet_open(topic.encode())
        if self.handle_or_none is None:
            raise ClientRefuses("librdkafka did not load the plugin")

    @property
    def handle(self) -> int:
        """The library's. Raises ClientRefuses."""
        if self.handle_or_none is None:
            raise ClientRefuses("it is closed")
        return self.handle_or_none

    def close(self) -> None:
        """Take no more."""
        if self.handle_or_none is not None:
            calls.outlet_close(self.handle_or_none)
            self.handle_or_none = None


def error_text(code: int) -> str:
    """An error of librdkafka's in words."""
    text: bytes = calls.error_text(code)
    return text.decode("utf-8", "replace")
