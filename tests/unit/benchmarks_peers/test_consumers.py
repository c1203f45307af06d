"""The comparison of consumers counts right, on figures made by hand."""

import math
import struct
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.peers.bars import Bar, summary
from benchmarks.peers.consumers.__main__ import MAIN_SHAPE, SHORT_SHAPES, WHOLE_SHAPES, meant, planned
from benchmarks.peers.consumers.data import LogShape, source
from benchmarks.peers.consumers.exactness import Difference, compare
from benchmarks.peers.consumers.peers import FAUST, OURS, QUIX, STREAMS_LEAST, STREAMS_ONCE, peers
from benchmarks.peers.consumers.python_peers.progress import Progress, ProgressFile
from benchmarks.peers.consumers.report import (
    bars,
    document,
    does_not_run,
    measured_head,
    measured_row,
    struck_head,
    struck_row,
)
from benchmarks.peers.consumers.rounds import Measured, Struck
from benchmarks.peers.consumers.speed import Snapshot, Speed, between, second_half
from benchmarks.peers.scale import Scaled, Use, binds, keys_table, log_bytes, processes_table

ONE, TWO = ("a", "b", "vpc-0", 1), ("a", "b", "vpc-0", 2)
EXACT = Difference(0, 0, 0)


def rate(flows_a_second: float, cpu: float = 1.0, redis_cpu: float = 0.0) -> Speed:
    """Over 1,000 flows; cpu: cores used."""
    seconds = 1000 / flows_a_second
    return Speed(1000, seconds, cpu * seconds, redis_cpu * seconds, 0.0, cpu * seconds)


def row(family: str, whole: float, second: float | None = None, rss_mib: float = 100.0, name: str = "") -> Measured:
    halves = None if second is None else rate(second)
    return Measured(name or family, family, "made", rate(whole), halves, rss_mib, EXACT)


def named(found: list[Bar], part: str) -> Bar:
    [bar] = [bar for bar in found if part in bar.name]
    return bar


@pytest.mark.parametrize(
    ("found", "wrong", "short", "over"),
    [
        ({ONE: (10, 1), TWO: (20, 2)}, 0, 0, 0),
        ({ONE: (10, 1)}, 1, 2, 0),
        ({ONE: (10, 3), TWO: (20, 1)}, 2, 1, 2),
        ({ONE: (11, 1), TWO: (20, 2)}, 1, 0, 0),
        ({ONE: (10, 1), TWO: (20, 2), ("x", "y", "z", 0): (5, 4)}, 1, 0, 4),
        ({ONE: (10, 1), TWO: (20, 2), ("x", "y", "z", 0): (0, 0)}, 1, 0, 0),
        ({}, 2, 3, 0),
    ],
)
def test_what_is_missing_and_what_is_too_much_are_counted_apart(
    found: dict[tuple[str, str, str, int], tuple[int, int]], wrong: int, short: int, over: int
) -> None:
    assert compare(found, {ONE: (10, 1), TWO: (20, 2)}) == Difference(wrong, short, over)


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (EXACT, "exact"),
        (Difference(3, 1200, 0), "1,200 lost"),
        (Difference(3, 1200, 7), "1,200 lost, 7 double"),
        (Difference(3, 0, 0), "3 keys wrong"),
    ],
)
def test_a_difference_says_what_was_lost_and_what_was_double(difference: Difference, text: str) -> None:
    assert (difference.text, difference.exact) == (text, text == "exact")


def test_rates_leave_out_what_came_before_the_first_look() -> None:
    first, last = Snapshot(10.0, 500, 1.0, 2.0, 3.0, 10.0), Snapshot(12.0, 1500, 2.0, 2.25, 3.5, 12.5)
    speed = between(first, last)
    assert speed == Speed(1000, 2.0, 1.0, 0.25, 0.5, 2.5)
    assert (speed.flows_a_second, speed.flows_a_cpu_second, speed.flows_a_cpu_second_with_redis) == (500, 1000, 800)
    assert speed.others == pytest.approx(0.375)


def test_no_progress_has_no_rate() -> None:
    first = Snapshot(10.0, 500, 1.0, 2.0, 3.0, 10.0)
    assert between(first, replace(first, at=11.0)) is None
    assert between(first, replace(first, applied=501)) is None


def test_the_second_half_is_of_what_was_applied() -> None:
    seen = [Snapshot(at, applied, at, 0, 0, at) for at, applied in ((0.0, 100), (4.0, 300), (5.0, 650), (6.0, 1100))]
    half = second_half(seen)
    assert half is not None
    assert (half.flows, half.seconds) == (450, 1.0)


def test_a_second_half_that_is_too_short_has_no_rate() -> None:
    assert second_half([Snapshot(0.0, 0, 0, 0, 0, 0), Snapshot(0.1, 100, 0, 0, 0, 0)]) is None
    assert second_half([Snapshot(0.0, 5, 0, 0, 0, 0), Snapshot(9.0, 5, 0, 0, 0, 0)]) is None


def test_bars_take_our_whole_and_the_peers_best() -> None:
    measured = [
        row(OURS, 500, second=900, rss_mib=100),
        row(STREAMS_ONCE, 50, second=60, rss_mib=250),
        row(STREAMS_ONCE, 40, second=100, rss_mib=300, name="two threads"),
        row(STREAMS_LEAST, 200, rss_mib=220),
    ]
    found = bars(measured, [])
    assert named(found, f"flows/s / {STREAMS_ONCE}") == Bar(f"flows/s / {STREAMS_ONCE}: made", 5.0, 5.0, True)
    assert named(found, f"flows/s / {STREAMS_LEAST}").value == 2.5
    assert named(found, "RSS").value == pytest.approx(100 / 220)
    assert named(found, "our wrong totals").value == 0
    assert not [bar for bar in found if QUIX in bar.name or FAUST in bar.name]


def test_each_log_has_its_bars() -> None:
    measured = [row(OURS, 500), row(STREAMS_ONCE, 50), row(OURS, 500), row(STREAMS_ONCE, 250)]
    measured[2:] = [replace(one, shape="another") for one in measured[2:]]
    found = bars(measured, [])
    assert named(found, f"flows/s / {STREAMS_ONCE}: made").value == 10.0
    assert named(found, f"flows/s / {STREAMS_ONCE}: another").value == 2.0


def test_the_slowest_of_our_rounds_counts() -> None:
    measured = [row(OURS, 500), row(OURS, 300), row(STREAMS_ONCE, 50), row(STREAMS_ONCE, 60)]
    assert named(bars(measured, []), f"flows/s / {STREAMS_ONCE}").value == pytest.approx(5)


def test_the_cpu_of_redis_is_held_against_ours() -> None:
    own = Measured(OURS, OURS, "made", rate(800, cpu=1.0, redis_cpu=1.0), None, 1, EXACT)
    found = bars([own, row(STREAMS_ONCE, 100)], [])
    assert named(found, f"CPU second, Redis's included / {STREAMS_ONCE}").value == 4.0


def test_a_run_of_ours_that_failed_holds_no_bar() -> None:
    failed = Measured(OURS, OURS, "made", trouble="it ended")
    found = bars([failed, row(STREAMS_ONCE, 50)], [Struck(OURS, OURS, [5], 10, None, "it ended")])
    assert found
    assert not any(bar.holds for bar in found)


def test_wrong_totals_of_ours_are_a_bar_with_and_without_a_kill() -> None:
    wrong = replace(row(OURS, 500), difference=Difference(2, 1, 0))
    found = bars(
        [wrong], [Struck(OURS, OURS, [5], 10, Difference(3, 1, 0)), Struck("x", "x", [5], 10, Difference(9, 1, 0))]
    )
    assert [(bar.value, bar.holds) for bar in found if "wrong totals" in bar.name] == [(2, False), (3, False)]


def test_without_ours_there_is_no_bar() -> None:
    assert bars([row(STREAMS_ONCE, 50)], []) == []
    assert summary([]) == "no bar was measured"


@pytest.mark.parametrize(
    ("value", "bound", "at_least", "holds"),
    [(5, 5, True, True), (4.99, 5, True, False), (0.5, 0.5, False, True), (0.51, 0.5, False, False)],
)
def test_a_bar_holds_at_its_bound(value: float, bound: float, at_least: bool, holds: bool) -> None:
    bar = Bar("made", value, bound, at_least)
    assert bar.holds is holds
    assert bar.text.endswith("DOES NOT HOLD") is not holds


def test_what_is_no_number_holds_no_bar() -> None:
    for at_least in (True, False):
        assert not Bar("made", math.nan, 1, at_least).holds


def test_the_summary_names_what_does_not_hold() -> None:
    good, bad = Bar("good", 1, 1, True), Bar("bad", 0, 1, True)
    assert summary([good]) == "all 1 bars hold"
    assert summary([good, bad]) == "bars that do not hold: bad"


def test_rows_say_what_does_not_run_and_what_was_not_finished() -> None:
    assert measured_row(row(OURS, 500, 600)).endswith("yes")
    quix = measured_row(Measured(QUIX, QUIX, "made", trouble="many\nlines: no wheel"))
    assert quix.endswith("does not run here: many ... lines: no wheel")
    assert measured_row(replace(row(FAUST, 5), difference=None)).endswith("not at the end in time")
    assert measured_row(replace(row(STREAMS_ONCE, 5), difference=Difference(2, 1, 0))).endswith("NO, 2 keys")


def test_rows_stand_below_their_head() -> None:
    head, line = measured_head("made"), measured_row(row(OURS, 500, 600))
    assert head.index("exact") == line.index("yes")


def test_rows_of_kills_say_how_far_off() -> None:
    line = struck_row(Struck("a", "a", [150_000, 7000], 300, Difference(1, 0, 10)))
    assert line.endswith("150 k, 7 k  10 double")
    assert line.index("10 double") == struck_head(300).index("in the end")
    assert struck_row(Struck("b", "b", (), 300, None, "gone")).endswith("does not run here: gone")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("", "no reason was given"),
        ("gone", "gone"),
        ("ended with status 1:\nfirst\n\n  TypeError: no \n\x1b[?25h\n", "ended with status 1: ... TypeError: no"),
    ],
)
def test_trouble_is_said_in_one_line(trouble: str, said: str) -> None:
    assert does_not_run(trouble) == f"does not run here: {said}"


def test_the_document_has_rates_beside_what_they_were_made_of() -> None:
    made = document([row(OURS, 500, 600)], [], [Bar("made", 1, 1, True)])
    assert made["measured"][0]["rates"]["second"]["flows_a_second"] == pytest.approx(600)
    assert made["bars"] == [{"name": "made", "value": 1, "bound": 1, "at_least": True, "holds": True}]


@pytest.mark.parametrize(
    ("shape", "name", "topic"),
    [
        (LogShape(6, 100_000), "6 partitions, 100,000 keys, uniform", "flows-6-100000-0"),
        (LogShape(1, 10_000, 1.1), "1 partition, 10,000 keys, Zipf 1.1", "flows-1-10000-1.1"),
        (LogShape(6, 0), "6 partitions, the sample repeated", "flows-6-sample-0"),
    ],
)
def test_a_shape_has_a_name_and_a_topic(shape: LogShape, name: str, topic: str) -> None:
    assert (shape.name, shape.topic) == (name, topic)


def test_a_default_run_reads_one_log_with_all_and_others_with_a_few() -> None:
    chosen = peers()
    assert len({peer.name for peer in chosen}) == len(chosen)
    (main, everyone), *others = planned(chosen, whole=False)
    assert (main, everyone) == (MAIN_SHAPE, chosen)
    assert [shape for shape, _ in others] == list(SHORT_SHAPES)
    for _, few in others:
        assert [peer.family for peer in few] == [OURS, STREAMS_LEAST, STREAMS_ONCE]


def test_a_name_is_that_of_one_peer_or_a_part_of_several() -> None:
    everyone = peers()
    assert meant(everyone, []) == everyone
    assert [peer.name for peer in meant(everyone, [f"{STREAMS_ONCE}, 1 thread"])] == [f"{STREAMS_ONCE}, 1 thread"]
    assert {peer.family for peer in meant(everyone, ["ours", STREAMS_LEAST])} == {OURS, STREAMS_LEAST}
    assert meant(everyone, ["nobody"]) == []


def test_a_whole_run_reads_every_log_with_all() -> None:
    chosen = peers()
    found = planned(chosen, whole=True)
    assert [shape for shape, _ in found] == list(WHOLE_SHAPES)
    assert len(set(WHOLE_SHAPES)) == 14
    assert all(who == chosen for _, who in found)


@pytest.mark.parametrize("shape", [LogShape(6, 50), LogShape(6, 0)])
def test_flows_are_the_same_each_time_and_may_count_themselves(shape: LogShape) -> None:
    flows = list(source(shape, 200))
    counted = list(islice(source(shape, 200, counted=True), 200))
    assert flows == list(source(shape, 200))
    assert [(flow.src_app, flow.bytes_tx) for flow in flows] == [(flow.src_app, flow.bytes_tx) for flow in counted]
    assert {flow.bytes_rx for flow in counted} == {1}


def test_progress_is_seen_across_the_file(tmp_path: Path) -> None:
    seen = ProgressFile(tmp_path / "progress")
    counter = Progress(str(tmp_path / "progress"))
    counter.add(5)
    counter.add(2)
    assert seen.read() == 7
    assert struct.unpack("<q", (tmp_path / "progress").read_bytes()) == (7,)
    seen.reset()
    assert seen.read() == 0


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (Use(1.0, (0.9,), 0.3, 0.4, 1.7), "the consumers' one thread each"),
        (Use(1.0, (0.9, 0.1), 0.3, 0.4, 1.7), "the busiest consumer's one thread"),
        (Use(1.2, (0.6, 0.6), 0.3, 0.4, 1.9), "the machine's 2 cores"),
        (Use(1.0, (0.5, 0.5), 0.95, 0.1, 2.0), "Redis's one thread"),
        (Use(0.4, (0.2, 0.2), 0.1, 0.1, 0.7), "waiting"),
        (Use(0.6, (0.3, 0.3), 0.1, 0.1, 2.0), "others on this machine"),
    ],
)
def test_what_binds(use: Use, said: str) -> None:
    assert binds(use, cores=2).startswith(said)


def test_the_tables_of_scale() -> None:
    use = Use(1.0, (0.95,), 0.25, 0.4, 1.7)
    one = Scaled("made", 1, 1100, 100, 2.0, 4.0, use, 90.0, 5000, 50, EXACT)
    two = replace(one, processes=2, seconds=1.0, difference=Difference(1, 1, 0))
    lines = processes_table([one, two], 2).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["1", "500", "1.00"], ["2", "1,000", "2.00"]]
    assert "NO" in lines[2]
    assert keys_table([one]).splitlines()[1].split() == ["50", "1,100", "500", "2000.00", "500.00", "100", "90", "yes"]


def test_kafkas_bytes_are_the_topics_segments_alone(tmp_path: Path) -> None:
    for folder, name, size in (
        ("flows-0", "0.log", 10),
        ("flows-11", "0.log", 5),
        ("flows-0", "0.index", 99),
        ("flows-counted-0", "0.log", 99),
    ):
        directory = tmp_path / "kafka" / "logs" / folder
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(bytes(size))
    assert log_bytes(tmp_path, "flows") == 15
