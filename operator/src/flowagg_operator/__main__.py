"""flowagg-operator: the process."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from flowagg.errors import FlowaggError
from flowagg.kubernetes import Api, path
from flowagg.service import OK, Checks, http_server, operational_routes, start
from starlette.applications import Starlette

from flowagg_operator import crd
from flowagg_operator.keeper import Keeper
from flowagg_operator.leader import Candidacy, Leader
from flowagg_operator.settings import OperatorSettings
from flowagg_operator.watching import Watching

_log = logging.getLogger(__name__)

_SUMMARY: Final = "Keeps the FlowAggregators of a namespace as their specs say."
_STOP_SECONDS: Final = 3.0
"""For the work in hand once this replica must not act any more: less than what is left of the Lease."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the operator, or apply the CustomResourceDefinition that it carries."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["apply-crd"]:
        _apply_crd(given[1:])
    else:
        _run(given[1:] if given[:1] == ["run"] else given)


def _apply_crd(arguments: Sequence[str]) -> None:
    argparse.ArgumentParser(
        prog="flowagg-operator apply-crd",
        description="Brings the cluster's CustomResourceDefinition up to the one that this image carries.",
    ).parse_args(arguments)
    try:
        print(crd.apply(_api(10.0)))
    except FlowaggError as error:
        sys.exit(f"flowagg-operator: {error}")


def _run(arguments: Sequence[str]) -> None:
    settings = start("operator", OperatorSettings, _SUMMARY, arguments)
    # Client libraries say each request and each event of theirs.
    for name in ("kopf", "urllib3", "aiohttp"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # it misses the signals, which are ours
    try:
        status = _Process(settings).run()
    except FlowaggError as error:
        sys.exit(f"flowagg-operator: {error}")
    sys.stdout.flush()
    os._exit(status)  # whatever thread still waits for an answer: this replica must not act any more


class _Process:
    """The operator's life: stand by, act, end."""

    def __init__(self, settings: OperatorSettings) -> None:
        self._settings = settings
        self._api = _api(settings.kubernetes_timeout_seconds)
        self._stop = threading.Event()
        self._watching: Watching | None = None
        self._keeper = Keeper(self._api, settings, time.monotonic)
        lease = path("coordination.k8s.io/v1", "leases", settings.namespace, settings.election_lease)
        candidacy = Candidacy(settings.pod_name, settings.lease_seconds, settings.renew_deadline_seconds)
        self._leader = Leader(self._api, lease, candidacy, settings.retry_seconds)

    def run(self) -> int:
        """Live until SIGTERM (then 0) or until the Lease is lost or watching fails (then 1)."""
        server = http_server(Starlette(routes=operational_routes(self._live, self._ready)), self._settings)
        threading.Thread(target=server.run, name="probes", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        if not self._leader.acquire(self._stop):
            return 0
        self._keeper.start()
        self._watching = Watching(
            self._api, self._settings, self._keeper.wish, self._keeper.forget, in_cluster=_in_cluster()
        )
        self._watching.start()
        threading.Thread(target=self._first_passes, name="first-passes", daemon=True).start()
        reason = self._leader.keep(self._stop, lambda: self._watching.trouble if self._watching else "")
        if reason:
            _log.error("this replica must not act any more", extra={"reason": reason})
        self._watching.stop(_STOP_SECONDS)
        ended = self._keeper.stop(_STOP_SECONDS)
        if not reason and ended:
            self._leader.release()
        return 1 if reason else 0

    def _first_passes(self) -> None:
        """What was there before; kopf says it too, a moment later."""
        while not self._stop.is_set():
            try:
                self._keeper.wish_all()
            except FlowaggError as error:
                _log.warning("the FlowAggregators could not be listed", extra={"reason": str(error)})
                self._stop.wait(self._settings.retry_seconds)
            else:
                return

    def _live(self) -> Checks:
        checks = self._keeper.live()
        checks["watching"] = (self._watching.trouble if self._watching else "") or OK
        return checks

    def _ready(self) -> Checks:
        return {"process": OK}


def _in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ


def _api(timeout_seconds: float) -> Api:
    """The pod's API server; outside of a cluster, the one that KUBECONFIG names. Raises InvalidKubeconfig."""
    if _in_cluster() or "KUBECONFIG" not in os.environ:
        return Api.in_cluster(timeout_seconds=timeout_seconds)
    return Api.from_kubeconfig(Path(os.environ["KUBECONFIG"]), timeout_seconds=timeout_seconds)


if __name__ == "__main__":
    main()
