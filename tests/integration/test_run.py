"""make run, on the embedded broker and Redis: exact, and gone without a trace."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from flowagg_stack.ports import free_port

from tests.integration.tools import wait_for

REPOSITORY = Path(__file__).parents[2]
EXACT = "Exact: all 209 totals equal the true ones (48,657 records, hours 0-2)."

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


class Run:
    """A run in a session of its own, as in a terminal; TMPDIR marks everything that it starts."""

    def __init__(self, directory: Path, port: int, *arguments: str, **environment: str) -> None:
        self.mark = str(directory)
        self.output = directory / "output"
        self.url = f"http://127.0.0.1:{port}"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flowagg_stack", "run", "--port", str(port), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TMPDIR": self.mark, "COLUMNS": "120"} | environment,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.output.read_text()

    def wait_for_text(self, text: str, seconds: float = 90) -> None:
        wait_for(lambda: text in self.text() or self.process.poll() is not None, text, seconds)
        assert text in self.text(), self.text()

    def started(self) -> dict[int, str]:
        """Processes with the mark in their environment: everything that the run started, and itself."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    # Redis writes its title over its environment; but it works below TMPDIR as all do.
                    marked = f"TMPDIR={self.mark}\0".encode() in (entry / "environ").read_bytes() + b"\0"
                    if marked or str((entry / "cwd").readlink()).startswith(f"{self.mark}/"):
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
        return found

    def pid_of(self, word: str) -> int:
        (pid,) = [pid for pid, line in self.started().items() if word in line][:1]
        return pid

    def assert_gone(self) -> None:
        wait_for(lambda: not self.started(), "everything has ended", 20)
        assert not [path for path in Path(self.mark).iterdir() if path != self.output]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def run(tmp_path: Path, port: int, request: pytest.FixtureRequest) -> Iterator[Run]:
    """With the arguments that a test gives as its parameters."""
    running = Run(tmp_path, port, *getattr(request, "param", ()))
    try:
        yield running
    finally:
        for pid in running.started():
            os.kill(pid, signal.SIGKILL)
        running.process.wait()


@pytest.mark.parametrize("run", [["--flows", "10000"]], indirect=True, ids=["a part of the sample"])
def test_totals_are_exact_it_stays_up_and_ctrl_c_ends_everything(run: Run) -> None:
    run.wait_for_text("Ctrl-C ends all of it.")
    assert re.search(r"Exact: all \d+ totals equal the true ones \(10,000 records, ", run.text())
    assert "198.18.134.11" in run.text()
    assert len(run.started()) == 8  # the runner, broker, Redis, writer, reader, two consumers, front
    flow = {"src_app": "foo", "dest_app": "bar", "vpc_id": "vpc-0", "hour": 9, "bytes_tx": 1, "bytes_rx": 2}
    assert httpx.post(f"{run.url}/flows", json=[flow]).json()["accepted"] == 1
    assert httpx.get(f"{run.url}/flows?hour=9").json() == [flow]
    for url in re.findall(r"curl (\S+/metrics)", run.text()):
        assert httpx.get(url).status_code == 200
    os.kill(run.process.pid, signal.SIGINT)
    assert run.process.wait(30) == 0
    run.assert_gone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_everything_also_in_the_middle_of_its_start(run: Run, number: signal.Signals) -> None:
    run.wait_for_text("topic ")
    os.kill(run.process.pid, number)
    run.process.wait(30)
    run.assert_gone()


@pytest.mark.parametrize("run", [["--flows", "1000"]], indirect=True, ids=["a part of the sample"])
def test_a_consumer_that_dies_is_told_of_and_started_again(run: Run) -> None:
    run.wait_for_text("Ctrl-C ends all of it.")
    assert "(1,000 records, " in run.text()
    os.kill(run.pid_of("flowagg_consumer"), signal.SIGKILL)
    run.wait_for_text("has ended with status -9")
    run.wait_for_text("Started again")
    wait_for(lambda: len(run.started()) == 8, "it runs again")
    os.kill(run.pid_of("tansu"), signal.SIGKILL)
    run.wait_for_text("broker has ended")
    os.kill(run.process.pid, signal.SIGINT)
    run.process.wait(30)
    run.assert_gone()


def test_a_runner_that_is_killed_takes_everything_with_it(run: Run) -> None:
    run.wait_for_text("The sample:")  # its progress is shown at its end where there is no terminal
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait(30)
    wait_for(lambda: not run.started(), "everything has ended", 20)


def test_a_port_in_use_is_said_with_the_way_out(tmp_path: Path, port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        run = Run(tmp_path, port)
        assert run.process.wait(30) == 2
    assert f"Port {port} is in use: take another one with make run PORT={port + 1}" in run.text()
    run.assert_gone()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("FLOWAGG_KAFKA_BOOTSTRAP_SERVERS", "Give both"),
        ("FLOWAGG_NONSENSE", "Unknown settings: FLOWAGG_NONSENSE"),
        ("FLOWAGG_PORT", "PORT is the front's"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, port: int, name: str, text: str) -> None:
    run = Run(tmp_path, port, **{name: "1"})
    assert run.process.wait(30) == 2
    assert text in run.text()


def test_it_runs_on_a_kafka_and_a_redis_of_yours_again_and_again(
    tmp_path: Path, port: int, request: pytest.FixtureRequest
) -> None:
    environment = request.getfixturevalue("place").environment
    for number in range(2):
        directory = tmp_path / str(number)
        directory.mkdir()
        run = Run(directory, port, "--once", **environment)
        assert run.process.wait(90) == 0, run.text()
        assert EXACT in run.text()
        run.assert_gone()
