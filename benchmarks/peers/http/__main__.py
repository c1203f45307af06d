"""The writer and the reader beside Go services that do the same work, in one run on the same flows.

    python -m benchmarks.peers.http [--seconds 3] [--rounds 3] [--only writers|readers] [--json std,sonic]

Writers: ours; Go's net/http with totals in memory; the same with a record in Kafka for each flow (acks=all,
idempotent). POSTs of 1, 10, 100 and 1,000 flows: as fast as they are answered, then at 50 % and 90 % of that at a
constant rate, with latencies that count from when a POST was meant to be sent. What 4,096 connections hold in memory.
Readers: ours, and Go's with totals in memory: hours of 100, 10,000 and 200,000 flow keys, cold, warm and 304.
Of several JSON libraries in Go, the bars count against the fastest.
"""

import argparse
import sys
from pathlib import Path

from flowagg.errors import FlowaggError

from benchmarks.peers.bars import summary
from benchmarks.peers.http.benchmark import PLOT, READERS, RESULT, WRITERS, Options, run
from benchmarks.peers.http.peers import LIBRARIES


def main() -> None:
    """Run, and end: 0 where all bars hold."""
    default = Options()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=default.seconds, help="of each measurement of a writer")
    parser.add_argument("--read-seconds", type=int, default=default.read_seconds, help="of each one of a reader")
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--only", choices=(WRITERS, READERS))
    parser.add_argument(
        "--json", type=_libraries, default=default.libraries, help="JSON libraries in Go: std,goccy,sonic"
    )
    parser.add_argument("--plot", type=Path, default=PLOT, help="where the picture goes (needs matplotlib)")
    parser.add_argument("--no-plot", action="store_true")
    parser.add_argument("--result", type=Path, default=RESULT, help="where everything goes as JSON")
    given = parser.parse_args()
    plot = None if given.no_plot else given.plot
    options = Options(given.seconds, given.read_seconds, given.rounds, given.json, given.only, plot, given.result)
    try:
        bars = run(options)
    except FlowaggError as error:
        sys.exit(f"benchmarks.peers.http: {error}")
    print("", *(bar.text for bar in bars), sep="\n")
    print(summary(bars))
    sys.exit(0 if all(bar.holds for bar in bars) else 1)


def _libraries(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in LIBRARIES]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: of {', '.join(LIBRARIES)}")
    return names


if __name__ == "__main__":
    main()
