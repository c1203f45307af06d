"""The services as processes."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from flowagg.settings import PREFIX, Settings
from flowagg_consumer.settings import ConsumerSettings
from flowagg_reader.settings import ReaderSettings
from flowagg_stack.ports import free_port
from flowagg_stack.processes import Child, Processes, wait_until
from flowagg_writer.settings import WriterSettings

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
