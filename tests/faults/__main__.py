"""The whole system on this machine, struck by faults under load: what stands still, and is anything lost or doubled?

python -m tests.faults [--faults N] [--flows N] [--seed K] [--kind NAME]... [--slack X]

Three Kafka brokers, three Redis nodes with an AOF, three sentinels, two writers, three consumers, two readers: all real
processes. Keyed POSTs and GETs come at a steady pace all the time. The seed draws the faults and their order; each is
printed as it strikes. A stand-still is the longest time without an acknowledged write, without an applied record of
some partition, or without a fresh read, from the strike until all is well again and a pause longer.

The exit status is 0 where every bar holds. Ctrl-C ends the faults early and shows what there is.
"""

import argparse
import dataclasses
import json
import math
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from flowagg.kafka import group_names
from flowagg_stack.processes import ProcessFailed
from flowagg_stack.provision import Missing, provision_faketime

from tests.e2e.traffic import Manners
from tests.faults import clock, report
from tests.faults.clients import Clients
from tests.faults.disk import own_mounts
from tests.faults.driver import Driver, Round, Stuck
from tests.faults.kinds import KINDS, NEEDS_CLOCKS, NEEDS_DISKS
from tests.faults.measure import Positions, Watch
from tests.faults.schedule import Fault, draw
from tests.faults.start import world_here
from tests.faults.world import PARTITIONS, VIEW, World

_POSTS, _GETS = 20.0, 20.0
_ROUND_SECONDS: Final = 9.0
_FILL_SECONDS: Final = 600.0
_MANNERS: Final = Manners(posts=_POSTS, gets=_GETS, hours=12, keys=600, attempt_seconds=3.0, patience_seconds=300.0)


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--flows", type=int, default=1_000_000, help="at least so many are posted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", action="append", choices=sorted(KINDS), help="only this one (default: all)")
    parser.add_argument("--slack", type=float, default=1.0, help="so many times the bars' times, on a busy machine")
    parser.add_argument("--output", type=Path, help="write the figures here, as JSON")
    parser.add_argument(
        "--logs", type=Path, help="leave the processes' logs there, and brokers' records where it is stuck"
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with_clocks = _has_clocks()
    with_disks = own_mounts()
    names = given.kind or list(KINDS)
    for there, without, why in (
        (with_disks, NEEDS_DISKS, "mounts need root"),
        (with_clocks, NEEDS_CLOCKS, "libfaketime is not installed"),
    ):
        if not there and (left_out := sorted(without.intersection(names))):
            say(f"left out, since {why}: {', '.join(left_out)}")
            names = [name for name in names if name not in without]
    faults = draw(given.seed, given.faults, [KINDS[name][0] for name in names])
    with world_here(with_disks, given.logs, with_clocks=with_clocks) as world:
        rounds, outcome, stuck = struck(world, faults, given.flows, given.seed, given.logs)
    print(f"\n{report.table(rounds, outcome)}\n")
    found = report.bars(rounds, outcome, given.slack)
    print(*found, sep="\n")
    if given.output is not None:
        kept = {"seed": given.seed, "outcome": outcome, "rounds": rounds, "stuck": stuck}
        text = json.dumps(kept, indent=2, default=dataclasses.asdict)
        given.output.write_text(text + "\n", encoding="utf-8")
    flows = outcome.totals.flows if outcome.totals is not None else 0
    said = f"{len(rounds)} of {len(faults)} faults, {flows:,} flows, seed {given.seed}: {report.last_line(found)}"
    print(said + (f"; STUCK: {stuck.splitlines()[0]}" if stuck else ""))
    return 0 if not stuck and outcome.totals is not None and all(bar.holds for bar in found) else 1


def _has_clocks() -> bool:
    """Whether clocks can be set wrong here."""
    try:
        provision_faketime(say)
    except Missing:
        return False
    return clock.library() is not None


def struck(
    world: World, faults: Sequence[Fault], flows: int, seed: int, logs: Path | None
) -> tuple[list[Round], report.Outcome, str]:
    """The run itself. Its third part says what did not go on, if anything. logs: see world_here."""
    watch = Watch(PARTITIONS)
    size = max(1, math.ceil(flows / (max(1, len(faults)) * _ROUND_SECONDS * _POSTS)))
    manners = dataclasses.replace(_MANNERS, flows_a_post=size)
    clients = Clients(world.urls("writer"), world.urls("reader"), watch, manners, seed)
    world.used = {
        "writer": lambda: clients.addresses["POST"].current,
        "reader": lambda: clients.addresses["GET"].current,
    }
    stuck, totals, dead_letters = "", None, 0
    say(f"{_POSTS:g} POSTs of {size} flows and {_GETS:g} GETs a second; {len(faults)} faults, seed {seed}")
    with Positions(world.redis.nodes, VIEW, watch):
        clients.start()
        driver = Driver(world, clients, watch, say)
        try:
            driver.run(faults)
            fill(clients, flows)
        except (Stuck, ProcessFailed) as error:
            stuck = str(error)
            say(f"stuck: {stuck}\n{readiness(world)}\n{coordinators(world)}")
            if logs is not None:
                world.leave_records(logs)
        except KeyboardInterrupt:
            stuck = "interrupted"
            world.mend()
        clients.stop()
        say(clients.record.summary())
        for text in (*clients.false_fresh[:10], *clients.others[:10]):
            say(f"wrong: {text}")
        try:
            totals = clients.totals()
            dead_letters = world.dead_letters()
        except AssertionError as error:
            stuck = stuck or str(error)
    outcome = report.Outcome(totals, len(clients.false_fresh), len(clients.others), dead_letters)
    return driver.rounds, outcome, stuck


def fill(clients: Clients, flows: int) -> None:
    """Let the load run until so many flows are acknowledged. Raises Stuck past ten minutes."""
    deadline = time.monotonic() + _FILL_SECONDS
    while clients.ledger.flows < flows:
        if time.monotonic() > deadline or not clients.alive:
            raise Stuck(f"{clients.ledger.flows:,} of {flows:,} flows are acknowledged")
        time.sleep(0.1)


def readiness(world: World) -> str:
    """What each service says of itself."""
    return "\n".join(f"    {name}: {service.checks() or 'ready'}" for name, service in world.services.items())


def coordinators(world: World) -> str:
    """Where the view's groups have their coordinators, what those say, and the replicas of their partitions."""
    admin = AdminClient({"bootstrap.servers": world.kafka.bootstrap_servers})
    lines = []
    try:
        found = admin.list_topics("__consumer_offsets", timeout=5).topics["__consumer_offsets"]
        for number, part in sorted(found.partitions.items()):
            lines.append(f"    __consumer_offsets-{number}: leader {part.leader}, in sync {sorted(part.isrs)}")
    except KafkaException as error:
        lines.append(f"    __consumer_offsets: {error}")
    # Without a time-out of the client's: see flowagg.kafka.GroupLooks.
    asked = {name: admin.describe_consumer_groups([name], request_timeout=3600)[name] for name in group_names(VIEW)}
    for name, future in asked.items():
        try:
            group = future.result(5)
            lines.append(f"    {name}: {group.state.name}, {len(group.members)} members")
        except TimeoutError:
            lines.append(f"    {name}: no answer")
        except KafkaException as error:
            lines.append(f"    {name}: {error}")
    return "\n".join(lines)


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
