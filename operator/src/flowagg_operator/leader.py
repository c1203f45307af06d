"""Which replica of the operator acts: the one that holds the Lease. The core is pure, `Leader` does the calls.

Unlike the active writer, which serves on while it cannot reach the API server, the operator ends when it could not
renew in time: two that act would undo each other's work.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from flowagg.election_lease import Lease
from flowagg.kubernetes import Api, Conflict, KubernetesError, NotFound

from flowagg_operator import metrics

_log = logging.getLogger(__name__)

Step = Literal["take", "renew", "wait"]


@dataclass(slots=True)
class Candidacy:
    """A candidate's view of the Lease. Times: seconds of its own steady clock; no two machines' are compared."""

    name: str
    lease_seconds: float
    renew_deadline_seconds: float
    leads: bool = False
    _record: tuple[object, ...] = ()
    _changed_at: float = float("-inf")
    _renewed_at: float = field(default=float("-inf"))

    def step(self, lease: Lease, now: float) -> Step:
        """What to do about the Lease as it is."""
        if lease.record != self._record:
            self._record, self._changed_at = lease.record, now
        if lease.holder == self.name:
            return "renew"
        if self.leads:
            return "wait"
        expired = now >= self._changed_at + lease.seconds
        return "take" if not lease.holder or expired else "wait"

    def written(self, sent_at: float) -> None:
        """A write that was sent then has made the Lease this candidate's."""
        self.leads, self._renewed_at = True, sent_at

    def lost(self, lease: Lease | None, now: float) -> str:
        """Why this candidate must end; empty: it must not."""
        if not self.leads:
            return ""
        if lease is not None and lease.holder != self.name:
            return f"{lease.holder or 'nobody'} holds the Lease now"
        if now >= self._renewed_at + self.renew_deadline_seconds:
            return f"the Lease could not be renewed for {self.renew_deadline_seconds:g} s"
        return ""


class Leader:
    """Takes and keeps the Lease in the calling thread."""

    def __init__(
        self,
        api: Api,
        where: str,
        candidacy: Candidacy,
        retry_seconds: float,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        """where: path of the Lease."""
        self._api = api
        self._where = where
        self._candidacy = candidacy
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._lease: Lease | None = None

    def acquire(self, stop: threading.Event) -> bool:
        """Wait for the Lease. False: stopped before."""
        said = ""
        while not stop.is_set():
            self._turn()
            if self._candidacy.leads:
                metrics.LEADER.set(1)
                _log.info("this replica acts", extra={"lease": self._where})
                return True
            holder = self._lease.holder if self._lease else ""
            if holder != said:
                _log.info("standing by", extra={"holder": holder})
                said = holder
            stop.wait(self._retry_seconds)
        return False

    def keep(self, stop: threading.Event, trouble: Callable[[], str]) -> str:
        """Renew until stopped (then empty) or lost (then why). trouble: another reason to end; empty: none."""
        while not stop.wait(self._retry_seconds):
            self._turn()
            if reason := self._candidacy.lost(self._lease, self._clock()) or trouble():
                metrics.LEADER.set(0)
                return reason
        return ""

    def release(self) -> None:
        """Give the Lease up, so that a standby acts at once."""
        metrics.LEADER.set(0)
        if self._lease is None or not self._candidacy.leads:
            return
        try:
            lease = self._read()
            if lease.holder == self._candidacy.name:
                self._api.replace(self._where, lease.released(datetime.now(UTC)), timeout_seconds=self._retry_seconds)
        except KubernetesError as error:
            _log.warning("the Lease was not released; it runs out", extra={"reason": str(error)})

    def _turn(self) -> None:
        try:
            self._lease = self._read()
            now = self._clock()
            if self._candidacy.step(self._lease, now) == "wait":
                return
            body = self._lease.taken(self._candidacy.name, self._candidacy.lease_seconds, datetime.now(UTC))
            written = self._api.replace(self._where, body, timeout_seconds=self._retry_seconds)
            self._lease = Lease.read(written, self._candidacy.lease_seconds)
            self._candidacy.step(self._lease, now)
            self._candidacy.written(now)
        except NotFound:
            _log.warning("there is no Lease: the chart makes it", extra={"lease": self._where})
        except Conflict:
            pass  # another was first, which the next turn reads
        except KubernetesError as error:
            _log.warning("the Lease could not be read or written", extra={"reason": str(error)})

    def _read(self) -> Lease:
        return Lease.read(
            self._api.get(self._where, timeout_seconds=self._retry_seconds), self._candidacy.lease_seconds
        )
