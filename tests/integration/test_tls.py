"""TLS and passwords to Kafka, Redis and Sentinel: totals stay exact, no secret is told, troubles are told in words."""

import asyncio
import os
import re
import selectors
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from confluent_kafka.admin import AdminClient
from flowagg.redis_client import connect, connect_async
from flowagg_load.generator import Ledger, Shape, flows
from flowagg_reader.settings import ReaderSettings
from flowagg_stack import provision
from flowagg_stack.apache_kafka import SecureKafka, start_secure_kafka
from flowagg_stack.certificates import Authority, Certificate
from flowagg_stack.embedded import Server, start_redis_binary
from flowagg_stack.processes import Processes
from flowagg_stack.sentinel import Security, start_sentinel_set
from flowagg_stack.services import Service, Stack, start_service
from flowagg_stack.topics import ensure_topic

from tests.integration.tools import assert_exact, get, post, wait_check, wait_for

pytestmark = pytest.mark.operations

MARK = "never-shown"
"""Begins every password here; nothing that a service shows may hold it."""
USER = "flowagg"
SHAPE = Shape(keys=200, hours=3, zipf=1.1)
SERVICES = ("writer", "consumer", "reader")


@dataclass(frozen=True)
class Secured:
    """A Kafka and a Redis that take nothing in the clear from services, and what a service needs for them."""

    directory: Path
    authority: Authority
    stranger: Authority
    client: Certificate
    kafka: SecureKafka
    redis: Server
    redis_password: str

    def file(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def user(self, name: str, password: str) -> None:
        self.kafka.set_password(name, password)

    def kafka_settings(self, name: str, password: str, **more: str) -> dict[str, str]:
        """A service's settings for the SASL_SSL listener. more: properties, with _ for a dot."""
        secret = self.file(f"{name}-kafka-password", password + "\n")
        properties = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": name,
            "sasl.password": f"${{file:{secret}}}",
            "ssl.ca.location": str(self.client.ca),
        } | {key.replace("_", "."): value for key, value in more.items()}
        return self._kafka(name, properties, self.kafka.sasl_ssl)

    def mutual_settings(self, name: str, **more: str) -> dict[str, str]:
        """A service's settings for the listener that asks for a client certificate."""
        properties = {"security.protocol": "SSL", "ssl.ca.location": str(self.client.ca)}
        return self._kafka(
            name, properties | {key.replace("_", "."): v for key, v in more.items()}, self.kafka.mutual_tls
        )

    def _kafka(self, name: str, properties: Mapping[str, str], address: str) -> dict[str, str]:
        text = "".join(f"{key}={value}\n" for key, value in properties.items())
        return {
            "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": address,
            "FLOWAGG_KAFKA_PROPERTIES_FILE": self.file(f"{name}.properties", text),
        }

    @property
    def redis_settings(self) -> dict[str, str]:
        return {
            "FLOWAGG_REDIS_URL": f"rediss://{self.redis.address}/0",
            "FLOWAGG_REDIS_PASSWORD_FILE": self.file("redis-password", self.redis_password + "\n"),
            "FLOWAGG_REDIS_CA_FILE": str(self.client.ca),
            "FLOWAGG_REDIS_CERTIFICATE_FILE": str(self.client.certificate),
            "FLOWAGG_REDIS_KEY_FILE": str(self.client.key),
        }

    def place(self, name: str) -> dict[str, str]:
        """A topic and a view of a test's own."""
        admin = AdminClient({"bootstrap.servers": self.kafka.server.address})
        ensure_topic(admin, name, 6)
        return {"FLOWAGG_KAFKA_TOPIC": name, "FLOWAGG_VIEW": name}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("tls")
    (directory / "stranger").mkdir()
    authority, stranger = Authority(directory), Authority(directory / "stranger")
    password = f"{MARK}-redis"
    with Processes(directory) as children:
        kafka = start_secure_kafka(children, directory, authority.issue("kafka"))
        server = start_redis_binary(
            children, provision.redis_server(), "--requirepass", password, tls=authority.issue("redis")
        )
        yield Secured(directory, authority, stranger, authority.issue("client"), kafka, server, password)


def shown(service: Service) -> str:
    """Everything that a service shows."""
    pages = "".join(httpx.get(service.url + page, timeout=5).text for page in ("/metrics", "/readyz", "/livez"))
    command = Path(f"/proc/{service.child.process.pid}/cmdline")
    arguments = command.read_text() if command.exists() else " ".join(service.child.command)
    return service.child.log.read_text() + pages + arguments


def assert_nothing_told(services: list[Service]) -> None:
    for service in services:
        found = [line for line in shown(service).splitlines() if MARK in line or "PRIVATE KEY" in line]
        assert not found, f"{service.name} shows a secret"


def test_totals_are_exact_and_no_secret_is_shown(secured: Secured, processes: Processes) -> None:
    secured.user(USER, f"{MARK}-kafka")
    given = secured.place("tls") | secured.kafka_settings(USER, f"{MARK}-kafka") | secured.redis_settings
    stack = Stack(processes, given | {"FLOWAGG_LOG_LEVEL": "debug"})
    stack.wait_ready()
    ledger = Ledger()
    post(stack, islice(flows(SHAPE, seed=1), 2000), ledger)
    assert_exact(stack, ledger)
    assert_nothing_told(stack.services)
    for service in stack.services:  # what is looked through holds the settings, the checks and the metrics
        assert all(
            text in shown(service)
            for text in ('"FLOWAGG_', '"status": "ok"', "# TYPE", f"flowagg_{service.name.partition('-')[0]}")
        )
    with pytest.raises(redis.ConnectionError):  # the port takes nothing in the clear
        redis.Redis.from_url(f"redis://{secured.redis.address}", socket_timeout=2).ping()


def test_a_wrong_kafka_password_is_told_and_mended_without_a_restart(secured: Secured, processes: Processes) -> None:
    name = "latecomer"
    secured.user(name, f"{MARK}-another")
    given = secured.place(name) | secured.kafka_settings(name, f"{MARK}-given") | secured.redis_settings
    stack = Stack(processes, given | {"FLOWAGG_KAFKA_TIMEOUT_SECONDS": "1"}, consumers=1)
    for service in (stack.writer, *stack.consumers):
        wait_check(service, "kafka", "AuthenticationFailed", 30)
    # The reader answers from Redis, so it is ready; its log and its answers tell.
    stack.reader.wait_ready()
    wait_for(lambda: "AuthenticationFailed" in stack.reader.child.log.read_text(), "the reader's log tells", 30)
    reply = get(stack, 1)
    assert (reply.status_code, reply.headers["flowagg-fresh"]) == (200, "false")
    refused = httpx.post(f"{stack.writer.url}/flows", json=[])
    assert (refused.status_code, MARK in refused.text) == (503, False)
    assert_nothing_told(stack.services)

    secured.user(name, f"{MARK}-given")
    stack.wait_ready()
    ledger = Ledger()
    post(stack, islice(flows(SHAPE, seed=2), 100), ledger)
    assert_exact(stack, ledger)
    assert_nothing_told(stack.services)


def test_a_kafka_that_cannot_be_verified_is_told(secured: Secured, processes: Processes) -> None:
    secured.user(USER, f"{MARK}-kafka")
    kafka = secured.kafka_settings(USER, f"{MARK}-kafka", ssl_ca_location=str(secured.stranger.certificate))
    given = secured.place("stranger") | kafka | secured.redis_settings | {"FLOWAGG_KAFKA_TIMEOUT_SECONDS": "1"}
    services = [start_service(processes, name, given) for name in SERVICES]
    for service in services[:2]:
        wait_check(service, "kafka", "certificate verify failed", 30)
    wait_for(lambda: "certificate verify failed" in services[2].child.log.read_text(), "the reader's log tells", 30)
    assert_nothing_told(services)
    # What is said ten times a second is logged once in a while.
    for service in services:
        assert len(service.child.log.read_text().splitlines()) < 40


def test_kafka_takes_a_client_certificate_and_says_where_there_is_none(secured: Secured, processes: Processes) -> None:
    own = {"ssl_certificate_location": str(secured.client.certificate), "ssl_key_location": str(secured.client.key)}
    place = secured.place("mutual") | secured.redis_settings | {"FLOWAGG_KAFKA_TIMEOUT_SECONDS": "1"}
    nameless = start_service(processes, "writer", place | secured.mutual_settings("nameless"), "nameless")
    stack = Stack(processes, place | secured.mutual_settings("named", **own), consumers=1)
    stack.wait_ready()
    ledger = Ledger()
    post(stack, islice(flows(SHAPE, seed=3), 100), ledger)
    assert_exact(stack, ledger)
    wait_check(nameless, "kafka", "TlsFailed", 30)


@pytest.mark.parametrize("service", SERVICES)
def test_a_key_in_the_place_of_its_files_name_ends_it_and_is_not_shown(secured: Secured, service: str) -> None:
    key = secured.client.key.read_text()
    done = subprocess.run(
        [sys.executable, "-m", f"flowagg_{service}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | secured.redis_settings | {"FLOWAGG_REDIS_KEY_FILE": key},
    )
    assert done.returncode == 1
    assert "FLOWAGG_REDIS_KEY_FILE" in done.stderr
    said = done.stdout + done.stderr
    assert [line for line in key.splitlines() if line in said] == []


def ping(settings: ReaderSettings) -> str | None:
    """What both clients say is wrong with Redis; None where nothing is."""

    async def asynchronously() -> None:
        client = connect_async(settings, "test")
        try:
            await client.ping()
        finally:
            await client.aclose()

    async def closed() -> None:
        """Connections that failed are closed a moment later; the loop's own pipe stays."""
        async with asyncio.timeout(10):
            while len(selector.get_map()) > 1:
                await asyncio.sleep(0.01)

    def synchronously() -> None:
        with connect(settings, "test") as client:
            client.ping()

    said: list[str | None] = []
    selector = selectors.DefaultSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        attempts = synchronously, lambda: runner.run(asynchronously())
        for attempt in attempts:
            try:
                attempt()
                said.append(None)
            except redis.RedisError as error:
                said.append(f"{type(error).__name__}: {error}")
        runner.run(closed())
    first, second = said
    assert (first is None) == (second is None), said
    return None if first is None else f"{first}\n{second}"


def reader_settings(given: Mapping[str, str], **more: Any) -> ReaderSettings:
    values: dict[str, Any] = {
        name.removeprefix("FLOWAGG_").lower(): value
        for name, value in given.items()
        if name != "FLOWAGG_REDIS_PASSWORD_FILE"
    }
    password = Path(given["FLOWAGG_REDIS_PASSWORD_FILE"]).read_text().strip()
    return ReaderSettings(**(values | {"redis_password": password} | more))


def test_redis_troubles_are_told_in_words(secured: Secured, processes: Processes) -> None:
    given = secured.redis_settings
    elsewhere = secured.authority.issue("elsewhere", ("elsewhere.example",))
    named_otherwise = start_redis_binary(processes, provision.redis_server(), "--requirepass", "x", tls=elsewhere)
    clear = start_redis_binary(processes, provision.redis_server(), "--requirepass", "x", name="clear")
    at_otherwise = {"redis_url": f"rediss://{named_otherwise.address}", "redis_password": "x"}
    in_one_file = {"redis_certificate_file": secured.client.both, "redis_key_file": None}
    stranger = secured.stranger.issue("client")
    strange = {"redis_certificate_file": stranger.certificate, "redis_key_file": stranger.key}
    troubles: list[tuple[dict[str, Any], str | None]] = [
        ({}, None),
        (in_one_file, None),
        ({"redis_password": f"{MARK}-wrong"}, "invalid username-password pair"),
        ({"redis_password": ""}, "Authentication required"),
        ({"redis_ca_file": secured.stranger.certificate}, "certificate verify failed"),
        ({"redis_ca_file": None}, "certificate verify failed"),
        ({"redis_certificate_file": None, "redis_key_file": None}, "certificate required|EOF|reset"),
        (strange, "unknown ca|EOF|reset"),
        (at_otherwise, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        (at_otherwise | {"redis_tls_verify_hostname": False}, None),
        ({"redis_url": f"rediss://{clear.address}", "redis_password": "x"}, "Timeout connecting to server"),
    ]
    for more, words in troubles:
        said = ping(reader_settings(given, redis_timeout_seconds=1, **more))
        if words is None:
            assert said is None, more
            continue
        assert said is not None, more
        for line in said.splitlines():
            assert re.search(words, line), (more, said)
        assert MARK not in said


def test_a_wrong_redis_password_is_told_and_goes_on_when_mended(secured: Secured, processes: Processes) -> None:
    first = f"{MARK}-first"
    own = start_redis_binary(
        processes, provision.redis_server(), "--requirepass", first, tls=secured.authority.issue("own")
    )
    given = secured.redis_settings | {"FLOWAGG_REDIS_URL": f"rediss://{own.address}"}
    secured.user(USER, f"{MARK}-kafka")
    place = secured.place("own-redis") | secured.kafka_settings(USER, f"{MARK}-kafka")
    services = [start_service(processes, name, place | given) for name in ("consumer", "reader")]
    for service in services:
        wait_check(service, "redis" if service.name == "reader" else "partition_0", "invalid username-password", 30)
    with connect(reader_settings(given, redis_password=first), "test") as administrator:
        administrator.config_set("requirepass", secured.redis_password)
    for service in services:
        service.wait_ready()
    assert_nothing_told(services)


@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_totals_are_exact_with_tls_everywhere_and_the_redis_master_killed(
    secured: Secured, processes: Processes, tmp_path: Path
) -> None:
    passwords = f"{MARK}-node", f"{MARK}-sentinel"
    security = Security(secured.authority.issue("set"), secured.client, *passwords)
    redis_set = start_sentinel_set(processes, tmp_path, security=security)
    secured.user(USER, f"{MARK}-kafka")
    given = secured.place("sentinels") | secured.kafka_settings(USER, f"{MARK}-kafka") | redis_set.environment
    given |= {
        "FLOWAGG_REDIS_PASSWORD_FILE": secured.file("node-password", passwords[0]),
        "FLOWAGG_SENTINEL_PASSWORD_FILE": secured.file("sentinel-password", passwords[1]),
        "FLOWAGG_SENTINEL_TIMEOUT_SECONDS": "1",
    }
    try:
        stack = Stack(processes, given)
        stack.wait_ready()
        ledger = Ledger()
        source = flows(SHAPE, seed=4)
        post(stack, islice(source, 2000), ledger)
        assert_exact(stack, ledger)
        killed = redis_set.master()
        redis_set.kill(killed)
        post(stack, islice(source, 2000), ledger)
        assert_exact(stack, ledger)
        wait_for(lambda: redis_set.master() != killed, "the sentinels name another master, too")
        assert_nothing_told(stack.services)

        # The sentinels' own trouble is told as the nodes' is, without the passwords.
        wrong = {"FLOWAGG_SENTINEL_PASSWORD_FILE": secured.file("wrong-password", f"{MARK}-wrong")}
        strange = {"FLOWAGG_REDIS_CA_FILE": str(secured.stranger.certificate)}
        unsure = [
            start_service(processes, "reader", given | more, name) for name, more in (("w", wrong), ("s", strange))
        ]
        for service, words in zip(unsure, ("invalid username-password", "certificate verify failed"), strict=True):
            wait_check(service, "redis", words, 30)
        assert_nothing_told(unsure)
    finally:
        redis_set.kill_all()
