"""make run: the whole system as processes on this machine, with the sample flow log in it."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import httpx
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from flowagg.errors import FlowaggError
from flowagg.kafka import admin_properties
from flowagg.settings import PREFIX
from flowagg_writer.settings import WriterSettings
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from flowagg_stack import sample
from flowagg_stack.embedded import BROKER_PROPERTIES, start_broker, start_redis
from flowagg_stack.ports import is_free
from flowagg_stack.processes import Child, Processes, ProcessFailed
from flowagg_stack.services import SETTINGS, Service, Stack, start_front
from flowagg_stack.topics import ensure_topic

SAMPLE: Final = Path(__file__).parents[4] / "examples" / "flows" / "flows.ndjson.gz"
PARTITIONS: Final = 6
CONSUMERS: Final = 2
BUSIEST: Final = 10
MAX_RESTARTS: Final = 5
_WATCH_SECONDS = 0.5
_AGAIN_SECONDS = 0.2
_ENDING_SIGNALS = (signal.SIGALRM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OF_THE_COMMAND_LINE = {PREFIX + name for name in ("URL", "TOKEN_FILE")}
"""What `flowagg` reads: whoever has exported it may start a system from the same shell."""
_KAFKA, _REDIS = PREFIX + "KAFKA_BOOTSTRAP_SERVERS", PREFIX + "REDIS_URL"


class WrongSettings(FlowaggError):
    """The runner's settings do not go together."""


def run(port: int, console: Console, *, stay: bool, most: int | None = None) -> int:
    """Start everything, post the sample, show and check its totals, stay up. The exit status.

    most: flow records of the sample to post; None: all.
    """
    given = _given()
    if not is_free(port):
        raise WrongSettings(f"Port {port} is in use: take another one with make run PORT={port + 1}")
    with (
        tempfile.TemporaryDirectory(prefix="flow-aggregator-") as name,
        Processes(Path(name)) as processes,
        _Ending(console),
    ):
        stack = _Stack(processes, console, given, Path(name))
        stack.start(port)
        exact = _show_sample(stack.url, console, most)
        stack.say_where_to_go_on()
        if stay:
            stack.watch()
        return 0 if exact else 1
    return 0  # ended by Ctrl-C


class _Stack:
    """What is running: everything below the front's one address."""

    def __init__(self, processes: Processes, console: Console, given: Mapping[str, str], directory: Path) -> None:
        self._processes = processes
        self._console = console
        self._given = dict(given)
        self._directory = directory
        self._services: list[Service] = []
        self._restarts: dict[str, int] = {}
        self.url = ""

    def start(self, port: int) -> None:
        """Start broker and Redis unless they are given, then the services, then the front."""
        say = self._console.print
        say(f"[bold]FlowAggregator {version('flowagg-writer')}[/bold]", highlight=False)
        if _KAFKA in self._given:
            self._say("Kafka", self._given[_KAFKA], "yours")
            self._say("Redis", self._given[_REDIS], "yours")
        else:
            broker, redis = start_broker(self._processes), start_redis(self._processes)
            properties = self._directory / "writer.properties"
            properties.write_text(BROKER_PROPERTIES, encoding="utf-8")
            self._given |= {_KAFKA: broker.address, _REDIS: f"redis://{redis.address}/0"}
            self._given.setdefault(PREFIX + "KAFKA_PROPERTIES_FILE", str(properties))
            self._say("Kafka", broker.address, broker.kind)
            self._say("Redis", redis.address, redis.kind)
        self._ensure_topic()
        stack = Stack(self._processes, self._given, CONSUMERS)
        self._services = stack.services
        for service in self._services:
            service.wait_ready()
            self._say(service.name, service.url.removeprefix("http://"), "ready")
        self.url = start_front(self._processes, stack, port)
        self._say("front", f"127.0.0.1:{port}", "one address for POST and GET")

    def say_where_to_go_on(self) -> None:
        """Print what a newcomer may do next."""
        post = f"curl {self.url}/flows -H 'Content-Type: application/json' -d"
        flow = '[{"src_app":"foo","dest_app":"bar","vpc_id":"vpc-0","hour":9,"bytes_tx":100,"bytes_rx":300}]'
        lines = [
            "",
            "Go on with:",
            f"  {post} '{flow}'",
            f"  curl '{self.url}/flows?hour=9'",
            f"  {self.url}/ui    # a page to look at them",
            *(f"  curl {service.url}/metrics    # {service.name}; also /readyz, /livez" for service in self._services),
            "",
            "Ctrl-C ends all of it.",
        ]
        for line in lines:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def watch(self) -> None:
        """Stay until Ctrl-C; a process that ends is told of, and started again where nothing is lost by it."""
        ended: set[int] = set()
        while True:
            time.sleep(_WATCH_SECONDS)
            for child in list(self._processes.children):
                if not child.ended or child.process.pid in ended:
                    continue
                ended.add(child.process.pid)
                self._tell(child)

    def _tell(self, child: Child) -> None:
        status = child.process.returncode
        self._restarts[child.name] = restarts = self._restarts.get(child.name, 0) + 1
        with_memory = child.name in ("broker", "redis")
        self._console.print(f"\n[bold red]{child.name} has ended[/bold red] with status {status}; its last lines:")
        self._console.print(child.last_lines(), highlight=False, markup=False, soft_wrap=True)
        if with_memory:
            self._console.print("What it held in memory is gone with it: press Ctrl-C and make run again.")
        elif restarts > MAX_RESTARTS:
            self._console.print(f"It has ended {restarts} times and is not started again. Ctrl-C ends the rest.")
        else:
            self._processes.restart(child)
            self._console.print("Started again, as Kubernetes would.")

    def _ensure_topic(self) -> None:
        environment = {
            n: v for n, v in self._given.items() if n.removeprefix(PREFIX).lower() in WriterSettings.model_fields
        }
        with _environment(environment):
            settings = WriterSettings.read()
        try:
            admin = AdminClient(admin_properties(settings, "stack"))
            partitions = ensure_topic(admin, settings.kafka_topic, PARTITIONS)
            ensure_topic(admin, f"{settings.kafka_topic}.dead-letters", 1)
        except (KafkaException, FlowaggError) as error:
            raise ProcessFailed(f"Kafka at {settings.kafka_bootstrap_servers}: {error}") from error
        self._say("topic", settings.kafka_topic, f"{partitions} partitions")

    def _say(self, name: str, what: str, more: str) -> None:
        self._console.print(f"  {name:<11} {what:<22} {more}", highlight=False, markup=False, soft_wrap=True)


def _show_sample(url: str, console: Console, most: int | None) -> bool:
    """Post the sample, show the busiest flow keys of its fullest hour; whether every total is exact."""
    flows = sample.read_flows(SAMPLE)[:most]
    hours = sorted({flow.hour for flow in flows})
    columns = TextColumn("  {task.description:<11}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn()
    with httpx.Client(base_url=url, timeout=30) as client:
        before = sample.read_totals(client, hours)
        console.print(f"\nThe sample: {len(flows):,} flow records of a real network (examples/flows)", highlight=False)
        with Progress(*columns, console=console) as progress:
            posting = progress.add_task("posting", total=len(flows))
            token, ledger = sample.post(client, flows, lambda count: progress.advance(posting, count))
            applying = progress.add_task("applying", total=len(flows))
            sample.wait_applied(client, token, lambda lag: progress.update(applying, completed=len(flows) - lag))
        after = sample.read_totals(client, hours)
    fullest = max(hours, key=lambda hour: sum(flow.hour == hour for flow in flows))
    console.print(_busiest(after, fullest))
    wrong = sample.differences(before, after, ledger)
    if wrong:
        console.print(f"[bold red]{len(wrong)} totals differ from the true ones:[/bold red]")
        for line in wrong[:20]:
            console.print(f"  {line}", highlight=False, markup=False)
        return False
    console.print(
        f"[bold green]Exact:[/bold green] all {len(ledger.totals)} totals equal the true ones "
        f"({ledger.flows:,} records, hours {hours[0]}-{hours[-1]}).",
        highlight=False,
    )
    return True


def _busiest(totals: sample.Totals, hour: int) -> Table:
    table = Table(title=f"Busiest flow keys of hour {hour}", title_justify="left")
    for heading in ("src_app", "dest_app", "vpc_id"):
        table.add_column(heading, no_wrap=True)
    for heading in ("bytes_tx", "bytes_rx"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = sorted((item for item in totals.items() if item[0][3] == hour), key=lambda item: -sum(item[1]))
    for (src_app, dest_app, vpc_id, _), (bytes_tx, bytes_rx) in rows[:BUSIEST]:
        table.add_row(src_app, dest_app, vpc_id, f"{bytes_tx:,}", f"{bytes_rx:,}")
    return table


def _given() -> dict[str, str]:
    """The FLOWAGG_* variables for the services. Raises WrongSettings for one that no service knows."""
    given = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(PREFIX) and name not in _OF_THE_COMMAND_LINE
    }
    known = {PREFIX + name.upper() for settings in SETTINGS.values() for name in settings.model_fields}
    unknown = sorted(name for name in given if name not in known and name.removesuffix("_FILE") not in known)
    if unknown:
        raise WrongSettings(f"Unknown settings: {', '.join(unknown)} (flowagg-writer --help and its like list them)")
    own = sorted({PREFIX + "HOST", PREFIX + "PORT"} & given.keys())
    if own:
        raise WrongSettings(f"{', '.join(own)}: the runner picks the services' addresses; PORT is the front's.")
    if (_KAFKA in given) != (_REDIS in given):
        raise WrongSettings(f"Give both {_KAFKA} and {_REDIS}, or neither: a view counts in one log.")
    return given


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    for name in before:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


class _Ending:
    """A context in which SIGTERM and a closed terminal end the run as Ctrl-C does; left, no signal does."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> None:
        for number in _ENDING_SIGNALS:
            signal.signal(number, self._interrupt)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        for number in _ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        if interrupted:
            self._console.print("\nEnding everything that was started ...")
        return interrupted

    @staticmethod
    def _interrupt(*_: object) -> None:
        # Python swallows an exception that is raised in a callback or a destructor, wherever the
        # signal happened to find it: so it comes again until it was seen.
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        raise KeyboardInterrupt
