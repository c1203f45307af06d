"""Child processes that never outlive the one that started them."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowagg.errors import FlowaggError

_PR_SET_PDEATHSIG = 1
_CAUGHT = {signal.SIGALRM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class ProcessFailed(FlowaggError):
    """A process ended that should not have, or did not get ready."""


@dataclass(slots=True)
class Child:
    """A running child: its name, how it was started and where it logs."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def last_lines(self, count: int = 12) -> str:
        """The end of its log."""
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
        except OSError:
            return ""


class Processes:
    """Starts children and ends them all, newest first; a context manager.

    Each child has a session of its own, so that a Ctrl-C in the terminal reaches this process
    alone, which then ends them in order. On Linux the kernel kills them if this process is killed.
    """

    def __init__(self, directory: Path, stop_seconds: float = 10.0) -> None:
        self._directory = directory
        self._stop_seconds = stop_seconds
        self.children: list[Child] = []

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        with _signals_held():
            self.stop_all()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start a child; its output goes to NAME.log in the directory."""
        log = self._directory / f"{name}.log"
        env = dict(os.environ if environment is None else environment)
        with _signals_held(), log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=self._directory,
                start_new_session=True,
                preexec_fn=_prepare,  # noqa: PLW1509 - called from the main thread only
            )
            child = Child(name, command, env, log, process)
            self.children.append(child)
        return child

    def restart(self, child: Child) -> Child:
        """Start an ended child anew, in its place."""
        self.forget(child)
        return self.start(child.name, child.command, child.environment)

    def forget(self, child: Child) -> None:
        """Take an ended child off the list."""
        self.children.remove(child)

    def stop(self, child: Child, number: signal.Signals = signal.SIGTERM) -> int:
        """End one child and whatever it started; its exit status."""
        _signal(child, number)
        try:
            status = child.process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            _signal(child, signal.SIGKILL)
            status = child.process.wait()
        self.forget(child)
        return status

    def stop_all(self) -> None:
        """Ask all children to end, newest first; kill those that do not in time."""
        for child in reversed(self.children):
            # A stopped (SIGSTOP) child would not see SIGTERM.
            _signal(child, signal.SIGTERM)
            _signal(child, signal.SIGCONT)
        deadline = time.monotonic() + self._stop_seconds
        for child in reversed(self.children):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.01, deadline - time.monotonic()))
            _signal(child, signal.SIGKILL)  # also to what a child left in its session
            child.process.wait()
        self.children.clear()


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float, children: Sequence[Child] = (), pause: float = 0.02
) -> None:
    """Wait for a condition. Raises ProcessFailed when it takes too long or one of children ends."""
    deadline = time.monotonic() + seconds
    while not condition():
        for child in children:
            if child.ended:
                raise ProcessFailed(f"{child.name} ended with status {child.process.returncode}:\n{child.last_lines()}")
        if time.monotonic() > deadline:
            logs = "".join(f"\n{child.name}:\n{child.last_lines()}" for child in children)
            raise ProcessFailed(f"{what}: not within {seconds:g} s{logs}")
        time.sleep(pause)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back Ctrl-C and its like, so that no child is started and not listed, or half stopped."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _CAUGHT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare() -> None:
    """In the child, before exec: signals as usual again; SIGKILL when the parent dies."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _CAUGHT)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _signal(child: Child, number: signal.Signals) -> None:
    """Signal the child's whole session; nothing where it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, number)
