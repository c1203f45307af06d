"""What the consumers' own /readyz and /metrics say, and what the condition Consuming makes of it. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from flowagg_operator.conditions import Verdict
from flowagg_operator.speed import Worked

GUIDE: Final = "docs/guides/stopped-partitions.md"
_PARTITION: Final = re.compile(r"partition_(\d+)")
_STOPPED: Final = re.compile(r"stopped, (\w+): (.*)", re.DOTALL)
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Stop:
    """A partition that a consumer has stopped."""

    partition: int
    pod: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Consumers:
    """What the consumer pods say.

    owned: partition -> the pod that applies it. waiting: checks that fail. silent: pods that did not answer. answered,
    well: pods that did, and those of them with no failing check. worked: pod -> what it has applied so far.
    """

    owned: Mapping[int, str] = field(default_factory=dict)
    stops: Sequence[Stop] = ()
    waiting: Sequence[str] = ()
    silent: Sequence[str] = ()
    answered: int = 0
    well: int = 0
    worked: Mapping[str, Worked] = field(default_factory=dict)


class _Readyz(msgspec.Struct):
    checks: dict[str, str]


def read_checks(body: bytes) -> dict[str, str]:
    """The checks of a /readyz that are not ok. Raises ValueError."""
    try:
        checks = msgspec.json.decode(body, type=_Readyz).checks
    except msgspec.MsgspecError as error:
        raise ValueError(f"no answer of a /readyz: {error}") from None
    return {name: text for name, text in checks.items() if text != "ok"}


def read_metrics(text: str) -> tuple[set[int], Worked]:
    """The partitions that a consumer's metrics show a position of, and its work so far. Raises ValueError."""
    owned, flows, seconds = set[int](), 0.0, 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name.startswith("flowagg_consumer_") else ():
            match sample.name:
                case "flowagg_consumer_position":
                    owned.add(int(sample.labels["partition"]))
                case "flowagg_consumer_flows_total":
                    flows = sample.value
                case "flowagg_consumer_turn_seconds_sum":
                    seconds = sample.value
    return owned, Worked(flows, seconds)


def stops_in(pod: str, checks: Mapping[str, str]) -> list[Stop]:
    """The stopped partitions that a consumer's failing checks name."""
    stops = []
    for name, text in checks.items():
        number, said = _PARTITION.fullmatch(name), _STOPPED.fullmatch(text)
        if number and said:
            detail = said[2].rsplit("; see ", 1)[0]
            stops.append(Stop(int(number[1]), pod, said[1], detail))
    return stops


def judge(consumers: Consumers, stalled: Mapping[int, float], replicas: int, deployment: str) -> Verdict:
    """The condition Consuming. stalled: partition -> seconds without progress; replicas: consumers that are wanted."""
    if replicas == 0:
        text = "spec.consumer.replicas is 0: nothing is applied, the view stays behind. Set it to 1 or more to go on"
        return Verdict("False", "Paused", text)
    if consumers.stops:
        return _stopped(consumers.stops, deployment)
    if not consumers.answered:
        silent = f" ({', '.join(consumers.silent)} did not answer)" if consumers.silent else ""
        return Verdict("Unknown", "NoConsumer", f"no consumer pod answers yet{silent}")
    if stalled:
        return _stalled(consumers, stalled)
    if consumers.waiting and not consumers.well:
        return Verdict("False", "Waiting", "; ".join(consumers.waiting[:_SHOWN]))
    owned, pods = len(consumers.owned), consumers.answered
    text = f"{owned} partition{'s' * (owned != 1)} applied by {pods} consumer{'s' * (pods != 1)}"
    return Verdict("True", "Applying", text)


def _stopped(stops: Sequence[Stop], deployment: str) -> Verdict:
    alike: dict[tuple[str, str], list[Stop]] = {}
    for stop in sorted(stops, key=lambda stop: stop.partition):
        alike.setdefault((stop.reason, stop.detail), []).append(stop)
    said = []
    for (reason, detail), group in alike.items():
        numbers, pods = ", ".join(str(stop.partition) for stop in group), ", ".join(sorted({s.pod for s in group}))
        said.append(f"partition{'s' * (len(group) > 1)} {numbers}: {reason}: {detail} (in {pods})")
    more = f"; and {len(said) - _SHOWN} more reasons" if len(said) > _SHOWN else ""
    todo = f"mend the cause as {GUIDE} says, then kubectl rollout restart deployment/{deployment}"
    return Verdict("False", "PartitionStopped", f"{'; '.join(said[:_SHOWN])}{more}: {todo}")


def _stalled(consumers: Consumers, stalled: Mapping[int, float]) -> Verdict:
    owned = {partition: seconds for partition, seconds in stalled.items() if partition in consumers.owned}
    if owned:
        said = ", ".join(
            f"partition {partition} for {seconds:.0f} s (pod {consumers.owned[partition]})"
            for partition, seconds in sorted(owned.items())
        )
        todo = f"look at the pod's log; kubectl delete pod gives the partition to another. See {GUIDE}"
        return Verdict("False", "StalledPartition", f"records wait and no progress was made: {said}: {todo}")
    said = ", ".join(map(str, sorted(stalled)))
    why = "; ".join(consumers.waiting[:_SHOWN]) or "the group has not given it to one"
    return Verdict("False", "StalledPartition", f"records wait and no consumer applies partition {said}: {why}")
