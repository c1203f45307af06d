"""The system under contract test: the one that --base-url names, else one of its own behind the dev front."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from confluent_kafka.admin import AdminClient
from flowagg_stack.embedded import Server
from flowagg_stack.ports import free_port
from flowagg_stack.processes import Processes
from flowagg_stack.services import Service, Stack, service_environment, start_front, start_service
from flowagg_stack.topics import ensure_topic

from tests.conftest import PARTITIONS, Place
from tests.contract.flows import new_hour

NAME = "contract"


@dataclass(frozen=True)
class Own:
    """A system of the session's own. base_url: of the front before writer and reader."""

    place: Place
    stack: Stack
    base_url: str


@pytest.fixture
def hour() -> int:
    """An hour that nobody else uses."""
    return new_hour()


@pytest.fixture(scope="session")
def own(request: pytest.FixtureRequest) -> Own:
    """For tests that need a system of their own: its processes, its settings or its log."""
    if request.config.getoption("--base-url") is not None:
        pytest.skip("not against --base-url: this needs the processes of a system of its own")
    kafka: Server = request.getfixturevalue("kafka")
    redis_server: Server = request.getfixturevalue("redis_server")
    processes: Processes = request.getfixturevalue("session_processes")
    admin = AdminClient({"bootstrap.servers": kafka.address})
    ensure_topic(admin, NAME, PARTITIONS)
    environment = {
        "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address,
        "FLOWAGG_KAFKA_TOPIC": NAME,
        "FLOWAGG_REDIS_URL": f"redis://{redis_server.address}/0",
        "FLOWAGG_VIEW": NAME,
    }
    stack = Stack(processes, environment)
    stack.wait_ready()
    return Own(Place(environment, NAME, NAME, admin), stack, start_front(processes, stack, free_port()))


@pytest.fixture(scope="session")
def base_url(request: pytest.FixtureRequest) -> str:
    """The address that clients are given."""
    given: str | None = request.config.getoption("--base-url")
    if given is not None:
        return given.rstrip("/")
    system: Own = request.getfixturevalue("own")
    return system.base_url


@pytest.fixture(scope="session")
def writer(own: Own) -> Service:
    """The writer itself, for what a gateway in front may frame anew or answer in its place."""
    return own.stack.writer


@pytest.fixture(scope="session")
def reader(own: Own) -> Service:
    """The reader itself, likewise."""
    return own.stack.reader


@pytest.fixture(params=["writer", "reader"])
def service(request: pytest.FixtureRequest, own: Own) -> Service:
    """Each of the two."""
    return {"writer": own.stack.writer, "reader": own.stack.reader}[request.param]


@pytest.fixture(scope="session")
def writer_url(writer: Service) -> str:
    return writer.url


@pytest.fixture(scope="session")
def reader_url(reader: Service) -> str:
    return reader.url


@pytest.fixture(scope="session")
def start_writer(own: Own, session_processes: Processes) -> Callable[..., Service]:
    """Starts a further writer of the own system; keyword arguments are further settings."""
    numbers = itertools.count(1)

    def start(**settings: str) -> Service:
        unknown = settings.keys() - service_environment("writer", settings).keys()
        assert not unknown, f"the writer has no such setting: {unknown}"
        service = start_service(
            session_processes, "writer", own.place.environment | settings, f"writer-with-limits-{next(numbers)}"
        )
        service.wait_ready()
        return service

    return start
