"""Tables of what was measured, and the bars. Ratios are of neighbours: the median of the rounds' ratios."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Protocol, TypeVar

from benchmarks.peers.bars import Bar
from benchmarks.peers.http.load import KINDS, Throughput
from benchmarks.peers.http.peers import DURABLE, MEMORY, OURS, Variant
from benchmarks.peers.http.readers import EVENTUAL, FRESH, HOURS, KEPT, RENDERED, Readers, Served
from benchmarks.peers.http.writers import SHARES, Writers, fastest

BAR_DURABLE, BAR_MEMORY, BAR_SINGLE, BAR_P99, BAR_WARM, BAR_304 = 1.0, 0.7, 0.5, 2.0, 1.0, 5_000
_MANY, _KEYS = 1000, 10_000
_R = TypeVar("_R")


def by_round(rows: Iterable[_R], value: Callable[[_R], float], number: Callable[[_R], int]) -> dict[int, float]:
    """Round -> value."""
    return {number(row): value(row) for row in rows}


def median_ratio(ours: dict[int, float], theirs: dict[int, float]) -> float:
    """The median of the rounds that both have."""
    return statistics.median(ours[number] / theirs[number] for number in ours.keys() & theirs.keys())


def speed_ratio(rows: Sequence[Throughput], flows: int, variant: Variant) -> float:
    """Our flows a CPU second by another's."""

    def speeds(wanted: Variant) -> dict[int, float]:
        chosen = [row for row in rows if (row.variant, row.flows) == (wanted, flows)]
        return by_round(chosen, lambda row: row.flows_a_cpu_second, lambda row: row.round)

    return median_ratio(speeds(Variant(OURS)), speeds(variant))


def p99_ratio(writers: Writers, flows: int, share: float) -> float:
    """Our p99 at a share of our capacity by the durable one's at that share of its own."""

    def found(role: str) -> dict[int, float]:
        chosen = [row for row in writers.latency if (row.variant.role, row.flows, row.share) == (role, flows, share)]
        return by_round(chosen, lambda row: row.p99_ms, lambda row: row.round)

    return median_ratio(found(OURS), found(DURABLE))


def served_of(rows: Sequence[Served], keys: int, kind: str) -> dict[Variant, dict[int, float]]:
    """Variant -> round -> requests a CPU second."""
    found: dict[Variant, dict[int, float]] = {}
    for row in rows:
        if (row.keys, row.kind) == (keys, kind):
            found.setdefault(row.variant, {})[row.round] = row.requests_a_cpu_second
    return found


def warm_ratio(rows: Sequence[Served], keys: int, role: str, *others: str) -> float:
    """Our warm GETs a CPU second by those of the fastest Go service of these roles."""
    found = served_of(rows, keys, "warm")
    peers = [speeds for variant, speeds in found.items() if variant.role in others]
    return median_ratio(found[Variant(role)], max(peers, key=lambda speeds: statistics.median(speeds.values())))


def writer_bars(writers: Writers) -> list[Bar]:
    """The bars of the writers: of many flows a POST beside each JSON library, for it is what these differ by."""
    rows = writers.throughput
    single = fastest(rows, DURABLE, 1)
    errors = sum(row.errors for some in (writers.throughput, writers.latency, writers.held) for row in some)
    return [
        *(
            Bar(f"writer: 1,000 flows a POST by {peer.name}, a CPU second", speed_ratio(rows, _MANY, peer), bound, True)
            for role, bound in ((DURABLE, BAR_DURABLE), (MEMORY, BAR_MEMORY))
            for peer in sorted({row.variant for row in rows if row.variant.role == role}, reverse=True)
        ),
        Bar(f"writer: 1 flow a POST by {single.name}, a CPU second", speed_ratio(rows, 1, single), BAR_SINGLE, True),
        Bar(f"writer: 1 flow a POST, p99 at 50 % load by {single.name}", p99_ratio(writers, 1, 0.5), BAR_P99, False),
        Bar("writers: errors", errors, 0, False),
    ]


def reader_bars(readers: Readers) -> list[Bar]:
    """The bars of the readers: beside a Go service that renders an hour for each GET, and one that keeps its body."""
    unchanged = served_of(readers.served, _KEYS, "304")[Variant(EVENTUAL)]
    return [
        *(
            Bar(
                f"reader: warm GET of 10 k keys, eventual, by {role}, a CPU second",
                warm_ratio(readers.served, _KEYS, EVENTUAL, role),
                BAR_WARM,
                True,
            )
            for role in (RENDERED, KEPT)
        ),
        Bar("reader: 304 of 10 k keys, eventual, a CPU second", statistics.median(unchanged.values()), BAR_304, True),
        Bar("readers: errors", sum(row.errors for row in readers.served), 0, False),
    ]


def writer_tables(writers: Writers) -> str:
    """What was measured of the writers."""
    return "\n\n".join([_saturated(writers), _open_loop(writers), _held(writers)])


def reader_tables(readers: Readers) -> str:
    """What was measured of the readers."""
    ratios = [
        f"warm, {role} by the fastest {other}, a CPU second: "
        + ", ".join(f"{keys:,} keys {warm_ratio(readers.served, keys, role, other):.2f}" for keys in HOURS)
        for role in (EVENTUAL, FRESH)
        for other in (RENDERED, KEPT)
    ]
    return "\n\n".join([_served(readers), _cold(readers), "\n".join(ratios)])


def _saturated(writers: Writers) -> str:
    rows = writers.throughput
    lines = [_line("saturated, a POST of", "", f"{'POSTs/s':>11}{'flows/s':>11}{'flows/CPU-s':>13}{'ours / it':>11}")]
    for kind in KINDS:
        for variant in _variants(rows):
            own = [row for row in rows if (row.variant, row.flows) == (variant, kind.flows)]
            posts, flows, cpu = _medians(own, "requests_a_second", "flows_a_second", "flows_a_cpu_second")
            ratio = speed_ratio(rows, kind.flows, variant)
            lines.append(
                _line(_flows(kind.flows), variant.name, f"{posts:>11,.0f}{flows:>11,.0f}{cpu:>13,.0f}{ratio:>11.2f}")
            )
    return "\n".join(lines)


def _open_loop(writers: Writers) -> str:
    names = f"{'load':>6}{'POSTs/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'p99.9 ms':>10}{'max ms':>9}{'late p99':>10}"
    names += f"{'errors':>8}"
    lines = [_line("open loop, a POST of", "", names)]
    for kind in KINDS:
        for share in SHARES:
            rows = [row for row in writers.latency if (row.flows, row.share) == (kind.flows, share)]
            for variant in _variants(rows):
                own = [row for row in rows if row.variant == variant]
                rate, p50, p99, p999, most, late = _medians(
                    own, "rate", "p50_ms", "p99_ms", "p999_ms", "max_ms", "late_p99_ms"
                )
                times = f"{p50:>9.2f}{p99:>9.2f}{p999:>10.2f}{most:>9.1f}{late:>10.2f}"
                errors = sum(row.errors for row in own)
                lines.append(_line(_flows(kind.flows), variant.name, f"{share:>6.0%}{rate:>10,.0f}{times}{errors:>8}"))
    return "\n".join(lines)


def _held(writers: Writers) -> str:
    lines = [_line("connections", "KiB a connection", f"{'idle':>10}{'posted':>10}{'RSS MiB':>10}{'before':>10}")]
    for row in writers.held:
        amounts = f"{row.idle_kib:>10.1f}{row.posted_kib:>10.1f}{row.posted_mib:>10.0f}{row.before_mib:>10.0f}"
        lines.append(_line(f"{row.connections:,}", row.variant.name, amounts))
    return "\n".join(lines)


def _served(readers: Readers) -> str:
    lines = [_line("GETs, flow keys", "", f"{'kind':>6}{'GETs/s':>11}{'GETs/CPU-s':>12}{'MB/CPU-s':>10}")]
    for keys in HOURS:
        for kind in ("warm", "304"):
            rows = [row for row in readers.served if (row.keys, row.kind) == (keys, kind)]
            for variant in _variants(rows):
                own = [row for row in rows if row.variant == variant]
                second, cpu, size = _medians(own, "requests_a_second", "requests_a_cpu_second", "mb_a_cpu_second")
                lines.append(_line(f"{keys:,}", variant.name, f"{kind:>6}{second:>11,.0f}{cpu:>12,.0f}{size:>10,.0f}"))
    return "\n".join(lines)


def _cold(readers: Readers) -> str:
    lines = [_line("cold GETs, flow keys", "", f"{'p50 ms':>9}{'max ms':>9}{'bytes':>13}")]
    for keys in HOURS:
        rows = [row for row in readers.cold if row.keys == keys]
        for variant in _variants(rows):
            own = [row for row in rows if row.variant == variant]
            (p50,), most = _medians(own, "p50_ms"), max(row.max_ms for row in own)
            lines.append(_line(f"{keys:,}", variant.name, f"{p50:>9.2f}{most:>9.1f}{own[-1].body_bytes:>13,}"))
    return "\n".join(lines)


class _Measured(Protocol):
    @property
    def variant(self) -> Variant:
        """What was measured."""


def _variants(rows: Sequence[_Measured]) -> list[Variant]:
    """Those in the rows, ours first."""
    roles = (OURS, DURABLE, MEMORY, EVENTUAL, FRESH, KEPT, RENDERED)
    return sorted({row.variant for row in rows}, key=lambda variant: (roles.index(variant.role), variant.library))


def _medians(rows: Sequence[object], *names: str) -> list[float]:
    """The median of each field."""
    return [statistics.median(map(attrgetter(name), rows)) for name in names]


def _line(what: str, name: str, figures: str) -> str:
    return f"{what:22}{name:24}{figures}"


def _flows(count: int) -> str:
    return f"{count:,} flow{'s' if count > 1 else ''}"
