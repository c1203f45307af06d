"""The sample flow log is the one that its README describes."""

import gzip
import hashlib

from flowagg_load.generator import Ledger, Shape, flows
from flowagg_stack.run import SAMPLE
from flowagg_stack.sample import differences, read_flows


def test_the_sample_has_the_figures_of_its_readme() -> None:
    with gzip.open(SAMPLE) as lines:
        digest = hashlib.sha256(lines.read()).hexdigest()
    ledger = Ledger()
    for flow in read_flows(SAMPLE):
        ledger.add(flow)
    assert digest == "46feeae159d3f50a7015dd79347f36427b16d2aac27d22d123d059f1680e1688"
    assert (ledger.flows, len(ledger.totals), ledger.hours()) == (48_657, 209, [0, 1, 2])
    assert tuple(map(sum, zip(*ledger.totals.values(), strict=True))) == (49_724_760, 63_720_056)


def test_a_difference_of_one_byte_is_found() -> None:
    ledger = Ledger()
    source = flows(Shape(keys=50), seed=7)
    for _ in range(1000):
        ledger.add(next(source))
    true = dict(ledger.totals)
    assert differences({}, true, ledger) == []
    key = next(iter(true))
    assert len(differences({}, true | {key: (true[key][0] + 1, true[key][1])}, ledger)) == 1
    assert len(differences({}, {k: v for k, v in true.items() if k != key}, ledger)) == 1
    assert len(differences({}, true | {("x", "y", "z", 1): (1, 0)}, ledger)) == 1
    assert differences(true, {k: (2 * tx, 2 * rx) for k, (tx, rx) in true.items()}, ledger) == []


def test_flows_are_repeatable() -> None:
    shape = Shape(keys=100, zipf=1.1)
    one, other = flows(shape, seed=1), flows(shape, seed=1)
    assert [next(one) for _ in range(500)] == [next(other) for _ in range(500)]
