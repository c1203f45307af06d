"""The whole system under a constant load with faults, for a long time: does anything grow that should not?

python -m tests.soak [--minutes M] [--seed K] [--output FILE] [--plot FILE] [--logs FOLDER]

The processes, the load and the faults are those of `make faults`, but at the pace of a system that stays in use: parts
are killed, stopped and ended, masters lost, ways cut and slow, one at a time, with 15 to 45 s of calm before each. The
seed draws them. One writer, one consumer and one reader are never ended: they are what is judged, and so is every other
process of theirs that lives long enough. Every 2 s each process is looked at: its anonymous memory, open files,
connections and threads.

Only calm moments are compared, after a warm-up (a quarter of the run, and as long for a process that was started
again). Memory must not drift: tests/soak/flat.py has the rule. Files, connections, threads, lag and the p50 and p99 of
answers must not be much higher in the last third than in the first. The longer the run, the slower a leak it tells. The
brokers and Redis nodes are shown for reference.

All bounds are set so low that caches are full once it is warm: known keys, totals, bodies, the dedupe window, and
hours that expire three minutes after their last record. The clients check each hour to the byte once nobody writes to
it, and forget it: their own memory is bounded, too. All that takes five minutes to settle, as does the garbage in
cycles that Python leaves until there is much of it: under 20 minutes a run says little. What grows by design: Kafka's
log of the run, which its disk must hold.

The exit status is 0 where every bar holds. Ctrl-C ends the run early and shows what there is.
"""

import argparse
import dataclasses
import json
import signal
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from flowagg_stack.processes import ProcessFailed

from tests.e2e.traffic import Manners
from tests.faults.driver import Stuck
from tests.faults.measure import Positions, Watch
from tests.faults.start import world_here
from tests.faults.world import PARTITIONS, VIEW, World
from tests.soak import report
from tests.soak.backlog import Backlog
from tests.soak.calm import Calm
from tests.soak.clients import PassingClients
from tests.soak.latencies import Latencies
from tests.soak.pace import Pace, Struck, faults
from tests.soak.sampler import Repeated, Sampler, pause_seconds

_MANNERS: Final = Manners(
    posts=20.0, gets=20.0, flows_a_post=20, hours=8, keys=4000, attempt_seconds=3.0, patience_seconds=120.0
)
_HOUR_SECONDS: Final = 10.0
_KEPT_SECONDS: Final = 180.0
"""More than a client's patience: a late repeat must find its mark, and its hour."""
_SETTINGS: Final = {
    "FLOWAGG_KNOWN_KEYS": "1000",
    "FLOWAGG_CACHE_BYTES": str(4 * 2**20),
    "FLOWAGG_BODY_CACHE_BYTES": str(16 * 2**20),
    "FLOWAGG_DEDUPE_WINDOW_SECONDS": f"{_KEPT_SECONDS:g}",
    "FLOWAGG_RETENTION_HOURS": f"{_KEPT_SECONDS / 3600:g}",
}
_WARM_SHARE: Final = 0.25
_SLICES: Final = 30
_LEAST_SLICE_SECONDS: Final = 10.0
_DRAIN_SECONDS: Final = 1.0
_SAID_AT_MOST: Final = 10


@dataclasses.dataclass(slots=True)
class Run:
    """What a run has left. stuck: what did not go on, if anything. hours: that were checked on the way."""

    seen: report.Seen
    outcome: report.Outcome
    struck: list[Struck]
    calm: Calm
    latencies: Latencies
    hours: int
    stuck: str = ""


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of load")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write the figures and all courses here, as JSON")
    parser.add_argument("--plot", type=Path, help="draw the courses here; needs matplotlib (uv sync --group plots)")
    parser.add_argument("--logs", type=Path, help="leave the processes' logs there")
    given = parser.parse_args()
    if not given.minutes >= 1:
        parser.error("--minutes: at least 1")
    if given.plot is not None and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: uv sync --group plots")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with world_here(with_disks=False, logs=given.logs, settings=_SETTINGS) as world:
        run = soaked(world, given.minutes * 60, given.seed)
    figures = report.figures(run.seen)
    bars = report.bars(figures, run.outcome, run.seen.flows_a_second * (run.seen.until - run.seen.since))
    print(f"\n{report.table(figures)}\n")
    if given.output is not None:
        given.output.write_text(json.dumps(_kept(run, figures, bars, given.seed), default=_plain), encoding="utf-8")
    if given.plot is not None:
        from tests.soak.plot import plot  # noqa: PLC0415 - matplotlib is there only for those who ask for it

        plot(run.seen, run.calm.storms, given.plot)
    flows = run.outcome.totals.flows if run.outcome.totals is not None else 0
    minutes = (run.seen.until - run.seen.since) / 60
    said = f"{minutes:.1f} minutes, {len(run.struck)} faults, {flows:,} flows in {run.hours} hours, seed {given.seed}"
    print(f"{said}: {report.last_line(bars)}" + (f"; STUCK: {run.stuck.splitlines()[0]}" if run.stuck else ""))
    return 0 if not run.stuck and all(bar.holds is True for bar in bars) else 1


def soaked(world: World, seconds: float, seed: int) -> Run:
    """The run itself."""
    watch, calm = Watch(PARTITIONS), Calm()
    clients = PassingClients(world.urls("writer"), world.urls("reader"), watch, _MANNERS, seed, _HOUR_SECONDS)
    world.used = {
        "writer": lambda: clients.addresses["POST"].current,
        "reader": lambda: clients.addresses["GET"].current,
    }
    flows_a_second = _MANNERS.posts * _MANNERS.flows_a_post
    say(f"{flows_a_second:g} flows in {_MANNERS.posts:g} POSTs and {_MANNERS.gets:g} GETs a second, seed {seed}")
    latencies = Latencies(calm, max(_LEAST_SLICE_SECONDS, seconds / _SLICES))
    sampler = Sampler(lambda: {name: world.child(name).process.pid for name in world.names()}, calm)
    backlog = Backlog(world, watch, calm)
    pause = pause_seconds(seconds)
    measuring = [
        Repeated("processes", pause, sampler.sample),
        Repeated("backlog", pause, backlog.sample),
        Repeated("latencies", _DRAIN_SECONDS, lambda: latencies.take(clients.take_attempts())),
    ]
    pace = Pace(world, clients, watch, calm, measuring, say)
    stuck = ""
    with Positions(world.redis.nodes, VIEW, watch):
        clients.start()
        since = time.monotonic()
        try:
            with ExitStack() as stack:
                for one in measuring:
                    stack.enter_context(one)
                pace.run(faults(seed), since + seconds)
        except (Stuck, ProcessFailed) as error:
            stuck = str(error)
            say(f"stuck: {stuck}")
        except KeyboardInterrupt:
            stuck = "interrupted"
            world.mend()
        until = time.monotonic()
        clients.stop()
        latencies.take(clients.take_attempts(), to_the_end=True)
        outcome, unread = _outcome(world, clients, pace, latencies)
    seen = report.Seen(
        since,
        until,
        _WARM_SHARE * (until - since),
        flows_a_second,
        sampler.lives,
        latencies.slices,
        backlog.lag,
        backlog.view_mib,
    )
    return Run(seen, outcome, pace.struck, calm, latencies, clients.hours_checked, stuck or unread)


def _outcome(world: World, clients: PassingClients, pace: Pace, latencies: Latencies) -> tuple[report.Outcome, str]:
    """What the end shows, and why it could not be read, if so."""
    for text in (*clients.false_fresh[:_SAID_AT_MOST], *clients.others[:_SAID_AT_MOST], *pace.ended_alone):
        say(f"wrong: {text}")
    totals, dead_letters, unread = None, None, ""
    try:
        totals = clients.totals()
        dead_letters = world.dead_letters()
    except AssertionError as error:
        unread = str(error)
    outcome = report.Outcome(
        totals,
        len(clients.false_fresh),
        len(clients.others),
        dead_letters,
        pace.ended_alone,
        latencies.tries,
        latencies.failures,
    )
    return outcome, unread


def _kept(run: Run, figures: list[report.Figure], bars: list[report.Bar], seed: int) -> dict[str, Any]:
    """As JSON has it; times in seconds since the start."""
    since = run.seen.since
    return {
        "seed": seed,
        "seconds": run.seen.until - since,
        "warm_seconds": run.seen.warm,
        "stuck": run.stuck,
        "outcome": run.outcome,
        "bars": bars,
        "figures": figures,
        "faults": [{"at": one.began - since, "healed": one.healed, "fault": str(one.fault)} for one in run.struck],
        "failed_in_calm": [[round(one.started - since, 1), one.method, one.outcome] for one in run.latencies.failed],
        "processes": [
            {
                "name": life.name,
                "pid": life.pid,
                "samples": [
                    {"at": round(one.at - since, 1), "calm": one.calm} | dataclasses.asdict(one.reading)
                    for one in life.samples
                ],
            }
            for life in run.seen.lives
        ],
        "latencies_ms": {
            method: [[round(one.at - since, 1), one.answers, one.p50, one.p99] for one in slices]
            for method, slices in run.seen.slices.items()
        },
        "lag_records": [[round(one.at - since, 1), one.calm, one.value] for one in run.seen.lag],
        "view_mib": [[round(one.at - since, 1), one.calm, one.value] for one in run.seen.view_mib],
    }


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value)


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
