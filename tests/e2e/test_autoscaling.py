"""The operator sets the number of consumers by their lag: up with a load, down after it, and never against a person.

Consumers are slowed to a known pace and the autoscaler's times are shortened, so that minutes tell. Totals are compared
with the ledger of each load as it ends: partitions move a lot here.
"""

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

import pytest

from tests.e2e.conftest import Installed
from tests.e2e.kube import KubectlFailed, Object
from tests.e2e.pods import condition, is_ready
from tests.e2e.release import Release
from tests.e2e.target import Node
from tests.e2e.traffic import Traffic

PACE: Final = 400
"""Flows that one consumer applies a second here."""
SMALL: Final = {"posts": 6.0, "flows_a_post": 20, "gets": 2.0}
"""A load that one consumer holds at the target utilisation: 120 flows a second."""
STEP: Final = {"posts": 12.0, "flows_a_post": 100, "gets": 2.0, "keys": 3000}
"""1,200 more. So many keys spread over six partitions to within a tenth; 60 would give one partition twice its part."""
STEP_FLOWS: Final = 1200.0
HOLD_SECONDS: Final = 30
PAUSE_HOLD_SECONDS: Final = 10
QUICK: Final = {
    "rateSeconds": 20,
    "settleSeconds": 15,
    "scaleDownWindowSeconds": 30,
    "manualHoldSeconds": HOLD_SECONDS,
}
LAG_SECONDS: Final = 30.0
"""The bar: lag is to be below it again."""
BAR_SECONDS: Final = 180.0
"""The bar: within this time of the step. It takes the operator's fail-over in."""
HOLD_ANNOTATION: Final = "flowaggregator.io/hold-replicas"
CHANGE: Final = re.compile(r"(\d+) -> (\d+) consumers")
"""How the note of a change says it; before that come the numbers that it was taken from."""

_LOOK_SECONDS: Final = 1.0
_LINE_SECONDS: Final = 15.0

pytestmark = pytest.mark.usefixtures("paced")


@dataclass(frozen=True, slots=True)
class Moment:
    """What a look found. asked, at: when it began and was answered, of time.monotonic().

    wanted: spec.consumer.replicas. pods: of the consumer, those on their way out too; ready: of these. status, reason,
    message: of the condition Scaling. doing: the reason in status.autoscaling. None: status does not say.
    """

    asked: float
    at: float
    wanted: int
    pods: int
    ready: int
    lag: int | None
    lag_seconds: float | None
    status: str
    reason: str
    message: str
    doing: str
    desired: int | None
    needed: int | None
    arrival_rate: float | None
    capacity: float | None

    @property
    def hold_seconds(self) -> int | None:
        """For how long a number that was set by hand still holds; None: that is not said."""
        said = re.search(r"it holds for (\d+) s more", self.message)
        return None if said is None else int(said[1])

    def late_by_less_than(self, seconds: float) -> bool:
        """Whether the lag as time is known, and so short."""
        return self.lag_seconds is not None and self.lag_seconds < seconds

    def has_room(self, flows: float) -> bool:
        """Whether so many flows a second, more or less, are known to arrive, and consumers to hold more."""
        arrive, hold = self.arrival_rate, self.capacity
        return arrive is not None and hold is not None and arrive > flows / 2 and hold > max(arrive, flows)

    def settled(self, count: int) -> bool:
        """Whether so many consumers are wanted and ready, and no others are there."""
        return self.wanted == self.ready == self.pods == count

    def automatic(self, count: int) -> bool:
        """The same, and the lag decides."""
        return self.settled(count) and (self.status, self.reason) == ("True", "Automatic")


class Watch:
    """Looks at the FlowAggregator and its consumer pods once a second, in a thread of its own; a context manager.

    Its end prints the time line.
    """

    def __init__(self, release: Release) -> None:
        self._release = release
        self._labels = release.pods.labels("consumer")
        self._began = time.monotonic()
        self._ends = threading.Event()
        self._said = ""
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.moments: list[Moment] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        print(self.time_line())

    def wait(self, holds: Callable[[Moment], bool], what: str, seconds: float, *loads: Traffic) -> Moment:
        """The first look, of those that begin now, in which something holds. Raises AssertionError past seconds."""
        since = time.monotonic()
        seen = len(self.moments)
        while True:
            while seen < len(self.moments):
                moment = self.moments[seen]
                seen += 1
                if moment.asked >= since and holds(moment):
                    return moment
            if self._failure is not None:
                raise AssertionError("the watch itself failed") from self._failure
            if time.monotonic() > since + seconds:
                last = self._said or (self.moments[-1] if self.moments else "nothing")
                raise AssertionError(f"{what}: not within {seconds:g} s, last seen: {last}")
            for load in loads:
                load.watch(0.1)
            time.sleep(0.1)

    def numbers(self) -> list[int]:
        """The numbers of consumers that were wanted, one after another."""
        found: list[int] = []
        for moment in self.moments:
            if found[-1:] != [moment.wanted]:
                found.append(moment.wanted)
        return found

    def time_line(self) -> str:
        """A line for each change, and some in between."""
        lines = ["  time  wanted pods ready     lag  lag s  arrive  capacity  Scaling / doing"]
        before: tuple[object, ...] = ()
        due = float("-inf")
        for now in self.moments:
            what = (now.wanted, now.pods, now.ready, now.reason, now.doing)
            if what != before or now.at >= due:
                numbers = f"{_figure(now.lag):>8} {_figure(now.lag_seconds):>6} {_figure(now.arrival_rate):>7}"
                lines.append(
                    f"{now.at - self._began:5.0f}s {now.wanted:7} {now.pods:4} {now.ready:5} {numbers} "
                    f"{_figure(now.capacity):>9}  {now.reason} / {now.doing}"
                )
                before, due = what, now.at + _LINE_SECONDS
        return "\n".join(lines)

    def _run(self) -> None:
        try:
            while not self._ends.is_set():
                try:
                    self.moments.append(self._look())
                    self._said = ""
                except KubectlFailed as error:
                    self._said = str(error)
                self._ends.wait(_LOOK_SECONDS)
        except BaseException as error:
            self._failure = error

    def _look(self) -> Moment:
        asked = time.monotonic()
        found = self._release.kube.list("pods,flowaggregators")  # in one call: it is made often
        at = time.monotonic()
        name = self._release.fullname
        [resource] = [one for one in found if (one["kind"], one["metadata"]["name"]) == ("FlowAggregator", name)]
        pods = [one for one in found if self._labels.items() <= (one["metadata"].get("labels") or {}).items()]
        pods = [pod for pod in pods if pod["kind"] == "Pod" and pod["status"]["phase"] not in {"Succeeded", "Failed"}]
        status: Object = resource.get("status") or {}
        scaling, doing = condition(resource, "Scaling"), status.get("autoscaling") or {}
        return Moment(
            asked=asked,
            at=at,
            wanted=resource["spec"]["consumer"]["replicas"],
            pods=len(pods),
            ready=sum(map(is_ready, pods)),
            lag=status.get("lag"),
            lag_seconds=status.get("lagSeconds"),
            status=scaling.get("status", ""),
            reason=scaling.get("reason", ""),
            message=scaling.get("message", ""),
            doing=doing.get("reason", ""),
            desired=status.get("desired"),
            needed=doing.get("needed"),
            arrival_rate=doing.get("arrivalRate"),
            capacity=doing.get("capacity"),
        )


@pytest.fixture(scope="module")
def paced(installed: Installed) -> Iterator[None]:
    """Slow consumers, one of them, and an autoscaler of quick decisions that knows nothing yet; all as before after."""
    release = installed.release
    release.wait_healthy()
    env = release.custom_resource()["spec"]["consumer"].get("env") or []
    pace = {"name": "FLOWAGG_FLOWS_PER_SECOND", "value": str(PACE)}
    # What it has learned of consumers at another pace goes while it is off: before, and after.
    change = {"replicas": 1, "env": [*env, pace], "autoscaling": {**QUICK, "enabled": False}}
    with release.patched({"consumer": change}):
        try:
            release.wait_condition("Scaling", 60, reason="Disabled")
            release.wait_healthy()
            release.patch({"consumer": {"autoscaling": {"enabled": True}}})
            release.wait_condition("Scaling", 60, status="True", reason="Automatic")
            yield
        finally:
            release.patch({"consumer": {"autoscaling": {"enabled": False}}})
            release.wait_condition("Scaling", 60, reason="Disabled")
    release.wait_healthy()


def test_a_load_is_followed_up_and_down_though_the_acting_operator_is_killed(
    release: Release, load: Callable[..., Traffic]
) -> None:
    partitions = release.custom_resource()["status"]["partitions"]
    earlier = events(release).keys()
    with Watch(release) as watch, load(**SMALL) as small:
        small.wait_flowing()
        watch.wait(lambda now: now.automatic(1), "one consumer is enough for the small load", 120, small)
        with load(**STEP) as step:
            began = time.monotonic()
            up = watch.wait(lambda now: now.wanted > 1, "more consumers", 120, small, step)
            killed = kill_the_acting_operator(release)
            stale = watch.wait(lambda _: True, "a look", 30, small, step)
            release.wait(lambda: acting_operator(release) not in {"", killed}, "another operator acts", 60)
            successor = acting_operator(release)
            taken = watch.wait(lambda now: now.lag != stale.lag, "it looks at the lag", 60, small, step)
            left = BAR_SECONDS - (time.monotonic() - began)
            well = watch.wait(
                lambda now: now.settled(now.wanted) and now.wanted > 1 and now.late_by_less_than(LAG_SECONDS),
                f"lag is below {LAG_SECONDS:g} s again",
                left,
                small,
                step,
            )
            # status.autoscaling is written every 15 s: for so long it speaks of the time before.
            top = watch.wait(
                lambda now: now.late_by_less_than(5) and now.has_room(STEP_FLOWS),
                "the backlog goes while the load lasts, and status says why",
                90,
                small,
                step,
            )
            at_the_top = describe(release)
        print(
            f"from the step: asked for {up.wanted} after {up.at - began:.0f} s, another operator's first look after "
            f"{taken.at - began:.0f} s, below {LAG_SECONDS:g} s after {well.at - began:.0f} s, with {top.wanted}"
        )
        ended = time.monotonic()
        down = watch.wait(lambda now: now.automatic(1), "one consumer again", 180, small)
        print(f"from its end: one consumer after {down.at - ended:.0f} s")
        at_the_end = describe(release)
    # Both loads' totals were exact: their ends have looked.
    print(small.record.summary(), step.record.summary(), sep="\n")
    assert small.record.uncured() == []
    assert step.record.uncured() == []
    assert max(now.pods for now in watch.moments) <= partitions
    # Each change is an event with its numbers, and no other was seen.
    said = [one for name, one in events(release).items() if name not in earlier]
    changes = sorted(
        (one for one in said if one["reason"] in {"ScaledUp", "ScaledDown"}), key=lambda one: one["eventTime"]
    )
    numbers = [found for one in changes if (found := CHANGE.search(one["message"])) is not None]
    assert len(numbers) == len(changes), [one["message"] for one in changes]
    assert [1, *(int(found[2]) for found in numbers)] == watch.numbers()
    assert [int(found[1]) for found in numbers] == watch.numbers()[:-1]
    for one, found in zip(changes, numbers, strict=True):
        assert one["reason"] == ("ScaledUp" if int(found[2]) > int(found[1]) else "ScaledDown")
        assert re.search(r"\d", one["message"][found.end() :]), one["message"]
    # The other operator knew the number for its own, and went on.
    assert {one["reportingInstance"] for one in changes if one["reason"] == "ScaledDown"} == {successor}
    assert "ManualOverride" not in {one["reason"] for one in said} | {now.reason for now in watch.moments}
    # kubectl describe tells it all.
    for words in ("Desired:", "Lag:", "Lag Seconds:", "Last Decision:", "Arrival Rate:", "Capacity:", "Automatic"):
        assert words in at_the_top, f"{words} is missing in {at_the_top}"
    assert re.search(r"Type:\s+Scaling\n", at_the_top), at_the_top
    assert re.search(r"Normal\s+ScaledUp\s.*\d+ -> \d+ consumers", at_the_end), at_the_end
    assert re.search(r"Normal\s+ScaledDown\s.*\d+ -> 1 consumers", at_the_end), at_the_end
    last = release.custom_resource()["status"]["lastDecision"]
    assert (last["to"], last["reason"]) == (1, "ScaledDown")
    assert CHANGE.search(last["message"])


def test_a_number_set_by_hand_holds_for_its_time(release: Release, load: Callable[..., Traffic]) -> None:
    with Watch(release) as watch, load(**SMALL) as small, holding_ended(release):
        small.wait_flowing()
        watch.wait(lambda now: now.automatic(1), "one consumer is enough", 120, small)
        scale(release, 3)
        held = watch.wait(
            lambda now: now.hold_seconds is not None and now.hold_seconds <= HOLD_SECONDS - 5,
            "the hold's time runs",
            HOLD_SECONDS,
            small,
        )
        assert (held.status, held.reason, held.wanted) == ("False", "ManualOverride", 3)
        # A new value of the annotation: the time begins anew.
        renewed = time.monotonic()
        annotate(release, "=once-more")
        left = held.hold_seconds or 0
        again = watch.wait(lambda now: (now.hold_seconds or 0) > left, "a hold renewed", 20, small)
        assert again.needed == 1
        three = watch.wait(lambda now: now.settled(3), "3 consumers", HOLD_SECONDS, small)
        assert three.reason == "ManualOverride"
        back = watch.wait(lambda now: now.wanted != 3, "the hold ends", HOLD_SECONDS + 60, small)
        assert back.at - renewed >= HOLD_SECONDS
        assert back.wanted < 3
        watch.wait(lambda now: now.automatic(1), "one consumer again", 90, small)


def test_zero_pauses_until_it_is_changed(release: Release, load: Callable[..., Traffic]) -> None:
    quick = {"consumer": {"autoscaling": {"manualHoldSeconds": PAUSE_HOLD_SECONDS}}}
    with release.patched(quick), Watch(release) as watch, load(**SMALL) as small:
        small.wait_flowing()
        watch.wait(lambda now: now.automatic(1), "one consumer is enough", 120, small)
        try:
            scale(release, 0)
            paused = watch.wait(lambda now: now.reason == "Paused" and now.settled(0), "no consumers", 60, small)
            assert paused.status == "False"
            # Past the time that another number would hold, and a look more.
            until = paused.at + PAUSE_HOLD_SECONDS + 6
            still = watch.wait(lambda now: now.asked > until, "time goes by", 60, small)
            assert (still.reason, still.wanted, still.pods) == ("Paused", 0, 0)
            assert still.lag, "flows wait in the log"
        finally:
            scale(release, 1)
        watch.wait(lambda now: now.automatic(1), "one consumer again, by the lag", 90, small)


@pytest.mark.parametrize("kind", ["FlowAggregator", "Deployment"])
def test_another_autoscaler_is_named_and_not_fought(release: Release, kind: str) -> None:
    rival = f"rival-{kind.lower()}"
    release.wait_condition("Scaling", 120, status="True", reason="Automatic")
    before = release.custom_resource()["spec"]["consumer"]["replicas"]
    release.kube.apply(horizontal_pod_autoscaler(release, rival, kind))
    try:
        found = release.wait_condition("Scaling", 60, status="False", reason="AutoscalerConflict")
        assert f"HorizontalPodAutoscaler {rival} scales the same consumers" in found["message"]
    finally:
        release.kube.delete("horizontalpodautoscaler", rival, wait=True)
    release.wait_condition("Scaling", 60, status="True", reason="Automatic")
    assert release.custom_resource()["spec"]["consumer"]["replicas"] == before


def test_a_dry_run_only_tells(release: Release) -> None:
    earlier = events(release).keys()
    with Watch(release) as watch:
        watch.wait(lambda now: now.automatic(1), "one consumer", 120)
        # A least number above the one that is there calls for a change at once.
        with release.patched({"consumer": {"autoscaling": {"dryRun": True, "min": 2}}}):
            told = watch.wait(lambda now: now.desired == 2 and now.reason == "DryRun", "a decision", 60)
            assert (told.status, told.doing) == ("True", "ScaledUp")
            message = release.custom_resource()["status"]["autoscaling"]["message"]
            assert message.startswith("dry run, nothing is written: ")
            assert CHANGE.search(message)
            watch.wait(lambda now: now.asked > told.at + 11, "two more looks of the operator", 60)
        watch.wait(lambda now: now.desired == 1 and now.automatic(1), "all as before", 60)
    assert {(now.wanted, now.pods) for now in watch.moments} == {(1, 1)}
    said = [one["reason"] for name, one in events(release).items() if name not in earlier]
    assert said.count("DryRun") == 1  # not again with each look
    assert "ScaledUp" not in said
    assert re.search(r"Normal\s+DryRun\s.*1 -> 2 consumers", describe(release))


def scale(release: Release, count: int) -> None:
    release.kube.run("scale", f"fa/{release.fullname}", f"--replicas={count}")


def describe(release: Release) -> str:
    return release.kube.run("describe", "fa", release.fullname)


def annotate(release: Release, change: str) -> None:
    """Set the annotation that renews a hold (=value), or take it away (-)."""
    release.kube.run("annotate", f"fa/{release.fullname}", "--overwrite", f"{HOLD_ANNOTATION}{change}")


@contextmanager
def holding_ended(release: Release) -> Iterator[None]:
    """Without the annotation in the end, and so without a hold."""
    try:
        yield
    finally:
        annotate(release, "-")


def events(release: Release) -> dict[str, Object]:
    """The FlowAggregator's events, by their names."""
    found = release.kube.list("events")
    about = {"kind": "FlowAggregator", "name": release.fullname}
    return {one["metadata"]["name"]: one for one in found if about.items() <= one["involvedObject"].items()}


def acting_operator(release: Release) -> str:
    """Name of the pod that holds the operator's Lease; empty where that is gone."""
    holder = release.kube.get("lease", f"{release.fullname}-operator")["spec"].get("holderIdentity", "")
    pods = release.kube.names("pods", {"app.kubernetes.io/component": "operator"} | release.chart_labels)
    return next((pod for pod in pods if holder.startswith(pod)), "")


def kill_the_acting_operator(release: Release) -> str:
    """Kill it, without any chance to say goodbye; its pod's name."""
    pod = acting_operator(release)
    assert pod, "no operator acts"
    if release.target.own is not None:  # elsewhere its end without grace has to do
        release.pods.signal(Node(release.target.own), pod, signal.SIGKILL)
    release.kube.delete("pod", pod, at_once=True)
    return pod


def horizontal_pod_autoscaler(release: Release, name: str, kind: str) -> Object:
    """One that would change nothing: its target use is out of reach, and its least number is there."""
    targets = {
        "FlowAggregator": {"apiVersion": "flowaggregator.io/v1alpha1", "kind": kind, "name": release.fullname},
        "Deployment": {"apiVersion": "apps/v1", "kind": kind, "name": f"{release.fullname}-consumer"},
    }
    use = {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "100"}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": release.kube.namespace},
        "spec": {
            "scaleTargetRef": targets[kind],
            "minReplicas": 1,
            "maxReplicas": 6,
            "metrics": [{"type": "Resource", "resource": use}],
        },
    }


def _figure(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
