"""Mutations: each switches off one guard; the simulation, or a named test, must notice.

    python -m tests.simulation.mutations              every mutation, in a process of its own
    python -m tests.simulation.mutations --one NAME   one of them, here

A mutation is a replacement in a module's source, made before the module is imported. The text that
it replaces must stand there exactly once, so that no mutation can become void unnoticed.
"""

import argparse
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SEEDS = 1000
STEPS = 400


@dataclass(frozen=True, slots=True)
class Mutation:
    """A guard that is switched off: in each module, text by other text.

    test: who notices, if not a seed. seed: one that noticed, where the search begins; after it come all others.
    """

    name: str
    changes: tuple[tuple[str, str, str], ...]
    test: str | None = None
    seed: int = 1


CORE, PARTITION, MARKS = "flowagg_consumer.core", "flowagg_consumer.partition", "flowagg_consumer.marks"
TOTALS = "flowagg_consumer.totals"
MUTATIONS = [
    Mutation(
        "the fence",
        (
            (
                "tests.simulation.redis_model",
                'return (meta.get(b"position"), meta.get(b"topic_id"), meta.get(b"incarnation")) == fence',
                "return True",
            ),
        ),
        seed=288,
    ),
    Mutation(
        "the fence of the real script",
        (("flowagg_consumer.store", "if stored[i] ~= ARGV[i] then", "if false then"),),
        "tests/integration/test_store.py::test_the_fence_compares_position_topic_and_incarnation",
    ),
    Mutation(
        "the fence of the real transaction",
        (
            (
                "flowagg_consumer.store",
                'if stored != [b"%d" % apply.expected, apply.topic_id.encode(), apply.incarnation.encode()]:',
                "if False:",
            ),
        ),
        "tests/integration/test_store.py::test_the_fence_compares_position_topic_and_incarnation",
    ),
    Mutation(
        "what a transaction rests on is watched",
        (("flowagg_consumer.store", '("WATCH", *keys)', '("WATCH", "another key")'),),
        "tests/integration/test_store.py::test_whatever_changes_after_the_look_undoes_the_transaction",
    ),
    Mutation(
        "types checked before a transaction",
        (("flowagg_consumer.store", 'if kind not in (b"hash", b"none"):', "if False:"),),
        "tests/integration/test_store.py::test_a_foreign_key_in_the_way_is_found_before_the_first_write",
    ),
    Mutation(
        "the topic-id check",
        ((CORE, "if topic_id != meta.topic_id:\n            raise", "if False:\n            raise"),),
        seed=721,
    ),
    Mutation(
        "the epoch in assign",
        ((CORE, "fx.Start(partition.position, partition.leader_epoch)", "fx.Start(partition.position, -1)"),),
        seed=518,
    ),
    Mutation(
        "fenced cache fill",
        (
            (
                PARTITION,
                "if stored_position != self.sent_position or incarnation != self.meta.incarnation:",
                "if False:",
            ),
        ),
        # Seeds notice it where there is no meta at all; this test shows the wrong totals.
        "tests/integration/test_store.py::test_totals_read_at_another_position_never_reach_the_view",
    ),
    Mutation(
        "drop of what is in memory and in flight",
        (
            (CORE, "kept = partition if number != blamed else None", "kept = partition"),
            (CORE, "meta.position == kept.sent_position\n", "kept.resume(meta.position)\n"),
            (
                PARTITION,
                "    def forget(self",
                "    def resume(self, position: int) -> bool:\n"
                "        self.position = self.sent_position = position\n"
                "        return True\n\n"
                "    def forget(self",
            ),
        ),
    ),
    Mutation(
        "idle re-read",
        ((CORE, "if now < self._next_reread:", "if True:"),),
    ),
    Mutation(
        "hours expire before the first record of a tick counts",
        ((TOTALS, "if hour < floor:", "if False:"),),
    ),
    Mutation(
        "what was folded before a tick of retention is sent before it",
        ((CORE, "if examined.tick is not None and partition.open is not None:", "if False:"),),
    ),
    Mutation(
        "nothing is forgotten that an open batch has",
        (
            (CORE, "yield from self._send_open([largest.number], description)", "yield from ()"),
            (CORE, "is not largest or largest.open is not None:", "is not largest:"),
            (PARTITION, "        assert self.open is None  # noqa: S101\n", ""),
        ),
    ),
    Mutation(
        "records are cut where a tick of retention begins",
        ((PARTITION, "records if stop == len(times) else records.between(0, stop)", "records"),),
    ),
    Mutation(
        "an hour far ahead expires nothing below itself",
        (("flowagg_consumer.retention", "if lowest is not None and hour < lowest", "if lowest is not None"),),
    ),
    Mutation(
        "the hour's mark in its tag",
        (
            (
                "flowagg_reader.hour",
                "meta.incarnation, mark.position, meta.leader_epoch",
                "meta.incarnation, meta.leader_epoch",
            ),
        ),
    ),
    Mutation(
        "freshness judged from the reply that has read the totals",
        (("flowagg_reader.core", "        if later.hour.tag != hour.tag:\n            found = later\n", ""),),
    ),
    Mutation(
        "a log that was seen to have another history stays so",
        ((CORE, "if meta.diverged is not None:", "if False:"),),
        # Seed 1829 alone of 10,000 notices.
        "tests/unit/test_core.py::test_a_partition_whose_log_was_seen_to_have_another_history_stays_stopped",
    ),
    Mutation("dedupe", ((MARKS, "if place and index < stops[place - 1]:", "if False:"),)),
    Mutation("dedupe digest", ((MARKS, "if mark.digest != self.digest:", "if False:"),)),
    Mutation(
        "validation before the first record is handed over",
        (("flowagg.flow", "Natural = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]", "Natural = int"),),
    ),
    Mutation(
        "types checked before the script's first write",
        (("flowagg_consumer.store", "if kind ~= 'hash' and kind ~= 'none' then", "if false then"),),
        "tests/integration/test_store.py::test_a_foreign_key_in_the_way_is_found_before_the_first_write",
    ),
    Mutation(
        "writer id on a lost reply",
        ((CORE, "and meta.writer == self._writer\n", "\n"),),
        "tests/unit/test_core.py::test_after_a_lost_reply_memory_is_kept_only_if_this_writer_wrote_last",
    ),
    Mutation(
        "dead letters acknowledged before the position",
        (
            (
                CORE,
                "            yield fx.SendDeadLetters(number, meta.topic_id, batch.dead)\n",
                "            pass\n",
            ),
            (
                CORE,
                "        partition.sent(batch)\n",
                "        partition.sent(batch)\n        if batch.dead:\n"
                "            yield fx.SendDeadLetters(number, meta.topic_id, batch.dead)\n",
            ),
        ),
    ),
    Mutation(
        "the check of line ends before many values are decoded at once",
        (
            (
                "flowagg_consumer.records",
                'return joined[:1] == b"{" and joined[-1:] == b"}" and',
                "return True or",
            ),
        ),
    ),
    Mutation(
        "assigned partitions are paused, and a gap is fetched twice",
        (
            (
                "tests.simulation.kafka_model",
                "        return None\n\n    def _fetch_one",
                "        return fx.Start(self._broker.committed.get(number, 0), -1)\n\n    def _fetch_one",
            ),
            (
                CORE,
                "        self.running[number] = kept\n        yield from self._restart(kept)\n",
                "        self.running[number] = kept\n",
            ),
            (
                PARTITION,
                "                self._seen_gap = (self.position, first)\n                raise Refetch\n",
                "                pass\n",
            ),
        ),
    ),
]


_ORDER = [
    "flowagg.flow",
    "flowagg_consumer.records",
    "flowagg_consumer.retention",
    MARKS,
    TOTALS,
    PARTITION,
    CORE,
    "flowagg_consumer.store",
]
_ORDER += ["flowagg_reader.hour", "flowagg_reader.core"]
_ORDER += ["tests.simulation.kafka_model", "tests.simulation.redis_model"]


def install(mutation: Mutation) -> None:
    """Import the changed modules. Nothing of them may have been imported before."""
    by_module: dict[str, list[tuple[str, str]]] = {}
    for changed, old, new in mutation.changes:
        by_module.setdefault(changed, []).append((old, new))
    loaded = [name for name in by_module if name in sys.modules]
    assert not loaded, f"already imported: {loaded}"
    # In the order in which they import each other, each is put in place before whoever needs it.
    for name in sorted(by_module, key=_ORDER.index):
        if name in sys.modules:
            raise AssertionError(f"{name} was imported by another changed module: list it first")
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_text(encoding="utf-8")
        for old, new in by_module[name]:
            assert source.count(old) == 1, f"{mutation.name}: {old!r} stands {source.count(old)} times in {name}"
            source = source.replace(old, new)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        exec(compile(source, spec.origin, "exec"), module.__dict__)  # noqa: S102 - that is what a mutation is


def notice(mutation: Mutation) -> str | None:
    """Who notices the mutation in this process; None where nobody does."""
    install(mutation)
    if mutation.test is not None:
        import pytest  # noqa: PLC0415 - after the mutation

        return (
            mutation.test if pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", mutation.test]) == 1 else None
        )
    from tests.simulation.world import World  # noqa: PLC0415 - after the mutation

    for seed in (*range(mutation.seed, SEEDS + 1), *range(1, mutation.seed)):
        try:
            World(seed).run(STEPS)
        except Exception as error:
            return f"seed {seed}: {str(error).splitlines()[0][:100] if str(error) else type(error).__name__}"
    return None


def main() -> None:
    """Run one mutation here, or every one in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one")
    given = parser.parse_args()
    if given.one is not None:
        (mutation,) = (mutation for mutation in MUTATIONS if mutation.name == given.one)
        found = notice(mutation)
        print(f"{mutation.name}: {found or 'NOT NOTICED'}")
        sys.exit(0 if found else 1)
    missed = 0
    for mutation in MUTATIONS:
        command = [sys.executable, "-m", "tests.simulation.mutations", "--one", mutation.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        missed += done.returncode != 0
        lines = (done.stdout + done.stderr).strip().splitlines()
        print(lines[-1] if lines else f"{mutation.name}: no answer", flush=True)
    print(f"{len(MUTATIONS) - missed} passed, {missed} failed")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
