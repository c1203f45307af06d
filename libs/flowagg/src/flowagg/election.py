"""Which replica is active: the rules of one candidate, without a clock, a thread or a connection.

Routing, not safety: any replica may serve at any time without harm. So what is decided here is only where the
Service leads to, and the rules are made for two ends: that somebody who lives is always named, and that the active
replica does not change without need.

What happens comes in as events with the time that they are seen at; what is to be done goes out as effects. Times
are seconds of a clock that runs on in sleep (CLOCK_BOOTTIME); no two machines' clocks are ever compared.

A call that is not answered in time is repeated on a connection of its own while the first may still be answered:
so neither a dead connection nor a slow API server (measured: 1 s) keeps the active replica from renewing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from flowagg.election_lease import Lease
from flowagg.election_slice import Pod, Slice

LEASE: Final = "lease"
"""The target of calls that read or write the lease; every other target is a slice's name."""
_MAX_CALLS: Final = 8  # in hand for one target: attempts for longer than a lease lasts
_GROWTH: Final = 1.5  # an answer is late past so many times what the last one took
_FIRST_WAIT: Final = 2  # renewals; how long a lease that was never held is left to whoever serves already

Reason = Literal["conflict", "unreachable", "forbidden", "not_found", "invalid", "credentials"]


@dataclass(frozen=True, slots=True)
class Timing:
    """lease_seconds: without a renewal until another takes over. renew_seconds: between renewals. attempt_seconds:
    for an answer, before the call is repeated. handover_seconds: after SIGTERM for a successor to be named.
    linger_seconds: for which an ending replica serves on after that.
    """

    lease_seconds: float = 3.0
    renew_seconds: float = 1.0
    attempt_seconds: float = 0.6
    handover_seconds: float = 10.0
    linger_seconds: float = 2.0


# What happens ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """The target as it is now; found None: there is none. asked_at: when the read was sent; None: from a watch.

    call: the read's or the write's number, 0 where the candidate did not ask for it. written: the answer to a write.
    """

    target: str
    found: Lease | Slice | None
    asked_at: float | None = None
    call: int = 0
    written: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """A call was refused, or not answered."""

    call: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Ending:
    """The process is to end: hand over first."""


@dataclass(frozen=True, slots=True)
class Woken:
    """It is time to look again."""


Event = Seen | Failed | Ending | Woken


# What is to be done ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    """Read the target from the API server itself. fresh: on a new connection."""

    call: int
    target: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class Write:
    """Replace the target by body, where it still has body's resourceVersion. fresh: on a new connection."""

    call: int
    target: str
    body: Mapping[str, Any] = field(repr=False)
    fresh: bool


@dataclass(frozen=True, slots=True)
class Serve:
    """The role changed. holder: who is active now, as far as is known."""

    active: bool
    holder: str


@dataclass(frozen=True, slots=True)
class Done:
    """The hand-over is over: the process may stop. successor: empty where nobody took over."""

    successor: str


Effect = Read | Write | Serve | Done


@dataclass(frozen=True, slots=True)
class _Call:
    """version: the resourceVersion that it writes over; None: it reads."""

    target: str
    version: str | None
    sent_at: float


@dataclass(slots=True)
class _Known:
    """What is known of a slice. heard: whether it was ever seen; stale: what was seen is out of date."""

    found: Slice | None = None
    heard: bool = False
    heard_at: float = 0.0
    stale: bool = False
    written_at: float = float("-inf")


class Candidate:
    """One replica. Its events come from one thread, times never going back."""

    def __init__(self, pod: Pod, slices: tuple[str, ...], timing: Timing, now: float) -> None:
        self.pod = pod
        self.active = False
        self.done = False
        self._timing = timing
        self._now = now
        self._lease: Lease | None = None
        self._lease_heard = False
        self._lease_heard_at = now
        self._changed_at = now  # when the lease was last seen to change
        self._stale = False  # the lease as known was refused as out of date
        self._lost = False  # since then the API server did not answer in time
        self._confirmed = False  # the lease was read again after it had run out
        self._renewed_at = float("-inf")  # when the last renewal that succeeded was sent
        self._renewals = dict[str, _Call]()  # those that may be under way, by the renewTime that they write
        self._slices = {name: _Known() for name in slices}
        self._calls: dict[int, _Call] = {}
        self._not_before = dict.fromkeys((LEASE, *slices), now)  # of the next call after one that failed
        self._numbers = 0
        self._latency = 0.0  # seconds that the last answer took
        self._ending_at: float | None = None
        self._rerouted_at: float | None = None  # when, while ending, the last slice led elsewhere
        self._wake_at = now

    @property
    def wake_at(self) -> float:
        """When to say Woken at the latest."""
        return self._wake_at

    @property
    def holder(self) -> str:
        """Who holds the lease, as far as is known."""
        return self._lease.holder if self._lease else ""

    def handle(self, event: Event, now: float, wall: datetime) -> list[Effect]:
        """Take an event and say what is to be done. wall: the time of day, aware, only to be written for people."""
        self._now = now
        self._wake_at = now + self._timing.lease_seconds
        match event:
            case Seen():
                self._see(event)
            case Failed():
                self._fail(event)
            case Ending():
                if self._ending_at is None:
                    self._ending_at = now
            case Woken():
                pass
        return list(self._decide(wall)) if not self.done else []

    # Events ------------------------------------------------------------------------------------

    def _see(self, event: Seen) -> None:
        call = self._calls.pop(event.call, None)
        sent_at = call.sent_at if call else event.asked_at
        late = False
        if sent_at is not None:
            late = self._is_late(sent_at)
            self._latency = min(self._now - sent_at, self._timing.lease_seconds)
        if call is not None:
            # Others in hand ask for the same, or write over the version that this one has written over.
            self._forget(event.target, call.version)
        if event.target == LEASE:
            self._see_lease(event, sent_at, late)
        elif event.target in self._slices:
            self._see_slice(event, sent_at)

    def _see_lease(self, event: Seen, sent_at: float | None, late: bool) -> None:
        found = event.found
        assert found is None or isinstance(found, Lease)  # noqa: S101 - by the target
        if not _is_news(self._lease, found, self._lease_heard_at, sent_at):
            return
        changed = not self._lease_heard or (self._lease and self._lease.record) != (found and found.record)
        self._lease, self._lease_heard, self._lease_heard_at, self._stale = found, True, self._now, False
        if changed:
            self._changed_at = self._now
            self._lost = self._confirmed = False
        elif sent_at is not None and not event.written:
            # Whoever holds it could not renew either while the API server was away: give it its time again.
            if self._lost or late:
                self._changed_at = self._now
                self._lost = False
            elif found is not None and sent_at >= self._changed_at + found.seconds:
                self._confirmed = True
        if found is not None and found.holder == self.pod.name:
            # Known by the time written in it, whether the answer came or a watch or a read tells.
            renewal = self._renewals.get(found.renewed)
            if renewal is not None:
                self._renewed_at = max(self._renewed_at, renewal.sent_at)
                self._forget(LEASE, renewal.version)
            self._renewals = {at: call for at, call in self._renewals.items() if call.sent_at > self._renewed_at}

    def _see_slice(self, event: Seen, sent_at: float | None) -> None:
        known, found = self._slices[event.target], event.found
        assert found is None or isinstance(found, Slice)  # noqa: S101 - by the target
        if not _is_news(known.found, found, known.heard_at, sent_at):
            return
        known.found, known.heard, known.heard_at, known.stale = found, True, self._now, False
        if event.written:
            known.written_at = self._now

    def _fail(self, event: Failed) -> None:
        call = self._calls.pop(event.call, None)
        if call is None:
            return
        if event.reason == "conflict":
            # Somebody else wrote, or this very write was done and its answer lost: reading tells.
            if call.target == LEASE:
                self._stale = True
            else:
                self._slices[call.target].stale = True
            return
        if call.target == LEASE:
            self._lost = True
            self._confirmed = False
            self._stale = self._stale or call.version is not None
        else:
            self._slices[call.target].stale = True
        self._not_before[call.target] = call.sent_at + self._timing.attempt_seconds

    # Decisions ---------------------------------------------------------------------------------

    def _decide(self, wall: datetime) -> Iterator[Effect]:
        if self._ending_at is not None:
            yield from self._end(wall, self._ending_at)
            return
        lease = self._lease
        if lease is not None and not self._stale:
            if lease.holder == self.pod.name:
                if not self.active and self._is_mine_for_sure:
                    self.active = True
                    yield Serve(True, self.pod.name)
            elif lease.holder and self.active:
                self.active = False
                yield Serve(False, lease.holder)
        yield from self._pursue_lease(wall)
        if self.active:
            for name, known in self._slices.items():
                yield from self._pursue_slice(name, known)

    @property
    def _is_mine_for_sure(self) -> bool:
        """Whether nobody else can have taken the lease: they wait for as long since they saw the renewal, later."""
        return self._now < self._renewed_at + self._timing.lease_seconds

    def _pursue_lease(self, wall: datetime) -> Iterator[Effect]:
        lease, timing = self._lease, self._timing
        if self._stale or not self._lease_heard:
            yield from self._call(LEASE)
        elif lease is None:
            # Deleted: only the operator makes it again. Whoever was active serves on.
            if self._after(self._lease_heard_at + timing.renew_seconds):
                yield from self._call(LEASE)
        elif lease.holder == self.pod.name:
            # 1. The active renews, and who was started again in its pod goes on.
            if self._after(self._renewed_at + timing.renew_seconds):
                yield from self._call(LEASE, lease.taken(self.pod.name, timing.lease_seconds, wall))
        elif not lease.holder:
            # 2. Given up: whoever is first. Just made: whoever serves already is first.
            wait = 0.0 if lease.was_held or self.active else _FIRST_WAIT * timing.renew_seconds
            if self._after(self._changed_at + wait):
                yield from self._call(LEASE, lease.taken(self.pod.name, timing.lease_seconds, wall))
        elif self._after(self._changed_at + lease.seconds):
            # 3. Run out, by this candidate's own clock: read once more, then take it.
            if self._confirmed:
                yield from self._call(LEASE, lease.taken(self.pod.name, timing.lease_seconds, wall))
            else:
                yield from self._call(LEASE)

    def _pursue_slice(self, name: str, known: _Known) -> Iterator[Effect]:
        """Have the slice lead to this pod, also where somebody else changed it since."""
        found, renew_seconds = known.found, self._timing.renew_seconds
        if known.stale or not known.heard:
            yield from self._call(name)
        elif found is None:
            if self._after(known.heard_at + renew_seconds):
                yield from self._call(name)
        elif (
            not found.leads_to_just(self.pod)
            and self._is_mine_for_sure
            and self._after(known.written_at + renew_seconds)
        ):
            yield from self._call(name, found.leading_to(self.pod))

    def _end(self, wall: datetime, ending_at: float) -> Iterator[Effect]:
        """Give the lease up and serve on until the slices lead elsewhere."""
        lease = self._lease
        writing = any(call.target == LEASE and call.version is not None for call in self._calls.values())
        if self._after(ending_at + self._timing.handover_seconds):
            yield from self._finish()
        elif self._stale:
            yield from self._call(LEASE)
        elif lease is not None and lease.holder == self.pod.name:
            # 1. Given up at once, so that nobody waits for it to run out.
            yield from self._call(LEASE, lease.released(wall))
        elif writing:
            pass  # the lease may become this candidate's yet: the outcome comes first
        elif any(known.found is not None and known.found.leads_to(self.pod) for known in self._slices.values()):
            yield from self._await_successor(ending_at)
        elif not self.active:
            yield from self._finish()
        else:
            # 3. The successor is named: some clients have not heard of it yet.
            if self._rerouted_at is None:
                self._rerouted_at = self._now
                yield Serve(False, self.holder)
            if self._after(self._rerouted_at + self._timing.linger_seconds):
                yield from self._finish()

    def _await_successor(self, ending_at: float) -> Iterator[Effect]:
        """2. Serve on. The watches tell; what they have not told of for a while is read."""
        if not self.holder and self._after(max(ending_at, self._changed_at) + self._timing.lease_seconds):
            yield from self._finish()  # nobody is there to take it
            return
        for name, known in self._slices.items():
            if self._after(known.heard_at + self._timing.renew_seconds):
                yield from self._call(name)
        if self._after(self._lease_heard_at + self._timing.renew_seconds):
            yield from self._call(LEASE)

    def _finish(self) -> Iterator[Effect]:
        self.active, self.done = False, True
        yield Done("" if self.holder == self.pod.name else self.holder)

    # Calls -------------------------------------------------------------------------------------

    @property
    def _patience(self) -> float:
        """Seconds after which a call is repeated: the setting, or longer where answers take longer at the moment."""
        timing = self._timing
        return max(timing.attempt_seconds, min(_GROWTH * self._latency, timing.lease_seconds / 2))

    def _is_late(self, sent_at: float) -> bool:
        """Whether an answer takes longer than the last one by so much that the API server was away meanwhile."""
        return self._now - sent_at >= max(self._timing.attempt_seconds, _GROWTH * self._latency)

    def _call(self, target: str, body: Mapping[str, Any] | None = None) -> Iterator[Effect]:
        """Send a call, unless one like it is in hand and not late."""
        lifetime = 2 * self._timing.lease_seconds
        self._calls = {number: call for number, call in self._calls.items() if self._now < call.sent_at + lifetime}
        in_hand = [
            call.sent_at
            for call in self._calls.values()
            if call.target == target and (call.version is None) == (body is None)
        ]
        earliest = self._not_before[target]
        if in_hand:
            earliest = max(earliest, max(in_hand) + self._patience)
        if len(in_hand) >= _MAX_CALLS:
            earliest = max(earliest, min(in_hand) + lifetime)
        if not self._after(earliest):
            return
        if in_hand and target == LEASE:
            self._lost, self._confirmed = self._lost or self._is_late(min(in_hand)), False
            if body is not None and self.holder not in ("", self.pod.name):
                # A take-over is not repeated but looked at anew: the holder may have to get its time again.
                body = None
        self._numbers += 1
        version = None if body is None else body["metadata"]["resourceVersion"]
        call = self._calls[self._numbers] = _Call(target, version, self._now)
        self._after(self._now + self._patience)
        if body is not None and target == LEASE:
            self._renewals[body["spec"]["renewTime"]] = call
        if body is None:
            yield Read(self._numbers, target, bool(in_hand))
        else:
            yield Write(self._numbers, target, body, bool(in_hand))

    def _forget(self, target: str, version: str | None) -> None:
        """Wait no longer for the calls that read the target, or write over this version of it."""
        self._calls = {
            number: call for number, call in self._calls.items() if call.target != target or call.version != version
        }

    def _after(self, moment: float) -> bool:
        """Whether the moment has come; where not, be woken then."""
        if self._now >= moment:
            return True
        self._wake_at = min(self._wake_at, moment)
        return False


def _is_news(known: Lease | Slice | None, found: Lease | Slice | None, heard_at: float, sent_at: float | None) -> bool:
    """Whether found is not older than what is known.

    A read goes to the store itself, so one sent after the last news is news. Watches and late answers come in any
    order: among those the larger resource version is the newer
    (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions).
    """
    if (sent_at is not None and sent_at >= heard_at) or known is None or found is None:
        return True
    try:
        return int(found.version) >= int(known.version)
    except ValueError:
        return found.version != known.version
