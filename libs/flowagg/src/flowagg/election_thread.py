"""The candidate of flowagg.election on the real API server, with threads of its own.

The service's event loop may be busy for longer than a renewal can wait, so nothing of this runs on it.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Final

from prometheus_client import Counter, Gauge

from flowagg.election import (
    LEASE,
    Candidate,
    Done,
    Effect,
    Ending,
    Event,
    Failed,
    Read,
    Reason,
    Seen,
    Serve,
    Timing,
    Woken,
    Write,
)
from flowagg.election_lease import Lease
from flowagg.election_slice import Pod, Slice
from flowagg.errors import FlowaggError
from flowagg.kubernetes import Api, Conflict, Forbidden, Gone, Invalid, NotFound, Object, Unreachable, path
from flowagg.settings import ElectionSettings

_log = logging.getLogger(__name__)

_WATCH_SECONDS: Final = 10.0
"""Then the object is read anew: for so long may a connection be dead before it is noticed."""
_LONGEST_SLEEP_SECONDS: Final = 1.0
"""A thread's sleep stands still with the machine: look at the clock that does not."""
_SAY_AGAIN_SECONDS: Final = 30.0

ACTIVE = Gauge("flowagg_active", "Whether this replica is the active one; 1 where there is no election.")
TRANSITIONS = Counter("flowagg_election_transitions", "Times that this replica became the active one.")
FAILURES = Counter(
    "flowagg_election_failures",
    "Calls to the Kubernetes API for the election that failed, by reason; a conflict is usual at a hand-over.",
    ["reason"],
)


def elector(settings: ElectionSettings) -> "Elector | None":
    """The settings' elector; None where they ask for none: then every replica is active.

    Raises InvalidKubeconfig where this is no pod, or its service account is not mounted.
    """
    if settings.election_lease is None:
        ACTIVE.set(1)
        return None
    ACTIVE.set(0)
    api = Api.in_cluster(settings.service_account_directory, timeout_seconds=settings.election_lease_seconds)
    return Elector(settings, api)


class Elector:
    """Takes part in the election from start() until, after end(), the hand-over is over.

    Nothing is done before start(). Methods may be called from any thread.
    """

    def __init__(self, settings: ElectionSettings, api: Api) -> None:
        assert settings.election_lease is not None  # noqa: S101 - elector() asks
        namespace = settings.election_namespace
        slices = settings.slice_names()
        self._api = api
        self._seconds = float(settings.election_lease_seconds)
        self._attempt_seconds = settings.election_attempt_seconds
        self._collections = {
            LEASE: path("coordination.k8s.io/v1", "leases", namespace),
            **{name: path("discovery.k8s.io/v1", "endpointslices", namespace) for name in slices},
        }
        self._names = {LEASE: settings.election_lease, **{name: name for name in slices}}
        self._candidate = Candidate(
            Pod(
                name=settings.pod_name,
                namespace=namespace,
                uid=settings.pod_uid,
                node=settings.node_name,
                addresses=settings.pod_addresses(),
            ),
            slices,
            Timing(
                lease_seconds=self._seconds,
                renew_seconds=settings.election_renew_seconds,
                attempt_seconds=settings.election_attempt_seconds,
                handover_seconds=settings.election_handover_seconds,
                linger_seconds=settings.election_linger_seconds,
            ),
            boot_time(),
        )
        self._inbox = SimpleQueue[Event | Exception]()
        self._over = threading.Event()
        self._said: dict[tuple[str, str], float] = {}
        self._on_role: Callable[[bool], None] = lambda _: None
        self._on_fault: Callable[[], None] = lambda: None

    @property
    def ended(self) -> bool:
        """Whether nothing is left to wait for: after end() the hand-over is over."""
        return self._over.is_set()

    def start(self, on_role: Callable[[bool], None], on_fault: Callable[[], None]) -> None:
        """Be a candidate from now on.

        on_role: told at each change whether this replica is active; on_fault: told that the election cannot go on,
        which is a fault of its own. Both are called from another thread.
        """
        self._on_role, self._on_fault = on_role, on_fault
        _log.info("standing by", extra={"lease": self._names[LEASE], "pod": self._candidate.pod.name})
        threading.Thread(target=self._run, name="election", daemon=True).start()
        for target in self._collections:
            threading.Thread(target=self._watch, args=(target,), name=f"election-{target}", daemon=True).start()

    def end(self) -> None:
        """Hand over, then be `ended`. May be called by a signal's handler."""
        self._inbox.put(Ending())

    def close(self) -> None:
        """Stop at once, whatever is in hand."""
        self._over.set()

    # The candidate's thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                event = self._next()
                if isinstance(event, Exception):
                    raise event  # noqa: TRY301 - a thread's fault is this one's
                for effect in self._candidate.handle(event, boot_time(), datetime.now(UTC)):
                    self._do(effect)
        except Exception:
            _log.exception("the election cannot go on: this replica ends, to be started anew")
            self._over.set()
            self._on_fault()

    def _next(self) -> Event | Exception:
        wait = min(max(0.0, self._candidate.wake_at - boot_time()), _LONGEST_SLEEP_SECONDS)
        try:
            return self._inbox.get(timeout=wait)
        except Empty:
            return Woken()

    def _do(self, effect: Effect) -> None:
        match effect:
            case Read() | Write():
                threading.Thread(target=self._carry_out, args=(effect,), name="election-call", daemon=True).start()
            case Serve(active, holder):
                ACTIVE.set(active)
                if active:
                    TRANSITIONS.inc()
                _log.info("active" if active else "standing by", extra={"holder": holder})
                self._on_role(active)
            case Done(successor):
                ACTIVE.set(0)
                _log.info("hand-over done", extra={"successor": successor or None})
                self._over.set()

    # Threads of calls and watches --------------------------------------------------------------

    def _carry_out(self, call: Read | Write) -> None:
        asked_at = boot_time()
        where = f"{self._collections[call.target]}/{self._names[call.target]}"
        api = self._api.on_new_connections() if call.fresh else self._api
        try:
            found = api.replace(where, dict(call.body)) if isinstance(call, Write) else api.get(where)
            self._api = api  # it answered: a connection that works, for the next call
            self._tell(call.target, found, asked_at, call)
        except NotFound as error:
            if isinstance(call, Read):
                self._tell(call.target, None, asked_at, call)
            else:
                self._fail(call, "not_found", error)
        except Conflict as error:
            self._fail(call, "conflict", error)
        except FlowaggError as error:
            self._fail(call, _reason(error), error)
        except Exception as error:  # told to the candidate's thread, which ends by it
            self._inbox.put(error)

    def _watch(self, target: str) -> None:
        while not self._over.is_set():
            began = boot_time()
            try:
                for found in self._watched(target, began):
                    if self._over.is_set():
                        return
                    self._tell(target, found)
            except Gone:
                pass
            except FlowaggError as error:
                self._complain(target, _reason(error), error)
            except Exception as error:
                self._inbox.put(error)
                return
            self._over.wait(max(0.0, began + self._attempt_seconds - boot_time()))

    def _watched(self, target: str, asked_at: float) -> Iterator[Object | None]:
        """The target's changes for a while, after its present state."""
        collection, name = self._collections[target], self._names[target]
        try:
            found = self._api.get(f"{collection}/{name}")
        except NotFound:
            self._tell(target, None, asked_at)
            return
        self._tell(target, found, asked_at)
        only = {"fieldSelector": f"metadata.name={name}"}
        version = found["metadata"]["resourceVersion"]
        for event in self._api.watch(collection, only, version=version, seconds=_WATCH_SECONDS):
            if event["type"] in ("ADDED", "MODIFIED"):
                yield event["object"]
            elif event["type"] == "DELETED":
                yield None

    def _tell(
        self, target: str, source: Object | None, asked_at: float | None = None, call: Read | Write | None = None
    ) -> None:
        found: Lease | Slice | None = None
        if source is not None:
            found = Lease.read(source, self._seconds) if target == LEASE else Slice.read(source)
        number = call.call if call else 0
        self._inbox.put(Seen(target, found, asked_at, number, isinstance(call, Write)))

    def _fail(self, call: Read | Write, reason: Reason, error: FlowaggError) -> None:
        self._complain(call.target, reason, error)
        self._inbox.put(Failed(call.call, reason))

    def _complain(self, target: str, reason: str, error: FlowaggError) -> None:
        FAILURES.labels(reason).inc()
        now = boot_time()
        if reason == "conflict" or now < self._said.get((target, reason), float("-inf")) + _SAY_AGAIN_SECONDS:
            return
        self._said[target, reason] = now
        _log.warning(
            "the Kubernetes API failed for the election; the active replica serves on",
            extra={"object": self._names[target], "reason": reason, "error": str(error)},
        )


def _reason(error: FlowaggError) -> Reason:
    match error:
        case NotFound():
            return "not_found"
        case Forbidden():
            return "forbidden"
        case Invalid():
            return "invalid"
        case Unreachable() | Gone():
            return "unreachable"
        case _:
            return "credentials"


def boot_time() -> float:
    """Seconds of a clock that nobody sets and that runs on while the machine sleeps, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
