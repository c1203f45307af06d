"""Events of the API server, by kopf: they only wake the keeper, which reads anew what there is.

No handler here needs a finalizer or writes an annotation: with one, a namespace could not go without the operator.
"""

import asyncio
import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import kopf
from flowagg.kubernetes import Api

from flowagg_operator.elections import SERVICE_LABEL
from flowagg_operator.resources import PLURALS
from flowagg_operator.settings import OperatorSettings
from flowagg_operator.spec import GROUP, INSTANCE, MANAGED_BY, MANAGER, PLURAL, SERVERS, VERSION

_log = logging.getLogger(__name__)

_WATCH_SECONDS: Final = 240
_LOGIN_MINUTES: Final = 10  # a pod's token is replaced every hour


class Watching:
    """Runs kopf in a thread of its own. wish, forget: called with a FlowAggregator's name, from that thread."""

    def __init__(
        self,
        api: Api,
        settings: OperatorSettings,
        wish: Callable[[str], None],
        forget: Callable[[str], None],
        in_cluster: bool,
    ) -> None:
        self._stop = threading.Event()
        self._failed = ""
        self._generations: dict[str, tuple[str, int]] = {}
        self._wish = wish
        self._forget = forget
        self._namespace = settings.namespace
        self._identity: Any = settings.pod_name  # kopf would ask for the user's name, and a pod's has none
        self._registry = self._handlers(api, in_cluster)
        self._settings = _kopf_settings(settings)
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End, within so many seconds."""
        self._stop.set()
        self._thread.join(seconds)

    @property
    def trouble(self) -> str:
        """Why nothing is watched any more; empty: it is."""
        if self._thread.is_alive() or self._stop.is_set():
            return ""
        return self._failed or "kopf has ended"

    def _run(self) -> None:
        try:
            asyncio.run(
                kopf.operator(
                    registry=self._registry,
                    settings=self._settings,
                    standalone=True,
                    identity=self._identity,
                    namespaces=[self._namespace],
                    stop_flag=self._stop,
                )
            )
        except Exception as error:
            self._failed = f"kopf: {error}"
            _log.exception("watching has failed")

    def _handlers(self, api: Api, in_cluster: bool) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def log_in(**options: Any) -> kopf.ConnectionInfo | None:
            if not in_cluster:
                return kopf.login_with_kubeconfig(**options)
            found = kopf.login_with_service_account(**options)
            expiration = datetime.now(UTC) + timedelta(minutes=_LOGIN_MINUTES)
            return found and dataclasses.replace(found, server=api.url, expiration=expiration)

        @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
        async def of_a_flow_aggregator(type: str | None, name: str, meta: Mapping[str, Any], **_: Any) -> None:  # noqa: A002 - kopf's
            if type == "DELETED":
                self._generations.pop(name, None)
                self._forget(name)
                return
            # Its status is our own doing: only what is wanted wakes us.
            seen = (str(meta["uid"]), int(meta["generation"]))
            if self._generations.get(name) != seen:
                self._generations[name] = seen
                self._wish(name)

        async def of_an_object(labels: Mapping[str, str], **_: Any) -> None:
            if (name := labels.get(INSTANCE)) is not None:
                self._wish(name)

        async def of_a_lease(type: str | None, labels: Mapping[str, str], **_: Any) -> None:  # noqa: A002 - kopf's
            # It is renewed every second: only its end matters.
            if type == "DELETED" and (name := labels.get(INSTANCE)) is not None:
                self._wish(name)

        async def of_a_slice(labels: Mapping[str, str], **_: Any) -> None:
            # Those of Kubernetes' controllers and anybody else's have no label of ours for certain.
            service = labels.get(SERVICE_LABEL, "")
            for component in SERVERS:
                if service.endswith(f"-{component}"):
                    self._wish_known(service.removesuffix(f"-{component}"))

        ours = {MANAGED_BY: MANAGER}
        for kind, (version, plural) in PLURALS.items():
            group, _, number = version.rpartition("/")
            handler: Any = {"Lease": of_a_lease, "EndpointSlice": of_a_slice}.get(kind, of_an_object)
            labels = None if kind == "EndpointSlice" else ours
            kopf.on.event(group, number, plural, labels=labels, registry=registry)(handler)
        return registry

    def _wish_known(self, name: str) -> None:
        if name in self._generations:
            self._wish(name)


def _kopf_settings(settings: OperatorSettings) -> kopf.OperatorSettings:
    found = kopf.OperatorSettings()
    found.posting.enabled = False  # events are the recorder's
    found.scanning.disabled = True  # a namespaced operator may not watch namespaces and CRDs
    found.networking.request_timeout = settings.kubernetes_timeout_seconds
    found.networking.connect_timeout = settings.kubernetes_timeout_seconds
    found.watching.connect_timeout = settings.kubernetes_timeout_seconds
    found.watching.server_timeout = _WATCH_SECONDS
    found.watching.client_timeout = _WATCH_SECONDS + settings.kubernetes_timeout_seconds
    found.watching.reconnect_backoff = settings.first_retry_seconds
    for version, plural in PLURALS.values():
        if plural != "endpointslices":
            group, _, number = version.rpartition("/")
            found.watching.label_selectors[group, number, plural] = f"{MANAGED_BY}={MANAGER}"
    return found
