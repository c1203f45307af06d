"""Several views on one log, with real Kafka and Redis: reads by name, retention of each, and the operator's look."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

import httpx
import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource
from flowagg.flow import Flow, encode_key, encode_value
from flowagg.settings import RedisSettings
from flowagg.view import meta_key, partitions_key
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_operator import redis_look
from flowagg_operator.pods import Platform
from flowagg_operator.spec import Owner, read_spec
from flowagg_operator.view_objects import view_job
from flowagg_operator.views import Gate, JobKind, gate
from flowagg_stack.processes import Processes
from flowagg_stack.services import Service, Stack, start_service
from flowagg_stack.topics import ensure_topic

from tests.conftest import PARTITIONS, Place
from tests.integration.tools import assert_exact, get, post, wait_for, wait_fresh

pytestmark = pytest.mark.operations

StartStack = Callable[..., Stack]
HOUR_MS = 3_600_000
DAY_ONE = 1_790_000_000_000


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def source() -> Iterator[Flow]:
    return flows(Shape(keys=100, hours=3, zipf=1.1), seed=20261127)


@pytest.fixture
def keep_view(processes: Processes, place: Place) -> Callable[..., Service]:
    """Starts a consumer of a further view."""

    def start(view: str, **settings: str) -> Service:
        given = place.environment | {"FLOWAGG_VIEW": view} | settings
        service = start_service(processes, "consumer", given, f"consumer-{view}")
        service.wait_ready()
        return service

    return start


def fresh(stack: Stack, hour: int, view: str) -> httpx.Response | None:
    reply = get(stack, hour, view=view)
    return reply if reply.headers.get("flowagg-fresh") == "true" else None


def wait_fresh_of(stack: Stack, hour: int, view: str) -> httpx.Response:
    found: httpx.Response = wait_for(partial(fresh, stack, hour, view), f"a fresh answer of {view} for hour {hour}")
    return found


def end(service: Service) -> None:
    service.child.process.terminate()
    service.child.process.wait(30)


def test_a_view_that_begins_later_reaches_the_same_totals_and_is_read_by_its_name(
    start_stack: StartStack,
    keep_view: Callable[..., Service],
    place: Place,
    ledger: Ledger,
    source: Iterator[Flow],
) -> None:
    stack, other = start_stack(), f"{place.view}-b"
    post(stack, islice(source, 2_000), ledger)
    assert_exact(stack, ledger)
    unknown = get(stack, 1, view=other)
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
    consumer = keep_view(other)
    for hour in ledger.hours():
        one, two = wait_fresh(stack, hour), wait_fresh_of(stack, hour, other)
        assert one.json() == two.json() == ledger.rows(hour)
        assert one.headers["etag"] != two.headers["etag"]
        tag = {"If-None-Match": two.headers["etag"]}
        for view, status in ((other, 304), (place.view, 200)):
            query: dict[str, str | int] = {"hour": hour, "view": view}
            assert httpx.get(f"{stack.reader.url}/flows", params=query, headers=tag).status_code == status
    # Both go on, each POST fresh in both.
    for _ in range(5):
        post(stack, islice(source, 50), ledger)
        for hour in ledger.hours():
            assert wait_fresh_of(stack, hour, other).json() == wait_fresh(stack, hour).json() == ledger.rows(hour)
    # Removed, as a Job does it: its consumer has ended, else it would begin the view anew.
    end(consumer)
    with redis.Redis.from_url(place.environment["FLOWAGG_REDIS_URL"]) as raw:
        raw.delete(*raw.keys(f"flowagg:{{{other}:*"), partitions_key(other))
    assert get(stack, 1, view=other).status_code == 404
    assert get(stack, 1).status_code == 200


def test_a_view_whose_consumer_is_away_is_stale_alone(
    start_stack: StartStack,
    keep_view: Callable[..., Service],
    place: Place,
    ledger: Ledger,
    source: Iterator[Flow],
) -> None:
    stack, other = start_stack(), f"{place.view}-b"
    consumer = keep_view(other)
    post(stack, islice(source, 200), ledger)
    before = wait_fresh_of(stack, 1, other).json()
    end(consumer)
    post(stack, (Flow("late", "bar", "vpc-0", 1, 1, 1) for _ in range(3)), ledger)
    assert wait_fresh(stack, 1).json() == ledger.rows(1)
    stale = get(stack, 1, view=other)
    assert (stale.json(), stale.headers["flowagg-fresh"], stale.headers["flowagg-lag-records"]) == (
        before,
        "false",
        "3",
    )
    assert get(stack, 1, view=other, consistency="strict").status_code == 503
    assert get(stack, 1, view=place.view, consistency="strict").status_code == 200


def look(place: Place, *views: str) -> redis_look.RedisLook:
    return redis_look.look(RedisSettings(redis_url=place.environment["FLOWAGG_REDIS_URL"]), views)


def way(place: Place, old: str, new: str) -> Gate:
    """As the operator judges it."""
    found = look(place, old, new).views
    assert found is not None
    return gate(old, new, found[old].metas, found[new].metas)


def test_the_operators_look_tells_when_readers_may_change_over(
    start_stack: StartStack,
    keep_view: Callable[..., Service],
    place: Place,
    ledger: Ledger,
    source: Iterator[Flow],
) -> None:
    stack, old, new = start_stack(), place.view, f"{place.view}-b"
    post(stack, islice(source, 500), ledger)
    assert_exact(stack, ledger)
    seen = look(place, old, new)
    assert seen.verdict.good
    assert seen.health is not None
    assert seen.health.used > 0
    assert (seen.health.replicas, seen.health.behind) == (0, None)
    assert seen.views is not None
    assert (seen.views[old].begun, seen.views[new].begun, seen.views[new].metas) == (PARTITIONS, 0, {})
    assert sum(meta.position for meta in seen.views[old].metas.values()) == 500
    assert way(place, old, new).verdict.reason == "CatchingUp"
    consumer = keep_view(new)
    wait_for(lambda: way(place, old, new).is_open, "the new view is as far")
    end(consumer)
    post(stack, islice(source, 500), ledger)
    assert_exact(stack, ledger)
    assert "behind by 500 records" in way(place, old, new).verdict.message
    assert way(place, new, old).is_open
    keep_view(new)
    wait_for(lambda: way(place, old, new).is_open, "the new view is as far again")


def test_a_look_without_redis_says_that_nothing_is_known_of_views() -> None:
    found = redis_look.look(RedisSettings(redis_url="redis://127.0.0.1:1"), ["a"])
    assert (found.views, found.health, found.verdict.reason) == (None, None, "Unreachable")


def run_job(place: Place, kind: JobKind, view: str, source: str = "") -> str:
    """Run what the operator's Job would: its arguments, with its variables. What it printed."""
    spec = read_spec(
        {
            "kafka": {
                "bootstrapServers": place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"],
                "topic": {"name": place.topic},
            },
            "redis": {"url": place.environment["FLOWAGG_REDIS_URL"]},
            "consumer": {"env": [{"name": "FLOWAGG_BATCH_RECORDS", "value": "100"}]},
        }
    )
    images = {"consumer": "c", "cli": "f"}
    job = view_job(Owner(name="main", namespace="n", uid="u"), spec, kind, view, source, Platform(images=images))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("FLOWAGG_")}
    own |= {one["name"]: one["value"] for one in container["env"]}
    command = [sys.executable, "-m", "flowagg_cli", *container["args"]]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_operators_jobs_clone_a_view_and_remove_it(
    start_stack: StartStack,
    keep_view: Callable[..., Service],
    place: Place,
    ledger: Ledger,
    source: Iterator[Flow],
) -> None:
    stack, copy = start_stack(), f"{place.view}-copy"
    post(stack, islice(source, 500), ledger)
    assert_exact(stack, ledger)
    run_job(place, "clone", copy, place.view)
    assert way(place, place.view, copy).is_open
    for hour in ledger.hours():
        assert wait_fresh_of(stack, hour, copy).json() == ledger.rows(hour)
    consumer = keep_view(copy)
    post(stack, islice(source, 500), ledger)
    for hour in ledger.hours():
        assert wait_fresh_of(stack, hour, copy).json() == ledger.rows(hour)
    end(consumer)
    run_job(place, "remove", copy)
    assert get(stack, 1, view=copy).status_code == 404
    seen = look(place, copy).views
    assert seen is not None
    assert (seen[copy].begun, seen[copy].metas) == (0, {})
    assert_exact(stack, ledger)


def configure(place: Place, setting: str, value: str) -> None:
    """Set a topic's setting in Kafka."""
    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, place.topic, incremental_configs=[entry])
    place.admin.incremental_alter_configs([resource])[resource].result(20)


def produce(place: Place, flows_: Sequence[tuple[int, int]]) -> None:
    """Append a flow of (hour, hours of log time after the first day) to each partition."""
    producer = Producer({"bootstrap.servers": place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"]})
    for hour, after in flows_:
        for number in range(PARTITIONS):
            key, value = encode_key("foo", "bar", "vpc-0", hour), encode_value(1, 2)
            producer.produce(place.topic, value, key, number, timestamp=DAY_ONE + after * HOUR_MS)
    assert producer.flush(30) == 0


def kept(stack: Stack, view: str, hours: Sequence[int]) -> list[int]:
    """The hours that a view still has, by its fresh answers."""
    return [hour for hour in hours if wait_fresh_of(stack, hour, view).json()]


def test_each_view_keeps_hours_as_it_is_told_and_an_expired_one_never_comes_back(
    start_stack: StartStack, keep_view: Callable[..., Service], place: Place
) -> None:
    configure(place, "message.timestamp.type", "CreateTime")  # so that the test can say what time it is
    ensure_topic(place.admin, f"{place.topic}.dead-letters", 1)
    names = {hours: f"{place.view}-{hours}" for hours in ("10", "30")}
    stack = start_stack()
    short, long = (keep_view(view, FLOWAGG_RETENTION_HOURS=hours) for hours, view in names.items())
    produce(place, [(1, 0), (2, 0), (3, 12), (4, 24)])
    every = [1, 2, 3, 4]
    assert kept(stack, place.view, every) == every
    assert kept(stack, names["30"], every) == every
    assert kept(stack, names["10"], every) == [4]
    assert get(stack, 1, view=names["10"]).headers["flowagg-expired"] == "true"
    # Longer: holds from the next record on; what has expired stays so, though the log still has it.
    end(short)
    keep_view(names["10"], FLOWAGG_RETENTION_HOURS="1000")
    produce(place, [(2, 25), (5, 40)])
    assert kept(stack, names["10"], [*every, 5]) == [4, 5]
    # Shorter: likewise.
    end(long)
    keep_view(names["30"], FLOWAGG_RETENTION_HOURS="10")
    produce(place, [(6, 60)])
    assert kept(stack, names["30"], [*every, 5, 6]) == [6]
    # A new view of the whole log is what the log and its one setting make of it: it has what another has let go.
    keep_view(f"{place.view}-new", FLOWAGG_RETENTION_HOURS="1000")
    assert kept(stack, f"{place.view}-new", [*every, 5, 6]) == [*every, 5, 6]
    with redis.Redis.from_url(place.environment["FLOWAGG_REDIS_URL"]) as raw:
        floors = {name: raw.hget(meta_key(view, 0), "floor") for name, view in names.items()}
    assert floors == {"10": b"4", "30": b"6"}
