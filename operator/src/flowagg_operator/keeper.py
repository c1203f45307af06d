"""Keeps all FlowAggregators of a namespace: passes and looks, each on its own schedule, each told of the other."""

from collections.abc import Callable
from threading import Lock

from flowagg.kubernetes import Api, path
from flowagg.service import OK, Checks

from flowagg_operator.events import Recorder
from flowagg_operator.observer import Observation, Observer, Target
from flowagg_operator.pods import Platform
from flowagg_operator.reconcile import Reconciler
from flowagg_operator.runner import Runner
from flowagg_operator.schedule import Pace
from flowagg_operator.settings import OperatorSettings
from flowagg_operator.spec import API_VERSION, PLURAL


class Keeper:
    """The operator's work while it acts."""

    def __init__(self, api: Api, settings: OperatorSettings, clock: Callable[[], float]) -> None:
        self._api = api
        self._settings = settings
        self._lock = Lock()
        self._targets: dict[str, Target] = {}
        self._observers: dict[str, Observer] = {}
        self._recorder = Recorder(api, settings.pod_name, settings.events_a_minute, clock)
        images = {
            "writer": settings.writer_image,
            "reader": settings.reader_image,
            "consumer": settings.consumer_image,
            "cli": settings.cli_image,
        }
        reconciler = Reconciler(
            api,
            settings.namespace,
            Platform(
                images=images, image_pull_policy=settings.image_pull_policy, job_seconds=settings.view_job_seconds
            ),
            self._recorder,
            self._observation,
            self._observe,
        )
        retries = (settings.first_retry_seconds, settings.last_retry_seconds)
        # One pass at a time: they are short, and answers of the API server come one after another anyway.
        self._passes = Runner(
            "pass", Pace(settings.settle_seconds, settings.resync_seconds, *retries), 1, reconciler.run
        )
        self._looks = Runner("look", Pace(0.0, settings.lag_seconds, *retries), settings.workers, self._look)

    def start(self) -> None:
        """Begin."""
        self._passes.start()
        self._looks.start()

    def stop(self, seconds: float) -> bool:
        """End after the work in hand. Returns whether it ended in time."""
        ended = self._passes.stop(seconds) & self._looks.stop(seconds)
        for observer in list(self._observers.values()):
            observer.close()
        return ended

    def wish(self, name: str) -> None:
        """Have a pass over a FlowAggregator soon."""
        self._passes.wish(name)

    def wish_all(self) -> None:
        """Have a pass over all that there are. Raises KubernetesError."""
        for found in self._api.list(path(API_VERSION, PLURAL, self._settings.namespace)):
            self.wish(found["metadata"]["name"])

    def forget(self, name: str) -> None:
        """A FlowAggregator is gone."""
        self._passes.forget(name)
        self._observe(name, None)

    def live(self) -> Checks:
        """Whether passes and looks come to an end."""
        checks = {}
        for label, runner in (("passes", self._passes), ("looks", self._looks)):
            took = runner.longest_seconds()
            checks[label] = f"one takes {took:.0f} s" if took > self._settings.stuck_seconds else OK
        return checks

    def _observation(self, name: str) -> Observation:
        with self._lock:
            observer = self._observers.get(name)
            return observer.last if observer is not None else Observation()

    def _observe(self, name: str, target: Target | None) -> None:
        with self._lock:
            known = self._targets.get(name)
            if target is None:
                self._targets.pop(name, None)
                observer = self._observers.pop(name, None)
            else:
                self._targets[name] = target
                observer = None
                if name not in self._observers:
                    self._observers[name] = Observer(self._api, self._settings, self._recorder)
        if observer is not None:
            observer.close()
        if target is None:
            self._looks.forget(name)
        elif target != known:
            self._looks.wish(name)

    def _look(self, name: str) -> float | None:
        with self._lock:
            target, observer = self._targets.get(name), self._observers.get(name)
        if target is None or observer is None:
            return None
        before = observer.last
        if observer.look(target) != before:
            self.wish(name)
        return None
