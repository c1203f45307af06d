"""python -m tests.e2e.rounds: fail-over in rounds with p50 and max, and quiet minutes in which nothing may change.

It installs a release of its own and takes it away at the end. Status 1 where a bar is not kept.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.e2e.conftest import INSTALL_SECONDS, first_answers
from tests.e2e.faults import FAULTS, METHODS, WATCH_SECONDS, gaps, recover, strike
from tests.e2e.kube import Kube, KubectlFailed
from tests.e2e.latency import api_latency
from tests.e2e.pods import ELECTED
from tests.e2e.release import Release
from tests.e2e.target import Node, NotReachable, Target
from tests.e2e.traffic import Manners, Traffic

_NAMESPACE: Final = os.environ.get("E2E_NAMESPACE", "flow-aggregator-rounds")
_POLL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Line:
    """The rounds of one fault and one component: longest times without a 200, in seconds."""

    fault: str
    component: str
    rounds: int
    p50_seconds: float
    max_seconds: float
    bar_seconds: float

    @property
    def holds(self) -> bool:
        """Whether no round took longer than the bar."""
        return self.max_seconds <= self.bar_seconds


@dataclass(frozen=True, slots=True)
class Quiet:
    """Quiet minutes: how often the active pod changed, by the Lease and by the slice as they were seen."""

    minutes: float
    latency_seconds: float
    lease_changes: dict[str, int]
    slice_changes: dict[str, int]
    failures: int

    @property
    def holds(self) -> bool:
        """Whether nothing changed."""
        return not any((*self.lease_changes.values(), *self.slice_changes.values()))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.rounds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="of each fault; 0 for none (default: 20)")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only this one (default: all)")
    parser.add_argument("--quiet-minutes", type=float, default=0.0, help="how long (default: 0, none)")
    parser.add_argument("--latency", type=float, default=1.0, help="of the API server meanwhile, in seconds")
    parser.add_argument("--output", type=Path, help="write the figures here, as JSON")
    given = parser.parse_args(arguments)
    try:
        target = Target.read(os.environ)
    except NotReachable as error:
        parser.exit(2, f"{error}\n")
    if target.own is None:
        parser.exit(2, "the rounds stop processes of the node: they need the cluster of dev/cluster\n")
    node = Node(target.own)
    lines, quiet = [], None
    with _installed(target) as release:
        for fault in (given.fault or FAULTS) if given.rounds else ():
            lines += rounds(release, node, fault, given.rounds)
        if given.quiet_minutes:
            quiet = quiet_minutes(release, node, given.quiet_minutes, given.latency)
    figures = {"rounds": [asdict(line) for line in lines], "quiet": asdict(quiet) if quiet else None}
    print(table(lines, quiet))
    if given.output is not None:
        given.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if all(line.holds for line in lines) and (quiet is None or quiet.holds) else 1


def rounds(release: Release, node: Node, fault: str, count: int) -> list[Line]:
    """Strike the active writer and reader so many times, each under load with a ledger of its own."""
    found: dict[str, list[float]] = {component: [] for component in ELECTED}
    for number in range(1, count + 1):
        release.wait_healthy()
        pods = {component: release.pods.active(component) for component in ELECTED}
        with Traffic(release.target, Manners(posts=20, gets=20, pooled=False)) as traffic:
            traffic.wait_flowing()
            began, struck = strike(release, node, FAULTS[fault].number)
            traffic.watch(WATCH_SECONDS + 1)
            longest = gaps(traffic.record, began)
            recover(release, node, struck, pods)
        for component, gap in longest.items():
            found[component].append(gap)
        said = ", ".join(f"{component} {gap:.2f} s" for component, gap in longest.items())
        print(f"{fault} {number}/{count}: {said}; {traffic.record.summary()}", file=sys.stderr, flush=True)
    return [
        Line(fault, component, count, statistics.median(all_), max(all_), FAULTS[fault].bar_seconds)
        for component, all_ in found.items()
    ]


def quiet_minutes(release: Release, node: Node, minutes: float, latency_seconds: float) -> Quiet:
    """Do nothing under a small load while each answer of the API server is late; count what changes anyway."""
    with api_latency(node, latency_seconds):
        # New pods, so that all of their connections are slow.
        release.kube.delete("pods", *(name for component in ELECTED for name in release.pods.names(component)))
        release.wait_healthy()
        with Traffic(release.target, Manners(posts=2, gets=2)) as traffic:
            before = {component: release.pods.transitions(component) for component in ELECTED}
            seen = {component: release.pods.active(component) for component in ELECTED}
            changes = dict.fromkeys(ELECTED, 0)
            deadline = time.monotonic() + minutes * 60
            while time.monotonic() < deadline:
                traffic.watch(_POLL_SECONDS)
                for component in ELECTED:
                    active = _active(release, component) or seen[component]
                    if active != seen[component]:
                        changes[component] += 1
                        print(f"{component}: {seen[component]} -> {active}", file=sys.stderr, flush=True)
                        seen[component] = active
            after = {component: release.pods.transitions(component) for component in ELECTED}
    lease_changes = {component: after[component] - before[component] for component in ELECTED}
    return Quiet(minutes, latency_seconds, lease_changes, changes, len(traffic.record.failures()))


def table(lines: Sequence[Line], quiet: Quiet | None) -> str:
    """The figures as a table of Markdown."""
    text = [
        "| active pod | fault | rounds | p50 | max | bar |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {line.component} ({METHODS[line.component]}) | {line.fault} | {line.rounds} | {line.p50_seconds:.2f} s "
            f"| {line.max_seconds:.2f} s | {line.bar_seconds:.1f} s{'' if line.holds else ', not kept'} |"
            for line in lines
        ),
    ]
    if quiet is not None:
        text.append(
            f"\n{quiet.minutes:g} quiet minutes, the API server {quiet.latency_seconds:g} s late: the Lease changed "
            f"hands {sum(quiet.lease_changes.values())} times, the slice {sum(quiet.slice_changes.values())} times; "
            f"{quiet.failures} requests failed."
        )
    return "\n".join(text)


@contextmanager
def _installed(target: Target) -> Iterator[Release]:
    kube = Kube(target.program("kubectl"), target.kubeconfig, _NAMESPACE)
    release = Release(target, kube, "rounds")
    kube.delete("namespace", _NAMESPACE, wait=True)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}})
    try:
        release.install()
        first_answers(target, time.monotonic() + INSTALL_SECONDS)
        release.wait_healthy()
        yield release
    finally:
        release.uninstall()
        kube.delete("namespace", _NAMESPACE, wait=True)


def _active(release: Release, component: str) -> str | None:
    try:
        return release.pods.active(component)
    except KubectlFailed:
        return None  # the API server was slow to answer us, too


if __name__ == "__main__":
    sys.exit(main())
