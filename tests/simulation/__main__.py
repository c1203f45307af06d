"""make sim: run seeds, each a schedule of its own; print and replay what fails.

python -m tests.simulation [--seeds N] [--first K] [--steps N] [--seed K]
"""

import argparse
import sys
import time
import traceback

from tests.simulation.world import World, readable


def main() -> None:
    """Run seeds; the exit status says whether all held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400, help="steps a seed before everything heals")
    parser.add_argument("--seed", type=int, help="replay one seed and print its trace")
    given = parser.parse_args()
    first, count = (given.first, given.seeds) if given.seed is None else (given.seed, 1)
    began = time.monotonic()
    failed = 0
    for seed in range(first, first + count):
        world = World(seed)
        try:
            world.run(given.steps)
        except Exception:
            failed += 1
            print(f"seed {seed} fails; replay it with: make sim SEED={seed} STEPS={given.steps}")
            if given.seed is not None or failed == 1:
                print(readable(world))
                traceback.print_exc(file=sys.stdout)
        else:
            if given.seed is not None:
                print(readable(world))
        if failed >= 20:
            break
    seconds = time.monotonic() - began
    print(f"{count} seeds of {given.steps} steps, {failed} failed, {count / seconds * 60:,.0f} seeds a minute")
    print(f"{count - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
