"""The sample log: real flow records in, their true totals out."""

from collections.abc import Callable
from pathlib import Path

from flowagg_stack import sample

from tests.e2e.release import Release
from tests.e2e.traffic import Traffic

SAMPLE = Path(__file__).parents[2] / "examples" / "flows" / "flows.ndjson.gz"
TRUE = {0: (16_513_565, 19_300_034), 1: (33_078_268, 44_277_366), 2: (132_927, 142_656)}
"""hour -> bytes_tx and bytes_rx, of the sample's README."""


def test_the_sample_log_adds_up_to_its_true_totals(release: Release, load: Callable[..., Traffic]) -> None:
    flows = sample.read_flows(SAMPLE)
    with release.target.client() as client, load(posts=5, gets=5) as traffic:
        traffic.wait_flowing()
        before = sample.read_totals(client, list(TRUE))
        token, ledger = sample.post(client, flows, lambda _: None)
        sample.wait_applied(client, token, lambda _: None)
        after = sample.read_totals(client, list(TRUE))
    for hour, true in TRUE.items():
        rows = [counts for key, counts in ledger.totals.items() if key[3] == hour]
        assert (sum(tx for tx, _ in rows), sum(rx for _, rx in rows)) == true
    assert sample.differences(before, after, ledger) == []
