"""The table, the bars and the last line."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from flowagg.flow import Flow
from flowagg_load.generator import Ledger

from tests.faults.clients import Addresses, Totals, compare
from tests.faults.driver import Round
from tests.faults.kinds import KILL_BROKER, KILL_CONSUMER, KILL_MASTER, STALE_MASTER
from tests.faults.measure import Stalls
from tests.faults.report import Outcome, bars, last_line, percentile, table
from tests.faults.schedule import Fault

WELL = Outcome(Totals(10, 0, 0, 0), false_fresh=0, wrong=0, dead_letters=0)


def rounds(kind: str, *stalls: Stalls) -> list[Round]:
    return [Round(Fault(n, kind, "x", 1, 1, 0), 10.0 * n, 5.0, one) for n, one in enumerate(stalls, 1)]


def applies(kind: str, *seconds: float) -> list[Round]:
    return rounds(kind, *(Stalls(0.1, one, 0.1) for one in seconds))


def test_the_table_has_a_line_per_kind_with_p50_and_max() -> None:
    seen = [replace(one, false_fresh=1) for one in rounds("b", Stalls(1, 2, 3), Stalls(3, 4, 9))]
    head, rule, *lines = table(
        seen + rounds("a", Stalls(0, 0, 0)), Outcome(Totals(10, 1000, 5, 2), 3, 0, 0)
    ).splitlines()
    assert lines == [
        "| a | 1 | 0.00 | 0.00 | 0.00 | 0.00 | 0.00 | 0.00 | 5.0 | 0 |  |  |",
        "| b | 2 | 2.00 | 3.00 | 3.00 | 4.00 | 6.00 | 9.00 | 5.0 | 2 |  |  |",
        "| all | 3 | 1.00 | 3.00 | 2.00 | 4.00 | 3.00 | 9.00 | 5.0 | 3 | 1,000 | 5 |",
    ]
    assert {line.count("|") for line in (head, rule, *lines)} == {13}
    assert "unknown" in table(seen, replace(WELL, totals=None)).splitlines()[-1]


def test_slack_stretches_the_times_alone() -> None:
    seen, lost = applies(KILL_CONSUMER, 5.9), Outcome(Totals(1, 1, 0, 1), 0, 0, 0)
    assert [bar.name for bar in bars(seen, lost, slack=2) if not bar.holds] == ["lost bytes"]
    assert not all(bar.holds for bar in bars(seen, WELL, slack=1.9))


def test_a_run_that_keeps_all_bars_says_so() -> None:
    seen = applies(KILL_CONSUMER, 2.9) + applies(KILL_MASTER, 2.0, 2.4) + applies(STALE_MASTER, 4.9)
    found = bars(seen + rounds(KILL_BROKER, Stalls(9, 9, 9)), WELL)
    assert last_line(found) == "10 of 10 bars hold"


@pytest.mark.parametrize(
    ("seen", "outcome", "missed"),
    [
        ([], Outcome(Totals(1, 1, 0, 1), 0, 0, 0), "lost bytes"),
        ([], Outcome(Totals(1, 0, 1, 1), 0, 0, 0), "doubled bytes"),
        ([], Outcome(Totals(1, 0, 0, 0), 1, 0, 0), "false fresh answers"),
        ([], Outcome(Totals(1, 0, 0, 0), 0, 1, 0), "other wrong answers"),
        ([], Outcome(Totals(1, 0, 0, 0), 0, 0, 1), "dead letters"),
        (applies(KILL_CONSUMER, 2, 3.1, 4), WELL, "applies stand still at a kill of a consumer, p50"),
        (applies(KILL_MASTER, 2, 2, 5.1), WELL, "applies stand still at a failover of Redis, max"),
        (applies(STALE_MASTER, 3), WELL, "applies stand still at a failover of Redis, p50"),
        (rounds(KILL_BROKER, Stalls(10.1, 0, 0)), WELL, "writes stand still at a kill of a broker, p99"),
    ],
)
def test_each_bar_is_missed_by_what_breaks_it(seen: Sequence[Round], outcome: Outcome, missed: str) -> None:
    assert [bar.name for bar in bars(seen, outcome) if not bar.holds] == [missed]


def test_a_service_that_ends_by_itself_is_a_miss_and_a_broker_on_a_full_disk_is_none() -> None:
    one = Round(Fault(1, "a", "x", 1, 1, 0), 0, 1, Stalls(0, 0, 0), ended=("broker-1, status 1: ...",))
    assert all(bar.holds for bar in bars([one], WELL))
    one = replace(one, ended=("consumer-1, status 1: ...",))
    assert [bar.name for bar in bars([one], WELL) if not bar.holds] == ["services that ended by themselves"]


def test_what_was_not_seen_does_not_count_as_held() -> None:
    assert last_line(bars(applies(KILL_CONSUMER, 1), WELL)).startswith("7 of 10 bars hold; not seen: ")


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert percentile([4, 1, 3, 2], 50) == 2
    assert percentile([4, 1, 3, 2], 99) == 4
    assert percentile([], 50) is None


def test_bytes_are_lost_or_doubled_row_by_row() -> None:
    ledger = Ledger()
    for name, tx, rx in (("a", 10, 1), ("b", 10, 1), ("c", 10, 1)):
        ledger.add(Flow(name, "x", "v", 1, tx, rx))

    def row(name: str, tx: int, rx: int) -> dict[str, object]:
        return {"src_app": name, "dest_app": "x", "vpc_id": "v", "hour": 1, "bytes_tx": tx, "bytes_rx": rx}

    assert compare({1: ledger.rows(1)}, ledger) == Totals(3, 0, 0, 0)
    # a counts too little and too much, b is missing, c is right, d is nobody's.
    assert compare({1: [row("a", 7, 3), row("c", 10, 1), row("d", 5, 0)]}, ledger) == Totals(3, 14, 7, 3)


def test_clients_leave_an_address_once_however_many_of_them_it_fails() -> None:
    addresses = Addresses(["one", "two"])
    for _ in range(3):
        addresses.failed("one")
    assert addresses.current == "two"
    addresses.failed("two")
    assert addresses.current == "one"
