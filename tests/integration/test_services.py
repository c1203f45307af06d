"""Each service as a process: command line, probes, logs, end; and the writer's records."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition
from flowagg_stack.processes import Processes
from flowagg_stack.services import Stack, start_service
from flowagg_writer.murmur2 import partition_of

from tests.conftest import Place
from tests.integration.tools import wait_for

SERVICES = ("writer", "consumer", "reader")


def command(service: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"flowagg_{service}", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("service", SERVICES)
def test_help_lists_every_setting(service: str) -> None:
    done = command(service, "--help")
    assert done.returncode == 0
    assert f"usage: flowagg-{service}" in done.stdout
    assert "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092" in done.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_version(service: str) -> None:
    assert command(service, "--version").stdout == f"flowagg-{service} {version('flowagg')}\n"


@pytest.mark.parametrize("service", SERVICES)
def test_wrong_settings_end_it_with_all_of_them_named(service: str) -> None:
    done = command(service, FLOWAGG_PORTS="1", FLOWAGG_PORT="x")
    assert done.returncode == 1
    assert "FLOWAGG_PORTS: unknown setting; did you mean FLOWAGG_PORT?" in done.stderr
    assert "FLOWAGG_PORT: Input should be a valid integer" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_an_unknown_librdkafka_property_ends_it_with_its_name(service: str, place: Place, tmp_path: object) -> None:
    path = f"{tmp_path}/kafka.properties"
    with open(path, "w") as file:  # noqa: PTH123
        file.write("no.such.property=1\n")
    done = command(service, **place.environment_of(service), FLOWAGG_KAFKA_PROPERTIES_FILE=path, FLOWAGG_PORT="0")
    assert done.returncode != 0
    assert "no.such.property" in done.stderr


def test_probes_metrics_logs_and_an_orderly_end(start_stack: Callable[..., Stack], processes: Processes) -> None:
    stack = start_stack()
    for service in stack.services:
        for path in ("/livez", "/readyz"):
            reply = httpx.get(service.url + path)
            assert (reply.status_code, reply.json()["status"]) == (200, "ok")
        kind = service.name.partition("-")[0]
        metrics = httpx.get(f"{service.url}/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        assert f"# TYPE flowagg_{kind}_" in metrics.text
        assert "process_resident_memory_bytes" in metrics.text
    for service in stack.services:
        assert processes.stop(service.child) == 0
        events = [json.loads(line) for line in service.child.log.read_text().splitlines()]
        assert {"time", "level", "logger", "message", "service"} <= events[0].keys()
        assert events[0]["message"] == "starting"
        assert not [event for event in events if event["level"] in ("ERROR", "CRITICAL")]


def test_a_service_without_its_topic_says_what_to_do(processes: Processes, place: Place) -> None:
    place.admin.delete_topics([place.topic], operation_timeout=10)[place.topic].result(20)
    wait_for(lambda: place.topic not in place.admin.list_topics(timeout=5).topics, "the topic is gone")
    writer = start_service(processes, "writer", place.environment)
    wait_for(lambda: "create it" in writer.checks().get("kafka", ""), "the writer explains")
    reply = httpx.post(f"{writer.url}/flows", json=[])
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert "Kafka, which keeps the log" in reply.json()["detail"]


def test_a_flow_is_one_record_on_the_partition_that_java_clients_take(
    start_stack: Callable[..., Stack], place: Place
) -> None:
    stack = start_stack(consumers=1)
    hosts = [f"app-{number}" for number in range(60)]
    flows = [
        {"src_app": name, "dest_app": "é", "vpc_id": "v", "hour": 7, "bytes_tx": 1, "bytes_rx": 2} for name in hosts
    ]
    assert httpx.post(f"{stack.writer.url}/flows", json=flows).status_code == 200
    consumer = Consumer(
        {
            "bootstrap.servers": place.environment["FLOWAGG_KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": "test",
            "auto.offset.reset": "error",
        }
    )
    consumer.assign([TopicPartition(place.topic, number, 0) for number in range(6)])
    found: dict[bytes | None, int | None] = {}
    while len(found) < len(hosts):
        (message,) = consumer.consume(1, 30)
        assert message.error() is None
        assert message.value() == b'{"bytes_tx":1,"bytes_rx":2}'
        found[message.key()] = message.partition()
    consumer.close()
    keys = [f'["{name}","é","v",7]'.encode() for name in hosts]
    assert found == {key: partition_of(key, 6) for key in keys}
    assert len(set(found.values())) == 6
