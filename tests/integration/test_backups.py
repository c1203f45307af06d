"""Views are exported while they live, restored, cloned and removed, on a real Kafka and a real Redis."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import redis
from confluent_kafka import TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from flowagg.flow import Flow
from flowagg.settings import RedisSettings
from flowagg.view import Meta, decode_meta, hours_key, meta_key, partitions_key, totals_key
from flowagg_cli.archive import FORMAT, End, Header, Writer, meta_fields
from flowagg_cli.errors import CommandError
from flowagg_cli.keys import import_key
from flowagg_cli.places import spot
from flowagg_cli.redis_target import Target, remove
from flowagg_cluster.tools import program
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_stack.embedded import Server
from flowagg_stack.ports import answers, free_port
from flowagg_stack.processes import Processes, wait_until
from flowagg_stack.sentinel import SentinelSet, start_sentinel_set
from flowagg_stack.services import Stack, start_service
from flowagg_stack.topics import ensure_topic

from tests.conftest import PARTITIONS, Place
from tests.integration.tools import assert_exact, post, wait_for

pytestmark = [
    pytest.mark.operations,
    pytest.mark.timeout(240),
]  # whole stacks, and programs that are started for each command

StartStack = Callable[..., Stack]
COMMAND_SECONDS = 90
SHAPE = Shape(keys=2000, hours=15, zipf=0.8)
PAUSE_SECONDS = 0.03


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def source() -> Iterator[Flow]:
    return flows(SHAPE, seed=20261127)


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    error: str

    def document(self) -> Any:
        assert self.code == 0, self.error
        return json.loads(self.out)

    def refused(self, text: str, code: int = 3) -> None:
        assert self.code == code, (self.code, self.out, self.error)
        assert text in self.error, self.error


class Command:
    """The command in a consumer's environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOWAGG_")}
        self._environment = kept | {"FLOWAGG_RETENTION_HOURS": "9000", **environment}

    def __call__(self, *arguments: str, **more: str) -> Result:
        done = subprocess.run(
            [*self._line(arguments)], env=self._environment | more, capture_output=True, text=True,
            timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self._line(arguments)], env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def _line(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "flowagg_cli", "views", *arguments]


@pytest.fixture
def command(place: Place) -> Command:
    return Command(place.environment)


@pytest.fixture
def client(redis_server: Server) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(f"redis://{redis_server.address}/0") as opened:
        yield opened


class Load:
    """Posts flows in the background; some with an Idempotency-Key."""

    def __init__(self, stack: Stack, source: Iterator[Flow], ledger: Ledger) -> None:
        self._stack, self._source, self._ledger = stack, source, ledger
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.keyed: list[tuple[str, bytes]] = []

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def has_keyed(self, count: int) -> bool:
        """Whether so many keyed POSTs were answered."""
        return len(self.keyed) >= count

    def _run(self) -> None:
        rng = random.Random(1)
        with httpx.Client(base_url=self._stack.writer.url, timeout=30) as client:
            while not self._ends.wait(PAUSE_SECONDS):
                part = list(islice(self._source, 300))
                headers = {"Content-Type": "application/json"}
                body = msgspec.json.encode(part)
                if rng.random() < 0.3:
                    headers["Idempotency-Key"] = key = f"key-{len(self.keyed)}"
                    self.keyed.append((key, body))
                reply = client.post("/flows", content=body, headers=headers)
                assert reply.status_code == 200, reply.text
                for flow in part:
                    self._ledger.add(flow)


def repeat(stack: Stack, keyed: list[tuple[str, bytes]]) -> None:
    """Send keyed POSTs again: they count nothing more."""
    for key, body in keyed:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        assert httpx.post(f"{stack.writer.url}/flows", content=body, headers=headers, timeout=30).status_code == 200


def second_stack(processes: Processes, place: Place, view: str, environment: Mapping[str, str] | None = None) -> Stack:
    stack = Stack(processes, {**(environment or place.environment), "FLOWAGG_VIEW": view}, consumers=1)
    stack.wait_ready()
    return stack


def stop_consumers(processes: Processes, stack: Stack) -> None:
    for service in stack.consumers:
        processes.stop(service.child)


def topic_id(place: Place) -> str:
    found = place.admin.describe_topics(TopicCollection([place.topic]))[place.topic].result(20)
    return str(found.topic_id)


def test_an_export_under_load_restores_to_exact_totals_and_knows_the_repeats(
    start_stack: StartStack,
    processes: Processes,
    place: Place,
    command: Command,
    ledger: Ledger,
    source: Iterator[Flow],
    tmp_path: Path,
) -> None:
    stack = start_stack()
    post(stack, islice(source, 10_000), ledger)
    exports = []
    with Load(stack, source, ledger) as load:
        for number in range(2):
            wait_for(partial(load.has_keyed, 5 * (number + 1)), "keyed POSTs")
            done = command("export", place.view, "--to", f"{tmp_path}/", "--group", "200", "--json").document()
            exports.append(done)
    assert_exact(stack, ledger)
    # A file of each moment, with positions that the load has left behind since.
    assert len({export["to"] for export in exports}) == len(list(tmp_path.glob("*.flowagg.zst")))
    restored = f"{place.view}-again"
    told = command("import", "--from", exports[0]["to"], "--as", restored, "--json").document()
    assert told["positions"] == exports[0]["positions"]
    assert sum(told["tail"].values()) > 0
    again = second_stack(processes, place, restored)
    assert_exact(again, ledger)
    repeat(stack, load.keyed)
    assert_exact(again, ledger)
    assert_exact(stack, ledger)


def test_a_restored_view_holds_byte_for_byte_what_was_exported(
    start_stack: StartStack,
    processes: Processes,
    place: Place,
    command: Command,
    client: "redis.Redis",
    ledger: Ledger,
    source: Iterator[Flow],
    tmp_path: Path,
) -> None:
    stack = start_stack(FLOWAGG_RETENTION_HOURS="9000")
    with Load(stack, source, ledger) as load:
        wait_for(partial(load.has_keyed, 3), "keyed POSTs")
    assert_exact(stack, ledger)
    stop_consumers(processes, stack)
    file = tmp_path / "export"
    assert command("export", place.view, "--to", str(file)).code == 0
    assert command("import", "--from", str(file), "--as", "byte-for-byte").code == 0
    assert content(client, "byte-for-byte") == content(client, place.view)


def content(client: "redis.Redis", view: str) -> dict[str, Any]:
    """All of a view but for its incarnations' names and who wrote last."""
    found: dict[str, Any] = {"partitions": client.smembers(partitions_key(view))}
    for key in client.scan_iter(f"flowagg:{{{view}:*}}:*", count=1000):
        value: Any = client.hgetall(key)
        parts = key.decode().removeprefix(f"flowagg:{{{view}:").split(":")
        if parts[1] == "meta":
            value = {name: part for name, part in value.items() if name not in (b"incarnation", b"writer")}
        else:
            parts.pop(1)
        found[":".join(parts)] = value
    assert len(found) > PARTITIONS
    return found


def synthetic(path: Path, topic_id_: str, keys: int, hours: int = 5, position: int = 0) -> None:
    """A file of many flow keys in every partition, at a position of the log."""
    header = Header(FORMAT, "made", "flows", topic_id_, "2026-11-27T00:00:00Z", "test", list(range(PARTITIONS)))
    with path.open("wb") as file:
        writer = Writer(file, header)
        for number in range(PARTITIONS):
            meta = Meta(position, topic_id_, -1, 0, incomplete=False, incarnation="x")
            writer.begin(number)
            for hour in range(hours):
                pairs = []
                for key in range(keys // hours // PARTITIONS):
                    pairs += [b'["a%d","b%d","vpc"]' % (key, number), b"%d %d" % (key, hour)]
                writer.hour(hour, pairs)
            ends = [(hour, b"%d" % position, keys // hours // PARTITIONS) for hour in range(hours)]
            writer.end(End(number, meta_fields(meta), ends, []))
        writer.finish()


def keys_of(client: "redis.Redis", view: str) -> int:
    return sum(1 for _ in client.scan_iter(f"flowagg:{{{view}:*}}:*", count=1000))


def begun(client: "redis.Redis", view: str, partition: int) -> Callable[[], bool]:
    """Whether totals of a partition are there under its import's incarnation."""

    def there() -> bool:
        incarnation: Any = client.hget(import_key(view, partition), "incarnation")
        return incarnation is not None and bool(client.exists(totals_key(view, partition, incarnation.decode(), 0)))

    return there


def test_an_import_that_was_killed_leaves_nothing_that_counts_and_the_next_one_cleans_up(
    place: Place, command: Command, client: "redis.Redis", tmp_path: Path
) -> None:
    file, view = tmp_path / "made", f"{place.view}-killed"
    synthetic(file, topic_id(place), 300_000)
    killed = command.start("import", "--from", str(file), "--as", view)
    wait_for(begun(client, view, 2), "the import is in its middle")
    killed.kill()
    killed.communicate()
    assert not any(client.exists(meta_key(view, number)) for number in range(PARTITIONS))
    listed = command("list", "--json").document()["views"]
    assert [row["state"] for row in listed if row["view"] == view] == ["absent"]
    told = command("import", "--from", str(file), "--as", view, "--json").document()
    assert told["cleaned"]
    assert told["entries"] - 5 * PARTITIONS == 300_000
    assert keys_of(client, view) == PARTITIONS * (1 + 1 + 5)  # meta, hours, five of totals: no orphans
    command("import", "--from", str(file), "--as", view).refused("exists")
    assert command("remove", view, "--yes").code == 0
    assert keys_of(client, view) == 0


def test_an_import_that_was_paused_writes_nothing_once_another_has_taken_over(
    place: Place, command: Command, client: "redis.Redis", tmp_path: Path
) -> None:
    file, view = tmp_path / "made", f"{place.view}-paused"
    synthetic(file, topic_id(place), 300_000)
    paused = command.start("import", "--from", str(file), "--as", view)
    wait_for(begun(client, view, 1), "the import is in its middle")
    paused.send_signal(signal.SIGSTOP)
    try:
        assert command("import", "--from", str(file), "--as", view, "--json").document()["cleaned"]
        before = content(client, view)
    finally:
        paused.send_signal(signal.SIGCONT)
        _, error = paused.communicate(timeout=COMMAND_SECONDS)
    assert paused.returncode == 3, error
    assert "took this one over" in error
    assert content(client, view) == before


def test_a_consumer_that_begins_the_view_meanwhile_is_never_overwritten(
    place: Place, command: Command, client: "redis.Redis", processes: Processes, tmp_path: Path
) -> None:
    file, view = tmp_path / "made", f"{place.view}-begun"
    synthetic(file, topic_id(place), 300_000)
    paused = command.start("import", "--from", str(file), "--as", view)
    wait_for(begun(client, view, 1), "the import is in its middle")
    paused.send_signal(signal.SIGSTOP)
    start_service(processes, "consumer", place.environment | {"FLOWAGG_VIEW": view})
    wait_for(lambda: all(client.exists(meta_key(view, n)) for n in range(PARTITIONS)), "the consumer begins the view")
    paused.send_signal(signal.SIGCONT)
    _, error = paused.communicate(timeout=COMMAND_SECONDS)
    assert paused.returncode == 3, error
    raw: list[Any] = [client.hgetall(meta_key(view, number)) for number in range(PARTITIONS)]
    metas = [decode_meta(fields) for fields in raw]
    assert all(
        meta is not None and not client.exists(hours_key(view, number, meta.incarnation))
        for number, meta in enumerate(metas)
    )


def test_what_would_not_be_exact_is_refused(
    start_stack: StartStack,
    processes: Processes,
    place: Place,
    command: Command,
    client: "redis.Redis",
    ledger: Ledger,
    source: Iterator[Flow],
    tmp_path: Path,
) -> None:
    stack = start_stack(consumers=1)
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)
    file = tmp_path / "export"
    assert command("export", place.view, "--to", str(file)).code == 0

    command("export", "nothing", "--to", str(tmp_path / "nothing")).refused("there is no view")
    assert sorted(path.name for path in tmp_path.glob("[!.]*[!g]") if path.is_file()) == ["export"]
    command("import", "--from", str(tmp_path / "missing")).refused("no such file")
    command("import", "--from", str(file)).refused(f"group flowagg-{place.view}", 5)
    command("remove", place.view, "--yes").refused(f"group flowagg-{place.view}", 5)
    stop_consumers(processes, stack)
    command("import", "--from", str(file)).refused("exists")
    command("clone", place.view, place.view).refused("itself", 2)

    cut = tmp_path / "cut"
    cut.write_bytes(file.read_bytes()[:-20])
    command("import", "--from", str(cut), "--as", "cut").refused("", 4)
    assert keys_of(client, "cut") == 0
    assert not client.exists(partitions_key("cut"))

    other = f"{place.topic}-other"
    ensure_topic(place.admin, other, PARTITIONS)
    command("import", "--from", str(file), "--as", "other", FLOWAGG_KAFKA_TOPIC=other).refused("TopicChanged")
    beyond = tmp_path / "beyond"
    synthetic(beyond, topic_id(place), 60, position=10**9)
    command("import", "--from", str(beyond), "--as", "beyond").refused("PositionBeyondLog")
    command("import", "--from", str(beyond), "--as", "beyond", "--accept-incomplete").refused("PositionBeyondLog")
    away = {"FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "FLOWAGG_KAFKA_TIMEOUT_SECONDS": "1"}
    command("import", "--from", str(file), "--as", "away", **away).refused("Kafka", 1)
    assert not any(client.exists(partitions_key(view)) for view in ("other", "beyond", "away"))


def test_a_log_whose_start_has_passed_the_positions_is_restored_only_as_incomplete(
    start_stack: StartStack,
    processes: Processes,
    place: Place,
    command: Command,
    client: "redis.Redis",
    ledger: Ledger,
    source: Iterator[Flow],
    tmp_path: Path,
) -> None:
    stack = start_stack(consumers=1)
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)
    file = tmp_path / "export"
    assert command("export", place.view, "--to", str(file)).code == 0
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)
    delete_records(place.admin, place.topic, client, place.view)
    late = f"{place.view}-late"
    command("import", "--from", str(file), "--as", late).refused("are gone")
    told = command("import", "--from", str(file), "--as", late, "--accept-incomplete", "--json").document()
    assert told["incomplete"]
    service = start_service(processes, "consumer", place.environment | {"FLOWAGG_VIEW": late})
    service.wait_ready()

    def lost() -> bool:
        return any(client.hget(meta_key(late, number), "lost") for number in range(PARTITIONS))

    wait_for(lost, "the consumer records what is lost")
    row = next(row for row in command("list", "--json").document()["views"] if row["view"] == late)
    assert row["incomplete"]


def delete_records(admin: AdminClient, topic: str, client: "redis.Redis", view: str) -> None:
    """Move the log's start to the view's positions."""
    ends = [TopicPartition(topic, n, int(client.hget(meta_key(view, n), "position") or 0)) for n in range(PARTITIONS)]
    for future in admin.delete_records(ends).values():
        future.result(20)


def test_a_clone_of_a_live_view_becomes_exact_and_its_removal_leaves_nothing(
    start_stack: StartStack,
    processes: Processes,
    place: Place,
    command: Command,
    client: "redis.Redis",
    ledger: Ledger,
    source: Iterator[Flow],
) -> None:
    stack = start_stack(consumers=1)
    post(stack, islice(source, 10_000), ledger)
    clone = f"{place.view}-clone"
    with Load(stack, source, ledger):
        assert command("clone", place.view, clone, "--group", "100").code == 0
    copy = second_stack(processes, place, clone)
    assert_exact(copy, ledger)
    assert_exact(stack, ledger)
    rows = {row["view"]: row for row in command("list", "--json").document()["views"]}
    assert rows[clone]["position"] == rows[place.view]["position"] == ledger.flows
    assert rows[clone]["lag"] == 0
    command("clone", place.view, clone).refused(f"group flowagg-{clone}", 5)
    stop_consumers(processes, copy)
    command("clone", place.view, clone).refused("exists")

    client.hset(totals_key(clone, 0, "0" * 16, 7), "orphan", "1 1")
    command("remove", clone).refused("--yes")
    removed = command("remove", clone, "--yes", "--json").document()
    assert removed["group"]
    assert removed["keys"] > PARTITIONS
    assert keys_of(client, clone) == 0
    assert not client.exists(partitions_key(clone))
    groups = place.admin.list_consumer_groups().result(20).valid
    assert f"flowagg-{clone}" not in {group.group_id for group in groups}
    assert command("remove", clone, "--yes", "--json").document() == {"view": clone, "keys": 0, "group": False}
    assert_exact(stack, ledger)


def test_older_exports_go_and_those_of_other_views_stay(
    start_stack: StartStack, place: Place, command: Command, ledger: Ledger, source: Iterator[Flow], tmp_path: Path
) -> None:
    stack = start_stack(consumers=1)
    post(stack, islice(source, 500), ledger)
    assert_exact(stack, ledger)
    whole = tmp_path / "whole"
    assert command("export", place.view, "--to", str(whole)).code == 0
    old = [tmp_path / f"{place.view}-2026010{day}T000000.000Z.flowagg.zst" for day in (1, 2, 3)]
    ahead = tmp_path / f"{place.view}-29990101T000000.000Z.flowagg.zst"  # by a clock that was wrong
    another = tmp_path / f"{place.view}-b-20260101T000000.000Z.flowagg.zst"
    damaged = tmp_path / f"{place.view}-20250101T000000.000Z.flowagg.zst"
    for path in (*old, another, ahead):
        path.write_bytes(whole.read_bytes())
    damaged.write_bytes(b"")
    whole.unlink()
    left = [tmp_path / f".{place.view}.{number}.partial" for number in range(2)]
    for path in left:
        path.write_bytes(b"of a killed export")
    os.utime(left[0], (0, 0))
    done = command("export", place.view, "--to", f"{tmp_path}/", "--keep", "3", "--json").document()
    assert done["removed"] == [path.name for path in old[:2]]
    kept = sorted(str(path) for path in tmp_path.glob("*.zst"))
    assert kept == sorted(map(str, (old[2], another, ahead, damaged, done["to"])))
    assert [path.exists() for path in left] == [False, True]


def test_a_full_redis_can_still_be_exported_and_refuses_an_import(
    start_stack: StartStack,
    place: Place,
    command: Command,
    client: "redis.Redis",
    ledger: Ledger,
    source: Iterator[Flow],
    tmp_path: Path,
) -> None:
    stack = start_stack(consumers=1)
    post(stack, islice(source, 500), ledger)
    assert_exact(stack, ledger)
    client.config_set("maxmemory", "1")
    try:
        assert command("export", place.view, "--to", str(tmp_path / "export")).code == 0
        command("import", "--from", str(tmp_path / "export"), "--as", "full").refused("RedisFull", 1)
    finally:
        client.config_set("maxmemory", "0")
    assert command("import", "--from", str(tmp_path / "export"), "--as", "full").code == 0


@pytest.fixture
def bucket(processes: Processes, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """An S3 API with one bucket: its endpoint, and the variables with credentials."""
    port = free_port()
    (tmp_path / "store" / "bucket").mkdir(parents=True)
    words = ["--access", "tester", "--secret", "not-a-secret", "--port", f"127.0.0.1:{port}"]
    (tmp_path / "beside").mkdir()  # where there are no extended attributes
    line = [str(program("versitygw")), *words, "posix", "--sidecar", str(tmp_path / "beside"), str(tmp_path / "store")]
    child = processes.start("versitygw", line)
    wait_until(lambda: answers(port), "the S3 API answers", 30, [child])
    given = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_REGION": "us-east-1"}
    return f"http://127.0.0.1:{port}", given


def test_exports_go_to_an_object_store_and_come_back(
    start_stack: StartStack,
    processes: Processes,
    place: Place,
    command: Command,
    client: "redis.Redis",
    ledger: Ledger,
    source: Iterator[Flow],
    bucket: tuple[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    endpoint, given = bucket
    stack = start_stack(consumers=1)
    post(stack, islice(source, 5000), ledger)
    assert_exact(stack, ledger)
    folder = ("s3://bucket/deep/folder/", "--endpoint", endpoint)
    names = []
    for number in range(2):
        done = command("export", place.view, "--to", *folder, "--keep", "1", "--json", **given).document()
        names.append(done["to"].rpartition("/")[2])
        assert done["removed"] == names[:number]
    assert [path.name for path in (tmp_path / "store").rglob("*.flowagg.zst")] == names[1:]
    restored = f"{place.view}-s3"
    told = command("import", "--from", *folder, "--of", place.view, "--as", restored, "--json", **given).document()
    assert told["from"] == f"s3://bucket/deep/folder/{names[1]}"
    assert_exact(second_stack(processes, place, restored), ledger)

    # More than one part, which the store puts together at the end; and what is not there.
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.write(os.urandom(30_000_000))
    with spot_of(endpoint, given) as store:
        with store.writing("large") as out:
            out.write(large.read_bytes())
        with store.reading("large") as read:
            back = b"".join(iter(lambda: read.read(2**20), b""))
    assert back == large.read_bytes()
    one = "s3://bucket/deep/folder/large"
    command("import", "--from", one, "--endpoint", endpoint, "--as", "large", **given).refused("no export", 4)
    missing = "s3://bucket/missing"
    command("import", "--from", missing, "--endpoint", endpoint, "--as", "none", **given).refused("no such file")
    wrong = "s3://other-bucket/"
    command("export", place.view, "--to", wrong, "--endpoint", endpoint, **given).refused("no such bucket")
    command("export", place.view, "--to", *folder, **{**given, "AWS_SECRET_ACCESS_KEY": "wrong"}).refused("", 1)


@contextmanager
def spot_of(endpoint: str, given: Mapping[str, str]) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        yield spot("s3://bucket/deep/folder/", endpoint).place


def test_an_export_that_is_ended_leaves_no_file(
    start_stack: StartStack, place: Place, command: Command, ledger: Ledger, source: Iterator[Flow], tmp_path: Path
) -> None:
    stack = start_stack(consumers=1)
    post(stack, islice(source, 2000), ledger)
    assert_exact(stack, ledger)
    folder = tmp_path / "exports"
    running = command.start("export", place.view, "--to", f"{folder}/", "--rate", "10", "--group", "1")
    wait_for(lambda: list(folder.glob(".*.partial")), "the export is under way")
    running.terminate()
    running.communicate(timeout=COMMAND_SECONDS)
    assert running.returncode == 128 + signal.SIGTERM
    assert list(folder.iterdir()) == []


@pytest.fixture
def redis_set(processes: Processes, tmp_path: Path) -> Iterator[SentinelSet]:
    started = start_sentinel_set(processes, tmp_path)
    yield started
    started.kill_all()


@pytest.mark.cluster
def test_an_export_reads_a_replica_and_begins_anew_when_redis_fails_over(
    redis_set: SentinelSet,
    processes: Processes,
    place: Place,
    ledger: Ledger,
    source: Iterator[Flow],
    tmp_path: Path,
) -> None:
    environment = {n: v for n, v in place.environment.items() if n != "FLOWAGG_REDIS_URL"} | redis_set.environment
    command = Command(environment)
    stack = Stack(processes, environment, consumers=1)
    stack.wait_ready()
    post(stack, islice(source, 5000), ledger)
    assert_exact(stack, ledger)
    redis_set.wait_ready()
    done = command("export", place.view, "--to", str(tmp_path / "a"), "--json").document()
    assert done["node"].removeprefix("replica ") in redis_set.replicas()
    master = command("export", place.view, "--to", str(tmp_path / "b"), "--source", "master", "--json").document()
    assert master["node"] == "master"
    assert master["positions"] == done["positions"]

    # The replica that is read dies in the middle: the export ends all the same, from another node.
    running = command.start(
        "export", place.view, "--to", str(tmp_path / "c"), "--group", "1", "--rate", "700", "--json"
    )
    victim = wait_for(lambda: _read_now(redis_set), "the export reads")
    redis_set.kill(victim)
    with Load(stack, source, ledger):
        out, error = running.communicate(timeout=COMMAND_SECONDS)
    assert running.returncode == 0, error
    assert json.loads(out)["restarts"] > 0
    assert json.loads(out)["node"].removeprefix("replica ") != victim
    restored = f"{place.view}-again"
    assert command("import", "--from", str(tmp_path / "c"), "--as", restored).code == 0
    assert_exact(second_stack(processes, place, restored, environment), ledger)


def _read_now(redis_set: SentinelSet) -> str | None:
    """The node that a command has a connection to."""
    for address in redis_set.replicas():
        with closing(redis_set.client(address)) as asked:
            if any(found["name"] == "flowagg-cli" for found in asked.client_list()):
                return address
    return None


@pytest.mark.parametrize("lost", ["totals", "hours"])
def test_an_import_whose_writes_redis_has_lost_restores_nothing(place: Place, client: "redis.Redis", lost: str) -> None:
    """As a failover does it: a tail of the writes is gone, with the count of them, and no connection says so."""
    settings = RedisSettings(redis_url=place.environment["FLOWAGG_REDIS_URL"])
    meta = Meta(10, "topic", 0, 0, False, "x")
    pairs = [b'["a","b","c"]', b"1 2"]
    with closing(Target(settings, place.view, "a test")) as target:
        target.prepare([0])
        target.begin(0)
        target.hour(1, pairs)
        target.end(End(0, meta_fields(meta), [(1, b"10", 1)], []))
        key = import_key(place.view, 0)
        incarnation = str(client.hget(key, "incarnation"), "ascii")  # type: ignore[arg-type]
        gone = hours_key(place.view, 0, incarnation) if lost == "hours" else totals_key(place.view, 0, incarnation, 1)
        client.delete(gone)
        client.hincrby(key, "calls", -1)
        with pytest.raises(CommandError, match="lost a part"):
            target.finish()
    assert not client.exists(meta_key(place.view, 0))


def test_a_view_that_is_begun_while_it_is_removed_is_not_read_with_what_is_left(
    place: Place, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    client.sadd(partitions_key(place.view), 0)
    client.hset(meta_key(place.view, 0), "position", "10")
    client.hset(totals_key(place.view, 0, "former", 1), "field", "1 2")
    calls = []

    def begun_meanwhile(key: str, **options: Any) -> Iterator[Any]:
        calls.append(key)
        client.hset(meta_key(place.view, 0), "position", "0")
        yield from redis.Redis.scan_iter(client, totals_key(place.view, 0, "*", 1), **options)

    removing = redis.Redis.from_url(place.environment["FLOWAGG_REDIS_URL"])
    monkeypatch.setattr(removing, "scan_iter", begun_meanwhile)
    remove(removing, place.view)
    removing.close()
    assert calls
    assert not client.exists(meta_key(place.view, 0), partitions_key(place.view))
