"""The comparison with services in Go: its pure parts."""

import json
import math
import socket
from pathlib import Path

import pytest
from flowagg.flow import InvalidFlow, decode_flows

from benchmarks.peers.http.contract import ACCEPTED, REFUSED, Unlike, check_logs
from benchmarks.peers.http.held import Held
from benchmarks.peers.http.load import Latency, Throughput
from benchmarks.peers.http.machine import Usage, foreign_share
from benchmarks.peers.http.peers import DURABLE, MEMORY, OURS, Variant
from benchmarks.peers.http.programs import SOURCES, digest, go_version
from benchmarks.peers.http.readers import EVENTUAL, FRESH, KEPT, RENDERED, Cold, Readers, Served
from benchmarks.peers.http.report import (
    p99_ratio,
    reader_bars,
    reader_tables,
    speed_ratio,
    warm_ratio,
    writer_bars,
    writer_tables,
)
from benchmarks.peers.http.wire import receive, request
from benchmarks.peers.http.writers import SHARES, Writers, capacity, fastest, turned

STD, SONIC = Variant(DURABLE, "std"), Variant(DURABLE, "sonic")
MINE = Variant(OURS)


def throughput(variant: Variant, number: int, speed: float, flows: int = 1000, errors: int = 0) -> Throughput:
    return Throughput(variant, flows, number, speed / flows, speed, speed / flows, speed, errors)


def latency(variant: Variant, number: int, p99: float, flows: int = 1, share: float = 0.5) -> Latency:
    return Latency(variant, flows, number, share, 1000.0, 3000, p99 / 2, p99, p99 * 2, p99 * 3, 0.1, 0)


def served(variant: Variant, number: int, speed: float, kind: str = "warm", keys: int = 10_000) -> Served:
    return Served(variant, keys, kind, number, speed, speed, speed, 0)


@pytest.mark.parametrize(("body", "count"), ACCEPTED)
def test_what_every_service_must_accept_is_what_the_writer_accepts(body: bytes, count: int) -> None:
    assert len(decode_flows(body)) == count


@pytest.mark.parametrize("body", REFUSED)
def test_what_every_service_must_refuse_is_what_the_writer_refuses(body: bytes) -> None:
    with pytest.raises(InvalidFlow):
        decode_flows(body)


def test_durable_services_must_append_the_same_records() -> None:
    count = sum(count for _, count in ACCEPTED)
    records = [(0, b"key", b"%d" % number) for number in range(count)]
    check_logs({MINE: records, STD: list(records)})
    with pytest.raises(Unlike, match=rf"appends other records than ours: .*b'{count - 1}'"):
        check_logs({MINE: records, STD: [*records[:-1], (1, b"key", records[-1][2])]})
    with pytest.raises(Unlike, match="ours has appended 0 records"):
        check_logs({MINE: [], STD: []})


def test_each_round_begins_with_another_service() -> None:
    assert [turned("abc", number) for number in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]


def test_a_ratio_is_the_median_of_neighbours_in_the_same_round() -> None:
    ours = [throughput(MINE, number, speed) for number, speed in enumerate((100, 50, 300))]
    theirs = [throughput(SONIC, number, speed) for number, speed in enumerate((100, 100, 200))]
    assert speed_ratio([*ours, *theirs], 1000, SONIC) == 1.0  # of 1, 0.5 and 1.5; the ratio of the medians is the same
    theirs[0] = throughput(SONIC, 0, 400)
    assert speed_ratio([*ours, *theirs], 1000, SONIC) == 0.5  # that of the medians would be 100 / 200, too
    assert speed_ratio([*ours, *theirs], 1000, MINE) == 1.0


def test_the_bars_count_against_the_fastest_library() -> None:
    rows = [throughput(STD, number, 100) for number in range(3)] + [
        throughput(SONIC, number, 150) for number in range(3)
    ]
    assert fastest(rows, DURABLE, 1000) == SONIC
    rows += [throughput(STD, number, 200, flows=1) for number in range(3)]
    rows += [throughput(SONIC, number, 190, flows=1) for number in range(3)]
    assert fastest(rows, DURABLE, 1) == STD


def test_the_capacity_is_the_median_of_the_rounds() -> None:
    rows = [throughput(MINE, number, speed) for number, speed in enumerate((1000, 9000, 2000))]
    assert capacity(rows, MINE, 1000) == 2.0


def test_a_warm_get_is_compared_with_the_fastest_go_service_of_the_roles() -> None:
    rows = [
        served(Variant(EVENTUAL), 0, 90),
        served(Variant(KEPT, "sonic"), 0, 100),
        served(Variant(RENDERED, "sonic"), 0, 5),
        served(Variant(RENDERED, "std"), 0, 9),
    ]
    assert warm_ratio(rows, 10_000, EVENTUAL, KEPT, RENDERED) == 0.9
    assert warm_ratio(rows, 10_000, EVENTUAL, RENDERED) == 10


def a_run(errors: int = 0) -> tuple[Writers, Readers]:
    sizes, rounds = (1, 10, 100, 1000), range(3)
    memory = Variant(MEMORY, "sonic")
    writers = Writers(
        [
            throughput(variant, number, speed, flows, errors)
            for variant, speed in ((MINE, 90.0), (SONIC, 60.0), (STD, 50.0), (memory, 120.0))
            for number in rounds
            for flows in sizes
        ],
        [
            latency(variant, number, p99, flows, share)
            for variant, p99 in ((MINE, 3.0), (SONIC, 2.0))
            for number in rounds
            for flows in sizes
            for share in SHARES
        ],
        [Held(variant, 4096, 100.0, 120.0, 140.0, 0) for variant in (MINE, SONIC, memory)],
    )
    variants = (Variant(EVENTUAL), Variant(FRESH), Variant(KEPT, "sonic"), Variant(RENDERED, "std"))
    readers = Readers(
        [
            served(variant, number, speed, kind, keys)
            for variant, speed in zip(variants, (6000.0, 5500.0, 5000.0, 100.0), strict=True)
            for kind in (("warm",) if variant.role == RENDERED else ("warm", "304"))
            for number in rounds
            for keys in (100, 10_000, 200_000)
        ],
        [
            Cold(variant, keys, n, 20, 9.0, 12.0, 10)
            for variant in variants[:3]
            for keys in (100, 10_000, 200_000)
            for n in rounds
        ],
    )
    return writers, readers


def test_a_run_that_is_good_enough_holds_all_bars() -> None:
    writers, readers = a_run()
    bars = [*writer_bars(writers), *reader_bars(readers)]
    assert [(round(bar.value, 2), bar.holds) for bar in bars] == [
        (1.8, True),  # beside the durable one with the standard library
        (1.5, True),  # and with the faster one
        (0.75, True),
        (1.5, True),
        (1.5, True),
        (0, True),
        (60, True),  # beside the one that renders
        (1.2, True),  # and the one that keeps
        (6000, True),
        (0, True),
    ]
    assert p99_ratio(writers, 1, 0.5) == 1.5


def test_errors_break_a_bar() -> None:
    assert not all(bar.holds for bar in writer_bars(a_run(errors=1)[0]))


def test_the_tables_have_a_line_for_each_measurement() -> None:
    writers, readers = a_run()
    lines = writer_tables(writers).splitlines()
    assert len(lines) == (1 + 4 * 4) + 1 + (1 + 4 * 2 * 2) + 1 + (1 + 3)
    assert "1,000 flows           durable Go, sonic                 0         60           60       1.50" in lines
    assert "4,096                 ours                           5.0      10.0       140       100" in lines
    assert len(reader_tables(readers).splitlines()) == (1 + 3 * 7) + 1 + (1 + 3 * 3) + 1 + 4


def test_memory_is_told_a_connection() -> None:
    held = Held(MINE, 4096, 100.0, 140.0, 180.0, 0)
    assert (held.idle_kib, held.posted_kib) == (10.0, 20.0)


def test_what_others_have_used_of_the_machine_is_told() -> None:
    before = Usage(clock=100.0, taken=40.0, own=7.0)
    assert foreign_share(before, Usage(clock=110.0, taken=55.0, own=17.0), cores=2) == 0.25
    assert foreign_share(before, Usage(clock=110.0, taken=49.9, own=17.0), cores=2) == 0.0  # ticks are coarse


def test_another_source_makes_another_build(tmp_path: Path) -> None:
    (tmp_path / "cmd").mkdir()
    (tmp_path / "go.mod").write_text("module x\n")
    (tmp_path / "cmd" / "main.go").write_text("package main\n")
    first = digest(tmp_path)
    assert digest(tmp_path) == first
    (tmp_path / "cmd" / "main.go").write_text("package main \n")
    second = digest(tmp_path)
    (tmp_path / "cmd" / "main.go").rename(tmp_path / "cmd" / "other.go")
    assert len({first, second, digest(tmp_path)}) == 3


def test_the_peers_are_pinned() -> None:
    go_mod = (SOURCES / "go.mod").read_text()
    assert go_version(go_mod) >= (1, 26)
    sums = (SOURCES / "go.sum").read_text()
    for module in ("github.com/twmb/franz-go", "github.com/bytedance/sonic", "github.com/goccy/go-json"):
        version = next(line.split()[1] for line in go_mod.splitlines() if line.strip().startswith(f"{module} "))
        assert f"{module} {version} h1:" in sums


def test_a_request_and_its_answer_on_the_wire() -> None:
    assert request("GET", "/flows?hour=1") == b"GET /flows?hour=1 HTTP/1.1\r\nHost: bench\r\n\r\n"
    assert request("POST", "/flows", b"[]", {"A": "b"}) == (
        b"POST /flows HTTP/1.1\r\nHost: bench\r\nA: b\r\nContent-Length: 2\r\n\r\n[]"
    )
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b'HTTP/1.1 200 OK\r\nETag: W/"1"\r\nContent-Length: 4\r\n\r\n[{}]')
        answer = receive(here, "GET")
        assert (answer.status, answer.headers["etag"], json.loads(answer.body)) == (200, 'W/"1"', [{}])


def test_an_answer_that_is_cut_off_is_an_error() -> None:
    here, there = socket.socketpair()
    with here:
        with there:
            there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[{")
        with pytest.raises(EOFError):
            receive(here, "GET")


def test_no_figure_holds_no_bar() -> None:
    writers, _ = a_run()
    broken = Writers(
        [throughput(r.variant, r.round, math.nan, r.flows) for r in writers.throughput], writers.latency, []
    )
    assert not writer_bars(broken)[0].holds
