"""Real programs for tests: started once a session, on free ports, ended with it."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from confluent_kafka.admin import AdminClient
from flowagg_stack import provision
from flowagg_stack.apache_kafka import start_kafka
from flowagg_stack.embedded import Server, start_redis_binary
from flowagg_stack.ports import free_port
from flowagg_stack.processes import Processes
from flowagg_stack.services import SETTINGS, Stack, start_front
from flowagg_stack.topics import ensure_topic

PARTITIONS = 6
_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--base-url", help="run tests/contract against this system instead of one of its own")


@pytest.fixture(scope="session")
def session_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="session")
def session_processes(session_directory: Path) -> Iterator[Processes]:
    with Processes(session_directory) as processes:
        yield processes


@pytest.fixture(scope="session")
def kafka(session_processes: Processes, session_directory: Path) -> Server:
    return start_kafka(session_processes, session_directory)


@pytest.fixture(scope="session")
def redis_server(session_processes: Processes) -> Server:
    return start_redis_binary(session_processes, provision.redis_server())


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as children:
        yield children


@dataclass(frozen=True)
class Place:
    """A topic and a view of a test's own."""

    environment: dict[str, str]
    topic: str
    view: str
    admin: AdminClient

    def environment_of(self, service: str) -> dict[str, str]:
        """Those of the variables that a service knows."""
        known = SETTINGS[service].model_fields
        return {n: v for n, v in self.environment.items() if n.removeprefix("FLOWAGG_").lower() in known}


def _place(kafka: Server, redis_server: Server, partitions: int = PARTITIONS) -> Place:
    number = next(_numbers)
    topic, view = f"flows-{number}", f"view-{number}"
    admin = AdminClient({"bootstrap.servers": kafka.address})
    ensure_topic(admin, topic, partitions)
    environment = {
        "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address,
        "FLOWAGG_KAFKA_TOPIC": topic,
        "FLOWAGG_REDIS_URL": f"redis://{redis_server.address}/0",
        "FLOWAGG_VIEW": view,
    }
    return Place(environment, topic, view, admin)


@pytest.fixture
def place(kafka: Server, redis_server: Server) -> Place:
    return _place(kafka, redis_server)


@pytest.fixture
def start_stack(processes: Processes, place: Place) -> Callable[..., Stack]:
    """Starts a stack at the test's place; keyword arguments are further settings."""

    def start(consumers: int = 2, **settings: str) -> Stack:
        stack = Stack(processes, place.environment | settings, consumers)
        stack.wait_ready()
        return stack

    return start


@pytest.fixture(scope="session")
def base_url(request: pytest.FixtureRequest) -> str:
    """The system under contract test: --base-url, else a stack of its own behind a front."""
    given: str | None = request.config.getoption("--base-url")
    if given is not None:
        return given.rstrip("/")
    kafka, redis_server = (request.getfixturevalue(name) for name in ("kafka", "redis_server"))
    stack = Stack(request.getfixturevalue("session_processes"), _place(kafka, redis_server).environment)
    stack.wait_ready()
    return start_front(request.getfixturevalue("session_processes"), stack, free_port())


@pytest.fixture(scope="session")
def client(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, timeout=30) as session_client:
        yield session_client
