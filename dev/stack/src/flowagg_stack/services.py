"""The services as processes."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx
from flowagg.settings import PREFIX, Settings
from flowagg_consumer.settings import ConsumerSettings
from flowagg_reader.settings import ReaderSettings
from flowagg_writer.settings import WriterSettings

from flowagg_stack.ports import answers, free_port
from flowagg_stack.processes import Child, Processes, wait_until

SETTINGS: Final[Mapping[str, type[Settings]]] = {
    "writer": WriterSettings,
    "consumer": ConsumerSettings,
    "reader": ReaderSettings,
}


@dataclass(frozen=True, slots=True)
class Service:
    """A service's process and its address."""

    name: str
    url: str
    child: Child

    def checks(self) -> dict[str, str]:
        """What /readyz says is not well; empty when the service is ready."""
        try:
            reply = httpx.get(f"{self.url}/readyz", timeout=2)
        except httpx.HTTPError as error:
            return {"http": f"does not answer: {error}"}
        found: dict[str, str] = reply.json()["checks"]
        return {name: state for name, state in found.items() if state != "ok"}

    def running_partitions(self) -> int:
        """How many partitions a consumer runs, by its metrics."""
        try:
            reply = httpx.get(f"{self.url}/metrics", timeout=2)
        except httpx.HTTPError:
            return 0
        match = re.search(r'^flowagg_consumer_partitions\{state="running"\} (\S+)$', reply.text, re.M)
        return 0 if match is None else round(float(match[1]))

    def wait_ready(self, seconds: float = 60) -> None:
        """Wait until /readyz says 200. Raises ProcessFailed with what is not well."""
        checks = {"http": "not asked yet"}

        def ready() -> bool:
            nonlocal checks
            checks = self.checks()
            return not checks

        try:
            wait_until(ready, f"{self.name} is ready", seconds, [self.child], pause=0.05)
        except Exception as error:
            error.add_note(f"{self.name}: {checks}")
            raise


class Stack:
    """A writer, a reader and consumers on one Kafka and one Redis, given as FLOWAGG_* variables.

    partitions: of the topic.
    """

    def __init__(self, processes: Processes, given: Mapping[str, str], consumers: int = 2, partitions: int = 6) -> None:
        self.partitions = partitions
        self.writer = start_service(processes, "writer", given)
        self.reader = start_service(processes, "reader", given)
        self.consumers = [
            start_service(processes, "consumer", given, f"consumer-{number + 1}") for number in range(consumers)
        ]

    @property
    def services(self) -> list[Service]:
        """All of them."""
        return [self.writer, self.reader, *self.consumers]

    def wait_ready(self) -> None:
        """Wait until all are ready and the consumers share the partitions. Raises ProcessFailed."""
        for service in self.services:
            service.wait_ready()
        self.wait_settled()

    def wait_settled(self, consumers: Sequence[Service] | None = None, seconds: float = 60) -> None:
        """Wait until each of the consumers runs its fair share of the partitions. Raises ProcessFailed."""
        sharing = self.consumers if consumers is None else consumers

        def settled() -> bool:
            running = [service.running_partitions() for service in sharing]
            return sum(running) == self.partitions and min(running) >= self.partitions // len(running)

        wait_until(settled, "the consumers share the partitions", seconds, [s.child for s in sharing], pause=0.1)


def start_front(processes: Processes, stack: Stack, port: int) -> str:
    """Start the front; its URL."""
    command = [sys.executable, "-m", "flowagg_stack.front", "--port", str(port)]
    front = processes.start("front", [*command, "--writer", stack.writer.url, "--reader", stack.reader.url])
    wait_until(lambda: answers(port), "the front answers", 20, [front])
    return f"http://127.0.0.1:{port}"


def service_environment(service: str, given: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with those of the given FLOWAGG_* variables that the service knows."""
    known = {PREFIX + name.upper() for name in SETTINGS[service].model_fields}
    known |= {name + "_FILE" for name in known}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return environment | {name: value for name, value in given.items() if name in known}


def start_service(processes: Processes, service: str, given: Mapping[str, str], name: str | None = None) -> Service:
    """Start a service on a free port of the loopback with the given FLOWAGG_* variables."""
    port = free_port()
    environment = service_environment(service, given)
    environment |= {"FLOWAGG_HOST": "127.0.0.1", "FLOWAGG_PORT": str(port)}
    child = processes.start(name or service, [sys.executable, "-m", f"flowagg_{service}"], environment)
    return Service(name or service, f"http://127.0.0.1:{port}", child)
