"""`flowagg dead-letters` on a real Kafka and a real Redis: letters are mended and replayed, each exactly once.

The replayer is killed with -9 at the moments that matter, replayed again, raced, and the totals are compared with
the ledger's.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import OffsetSpec
from flowagg.flow import Flow, encode_key, encode_value
from flowagg.idempotency import Mark
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_stack.processes import Processes
from flowagg_stack.services import Stack, start_service
from flowagg_stack.topics import ensure_topic
from flowagg_writer.murmur2 import partition_of

from tests.conftest import Place
from tests.integration.tools import assert_exact, get, post, wait_for

pytestmark = [pytest.mark.operations, pytest.mark.timeout(240)]

StartStack = Callable[..., Stack]
Record = tuple[int, bytes | None, bytes | None]
BAD = 12

# A `flowagg` that stops at the commit of its first transaction: before it or behind it, by -9 or until a line comes in.
STOPPING = """
import os, signal, sys
from flowagg_cli import __main__, dead_letter_log

moment, how = sys.argv.pop(1), sys.argv.pop(1)
commit = dead_letter_log.Replayer.commit

def stop():
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print("stopped", flush=True)
    sys.stdin.readline()

def stopping(self):
    if moment == "before":
        stop()
    commit(self)
    if moment == "behind":
        stop()

dead_letter_log.Replayer.commit = stopping
__main__.main(sys.argv[1:])
"""


class Operator:
    """A person at the command line. replay_batch: letters a transaction."""

    def __init__(self, place: Place, directory: Path, **settings: str) -> None:
        self.place = place
        self.directory = directory
        given = {name: value for name, value in os.environ.items() if not name.startswith("FLOWAGG_")}
        self.environment = given | place.environment | settings

    def start(self, *words: str, stopping: Sequence[str] = ()) -> "subprocess.Popen[str]":
        begin = ["-c", STOPPING, *stopping] if stopping else ["-m", "flowagg_cli"]
        return subprocess.Popen(
            [sys.executable, *begin, "dead-letters", *words],
            env=self.environment,
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, stopping: Sequence[str] = (), given: str = "") -> "subprocess.CompletedProcess[str]":
        child = self.start(*words, stopping=stopping)
        try:
            output, errors = child.communicate(given, timeout=90)
        finally:
            child.kill()
        return subprocess.CompletedProcess(child.args, child.returncode, output, errors)

    def does(self, *words: str) -> str:
        """The output of a command that succeeds."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def letters(self, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.does("list", "--json", *words))["letters"]
        return found


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def source() -> Iterator[Flow]:
    return flows(Shape(keys=200, hours=3), seed=20261127)


@pytest.fixture
def operator(place: Place, tmp_path: Path) -> Operator:
    ensure_topic(place.admin, f"{place.topic}.dead-letters", 1)
    return Operator(place, tmp_path)


def produce(place: Place, records: Sequence[Record]) -> None:
    producer = Producer({"bootstrap.servers": place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"]})
    for partition, key, value in records:
        producer.produce(place.topic, value, key, partition)
    assert producer.flush(30) == 0


def foreign(source: Iterator[Flow]) -> tuple[list[Record], list[Flow]]:
    """Records of a producer that gives the hour as text, and the flows that it means."""
    meant = list(islice(source, BAD))
    records: list[Record] = [
        (
            number % 6,
            json.dumps([flow.src_app, flow.dest_app, flow.vpc_id, str(flow.hour)]).encode(),
            encode_value(flow.bytes_tx, flow.bytes_rx),
        )
        for number, flow in enumerate(meant)
    ]
    return records, meant


def mend_hours(path: Path) -> None:
    """What a person does in an editor: hours become numbers."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["flow"]["hour"] = int(line["flow"]["hour"])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def wait_letters(operator: Operator, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = wait_for(
        lambda: letters if len(letters := operator.letters()) >= count else None, f"{count} letters", 60
    )
    return found


def without(ledger: Ledger, missing: Sequence[Flow]) -> Ledger:
    """The ledger before these flows were added."""
    found = Ledger(dict(ledger.totals), ledger.flows - len(missing))
    for flow in missing:
        key = (flow.src_app, flow.dest_app, flow.vpc_id, flow.hour)
        bytes_tx, bytes_rx = found.totals[key]
        found.totals[key] = (bytes_tx - flow.bytes_tx, bytes_rx - flow.bytes_rx)
    found.totals = {key: counts for key, counts in found.totals.items() if counts != (0, 0)}
    return found


def read(place: Place, topic: str, partition: int) -> list[Message]:
    """All committed records of a partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": "test",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0)])
    found: list[Message] = []
    while not (message := consumer.consume(1, 30)[0]).error():
        found.append(message)
    consumer.close()
    return found


@pytest.fixture
def broken(
    start_stack: StartStack, operator: Operator, ledger: Ledger, source: Iterator[Flow]
) -> tuple[Stack, list[Flow], Path]:
    """A stack with flows and letters, and the mended file of those; its flows are in the ledger already."""
    stack = start_stack(consumers=1)
    post(stack, islice(source, 600), ledger)
    records, meant = foreign(source)
    produce(operator.place, records)
    wait_letters(operator, BAD)
    path = operator.directory / "mended.ndjson"
    operator.does("mend", "--to", str(path))
    mend_hours(path)
    for flow in meant:
        ledger.add(flow)
    return stack, meant, path


def test_letters_are_listed_mended_and_replayed_once_however_often(
    broken: tuple[Stack, list[Flow], Path], operator: Operator, ledger: Ledger
) -> None:
    stack, _, path = broken
    table = operator.does("list")
    assert table.count("InvalidKey") == BAD + 1  # and one in the count by reason
    assert get(stack, 1).headers["flowagg-fresh"] == "true"
    assert "12 letters would be replayed, 0 left out" in operator.does("replay", str(path), "--dry-run")
    assert {letter["state"] for letter in operator.letters()} == {"open"}
    assert operator.does("replay", str(path), "--by", "ann").strip() == "12 letters replayed, 0 left out"
    assert_exact(stack, ledger)
    again = operator.run("replay", str(path), "--by", "bob")
    assert (again.returncode, again.stdout.strip()) == (0, "0 letters replayed, 12 left out")
    assert again.stderr.count("was replayed before, by ann") == BAD
    assert_exact(stack, ledger)
    assert {letter["state"] for letter in operator.letters("--state", "replayed")} == {"replayed"}
    empty = operator.directory / "empty.ndjson"
    assert operator.does("mend", "--to", str(empty)) == ""
    assert empty.read_bytes() == b""


def test_a_replayed_flow_is_the_writers_record_on_the_writers_partition(
    broken: tuple[Stack, list[Flow], Path], operator: Operator
) -> None:
    _, meant, path = broken
    operator.does("replay", str(path))
    found = {}
    for number in range(6):
        for message in read(operator.place, operator.place.topic, number):
            headers = dict(message.headers() or [])
            if "flowagg-replayed-offset" in headers:
                place = (
                    f"{headers['flowagg-replayed-partition'].decode()}:{headers['flowagg-replayed-offset'].decode()}"  # type: ignore[union-attr]
                )
                found[place] = (number, message.key(), message.value())
    wanted = set()
    for flow in meant:
        key = encode_key(flow.src_app, flow.dest_app, flow.vpc_id, flow.hour)
        wanted.add((partition_of(key, 6), key, encode_value(flow.bytes_tx, flow.bytes_rx)))
    assert set(found.values()) == wanted
    assert set(found) == {letter["place"].partition(":")[2] for letter in operator.letters()}


@pytest.mark.parametrize("moment", ["before", "behind"])
def test_a_replayer_that_is_killed_at_its_commit_leaves_nothing_double_or_missing(
    broken: tuple[Stack, list[Flow], Path], operator: Operator, ledger: Ledger, moment: str
) -> None:
    stack, _, path = broken
    operator.environment["FLOWAGG_REPLAY_BATCH"] = "5"
    killed = operator.run("replay", str(path), stopping=(moment, "kill"))
    assert killed.returncode == -signal.SIGKILL
    done = {"before": 0, "behind": 5}[moment]
    # The next one aborts what was left open, at once, and reads what was done.
    assert operator.does("replay", str(path)).strip() == f"{BAD - done} letters replayed, {done} left out"
    assert_exact(stack, ledger)


def test_a_replay_that_dies_holds_readers_up_for_its_bound_alone(
    broken: tuple[Stack, list[Flow], Path], operator: Operator, ledger: Ledger, source: Iterator[Flow]
) -> None:
    stack, meant, path = broken
    operator.environment["FLOWAGG_REPLAY_TRANSACTION_SECONDS"] = "1"
    assert operator.run("replay", str(path), stopping=("before", "kill")).returncode == -signal.SIGKILL
    # The journal is read past what was left open, once that is aborted.
    assert {letter["state"] for letter in operator.letters()} == {"open"}
    post(stack, islice(source, 300), ledger)
    assert_exact(stack, without(ledger, meant))
    operator.does("replay", str(path))
    assert_exact(stack, ledger)


def test_of_two_replayers_at_once_the_second_fences_the_first(
    broken: tuple[Stack, list[Flow], Path], operator: Operator, ledger: Ledger
) -> None:
    stack, _, path = broken
    operator.environment["FLOWAGG_REPLAY_BATCH"] = "5"
    operator.environment["FLOWAGG_REPLAY_TRANSACTION_SECONDS"] = "120"  # so that no time-out does the fencing
    first = operator.start("replay", str(path), stopping=("before", "wait"))
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "stopped\n"
        assert operator.does("replay", str(path)).strip() == "12 letters replayed, 0 left out"
        _, errors = first.communicate("go on\n", timeout=90)
    finally:
        first.kill()
    assert first.returncode == 1
    assert "another replay of this topic has begun" in errors
    assert "run the same command again" in errors
    assert operator.does("replay", str(path)).strip() == "0 letters replayed, 12 left out"
    assert_exact(stack, ledger)


def test_replayers_that_race_for_the_same_file_leave_exact_totals(
    broken: tuple[Stack, list[Flow], Path], operator: Operator, ledger: Ledger
) -> None:
    stack, _, path = broken
    operator.environment["FLOWAGG_REPLAY_BATCH"] = "1"
    for _ in range(2):
        racing = [operator.start("replay", str(path)) for _ in range(3)]
        for child in racing:
            _, errors = child.communicate(timeout=90)
            assert child.returncode == 0 or "run the same command again" in errors, errors
    operator.does("replay", str(path))
    assert_exact(stack, ledger)


def test_nothing_is_sent_where_one_line_breaks_a_rule(
    broken: tuple[Stack, list[Flow], Path], operator: Operator
) -> None:
    _, _, path = broken
    lines = path.read_text(encoding="utf-8").splitlines()
    bad = json.loads(lines[4])
    bad["flow"]["bytes_tx"] = -1
    path.write_text("\n".join([*lines[:4], json.dumps(bad), *lines[5:]]), encoding="utf-8")
    ends = _ends(operator.place)
    refused = operator.run("replay", str(path))
    assert refused.returncode == 3
    assert "nothing was sent" in refused.stderr
    assert "line 5: bytes_tx: expected int >= 0" in refused.stderr
    edited = json.loads(lines[0])
    edited["place"] = edited["place"].rpartition(":")[0] + ":999999"
    path.write_text(json.dumps(edited), encoding="utf-8")
    assert "holds no letter" in operator.run("replay", str(path)).stderr
    assert _ends(operator.place) == ends


def _ends(place: Place) -> dict[int, int]:
    request = {TopicPartition(place.topic, number): OffsetSpec.latest() for number in range(6)}
    return {part.partition: future.result(10).offset for part, future in place.admin.list_offsets(request).items()}


def test_letters_are_shown_filtered_dismissed_and_taken_up_again(
    broken: tuple[Stack, list[Flow], Path], operator: Operator, ledger: Ledger
) -> None:
    stack, meant, path = broken
    produce(operator.place, [(2, b"\xff\x1b[31m", None)])
    letters = wait_letters(operator, BAD + 1)
    garbage = next(letter for letter in letters if letter["detail"].startswith("the record has no value"))
    assert garbage["reasons"] == ["InvalidValue"]
    place = garbage["place"]
    shown = operator.does("show", place)
    assert "\x1b" not in shown + operator.does("list")
    assert "key_base64" in shown
    assert len(operator.letters("--reason", "InvalidValue")) == 1
    assert operator.letters("--since", "1h", "--reason", "InvalidKey", "--limit", "2")[0] == letters[0]
    assert operator.letters("--until", "1h") == []
    assert operator.does("dismiss", place, "--note", "a scanner's", "--by", "ann").strip() == (
        "1 letters dismissed, 0 left out"
    )
    assert json.loads(operator.does("show", place, "--json"))["note"] == "a scanner's"
    dismissed = operator.directory / "dismissed.ndjson"
    dismissed.write_text(json.dumps({"place": place, "flow": msgspec.to_builtins(meant[0])}), encoding="utf-8")
    left = operator.run("replay", str(dismissed))
    assert "was dismissed by ann: a scanner's" in left.stderr
    assert left.stdout.strip() == "0 letters replayed, 1 left out"
    operator.does("dismiss", place, "--undo", "--note", "it was a flow")
    assert operator.does("replay", str(dismissed)).strip() == "1 letters replayed, 0 left out"
    ledger.add(meant[0])
    late = operator.run("dismiss", place, "--note", "too late")
    assert late.stdout.strip() == "0 letters dismissed, 1 left out"
    operator.does("replay", str(path))
    assert_exact(stack, ledger)
    unknown = operator.run("show", "0:123456")
    assert (unknown.returncode, "holds no letter" in unknown.stderr) == (3, True)


def test_copies_of_two_views_are_one_letter_and_both_views_count_its_flow_once(
    broken: tuple[Stack, list[Flow], Path],
    operator: Operator,
    processes: Processes,
    place: Place,
    ledger: Ledger,
) -> None:
    stack, _, path = broken
    other = place.environment | {"FLOWAGG_VIEW": f"{place.view}-other"}
    reader = start_service(processes, "reader", other, "other-reader")
    start_service(processes, "consumer", other, "other-consumer")
    wait_for(lambda: {letter["copies"] for letter in operator.letters()} == {2}, "the other view's copies")
    assert len(operator.letters()) == BAD
    assert operator.does("replay", str(path)).strip() == "12 letters replayed, 0 left out"
    assert_exact(stack, ledger)
    stack.reader = reader
    assert_exact(stack, ledger)


def test_views_with_dead_letter_topics_of_their_own_share_one_journal(
    broken: tuple[Stack, list[Flow], Path], operator: Operator, processes: Processes, place: Place, ledger: Ledger
) -> None:
    stack, _, path = broken
    own = f"{place.topic}.of-other"
    ensure_topic(place.admin, own, 1)
    other = place.environment | {"FLOWAGG_VIEW": f"{place.view}-other", "FLOWAGG_DEAD_LETTER_TOPIC": own}
    start_service(processes, "consumer", other, "other-consumer")
    theirs = Operator(place, operator.directory, FLOWAGG_DEAD_LETTER_TOPIC=own)
    wait_letters(theirs, BAD)
    operator.does("replay", str(path))
    assert theirs.does("replay", str(path)).strip() == "0 letters replayed, 12 left out"
    assert_exact(stack, ledger)


def test_reused_keys_are_refused_unless_accepted_and_their_repeats_count_once(
    start_stack: StartStack, operator: Operator, ledger: Ledger, place: Place
) -> None:
    stack = start_stack(consumers=1)
    flow = Flow("foo", "bar", "vpc-0", 1, 100, 300)
    key = encode_key("foo", "bar", "vpc-0", 1)
    first, second = Mark("key", "0" * 32, 0), Mark("key", "1" * 32, 0)
    produce(place, [(3, key, encode_value(1, 1, first))])
    produce(place, [(3, key, encode_value(100, 300, second))] * 2)  # and the client's retry of it
    ledger.add(Flow("foo", "bar", "vpc-0", 1, 1, 1))
    assert [letter["reasons"] for letter in wait_letters(operator, 2)] == [["IdempotencyKeyReused"]] * 2
    path = operator.directory / "reused.ndjson"
    assert "2 letters left out: IdempotencyKeyReused" in operator.run("mend", "--to", str(path)).stderr
    path.unlink()
    operator.does("mend", "--reason", "IdempotencyKeyReused", "--to", str(path))
    assert "--accept IdempotencyKeyReused" in operator.run("replay", str(path)).stderr
    accepted = operator.run("replay", str(path), "--accept", "IdempotencyKeyReused")
    assert accepted.stdout.strip() == "1 letters replayed, 1 left out"
    ledger.add(flow)
    assert_exact(stack, ledger)
    assert {letter["state"] for letter in operator.letters()} == {"replayed"}


def test_a_journal_that_could_forget_is_refused(operator: Operator, place: Place, tmp_path: Path) -> None:
    ensure_topic(place.admin, f"{place.topic}.replayed", 1)
    path = tmp_path / "empty.ndjson"
    path.write_bytes(b"")
    refused = operator.run("replay", str(path))
    assert refused.returncode == 3
    assert "cleanup.policy=delete" in refused.stderr


def test_replay_says_what_is_missing(operator: Operator, place: Place) -> None:
    assert operator.run("replay", "-", given="\n").stdout.strip() == "0 letters replayed, 0 left out"
    assert "line 1: not a line of this file" in operator.run("replay", "-", given="{}").stderr
    assert "cannot be read" in operator.run("replay", "nowhere.ndjson").stderr
    operator.environment["FLOWAGG_KAFKA_TOPIC"] = f"{place.topic}-missing"
    assert "does not exist" in operator.run("list").stderr


def test_a_reader_is_fresh_while_and_after_letters_are_replayed(
    broken: tuple[Stack, list[Flow], Path], operator: Operator, ledger: Ledger
) -> None:
    """A GET behind the end of a replay holds its flows: a fresh answer never lacks an acknowledged write."""
    stack, _, path = broken
    operator.environment["FLOWAGG_REPLAY_BATCH"] = "1"
    operator.does("replay", str(path))
    for hour in ledger.hours():
        reply = httpx.get(f"{stack.reader.url}/flows", params={"hour": hour, "consistency": "strict"}, timeout=30)
        while reply.status_code == 503:
            reply = httpx.get(f"{stack.reader.url}/flows", params={"hour": hour, "consistency": "strict"}, timeout=30)
        assert reply.json() == ledger.rows(hour)
