"""What is measured is what real processes do: some of these leak on purpose."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.soak import proc, report
from tests.soak.calm import Calm
from tests.soak.sampler import MOST_READINGS, Repeated, Sampler, pause_seconds

CHILD = """
import socket, sys, threading, time
print(flush=True)
kept, listener = [], socket.create_server(("127.0.0.1", 0))
def leak(what):
    if what == "memory":
        kept.append(bytearray(b"x" * 300_000))
    if what == "files":
        kept.append(open("/dev/null"))
    if what == "connections":
        kept.append(socket.create_connection(listener.getsockname()))
        kept.append(listener.accept()[0])
    if what == "half-closed":
        socket.create_connection(listener.getsockname()).close()
        kept.append(listener.accept()[0])
    if what == "threads":
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
while True:
    for what in sys.argv[1:]:
        leak(what)
    time.sleep(0.05)
"""
SECONDS = 5.0
WARM_SECONDS = 1.0


@contextmanager
def child(*leaks: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", CHILD, *leaks], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def soaked(**pids: int) -> set[str]:
    """Watch processes for some seconds, by part; the names of the figures that are missed."""
    sampler = Sampler(lambda: {name.replace("_", "-"): pid for name, pid in pids.items()}, Calm())
    since = time.monotonic()
    with Repeated("sampler", 0.1, sampler.sample):
        time.sleep(SECONDS)
    seen = report.Seen(since, time.monotonic(), WARM_SECONDS, 1, sampler.lives, {}, [], [])
    found = report.figures(seen)
    told = {figure.name for figure in found if figure.judged and figure.trend.holds is not None}
    assert len(told) == 5 * len(pids)
    return {figure.name for figure in found if figure.judged and figure.trend.holds is False}


def test_what_a_process_leaks_is_named_and_nothing_else() -> None:
    with ExitStack() as stack:
        missed = soaked(
            writer_1=stack.enter_context(child()),
            writer_2=stack.enter_context(child("memory")),
            consumer_1=stack.enter_context(child("files")),
            consumer_3=stack.enter_context(child("connections")),
            reader_1=stack.enter_context(child("half-closed")),
            reader_2=stack.enter_context(child("threads")),
        )
    assert missed == {
        "writer-2 memory, MiB",
        "consumer-1 open files",
        "consumer-3 open files",
        "consumer-3 connections",
        "reader-1 open files",
        "reader-1 connections",
        "reader-1 half-closed connections",
        "reader-2 threads",
    }


def test_a_part_that_is_started_again_begins_a_series_of_its_own() -> None:
    pids = {"writer-1": 0}
    sampler = Sampler(lambda: pids, Calm())
    seen = []
    for _ in range(2):
        with child() as pids["writer-1"]:
            seen.append(pids["writer-1"])
            sampler.sample()
            sampler.sample()
        sampler.sample()
    assert [(life.name, life.pid, len(life.samples)) for life in sampler.lives] == [("writer-1", p, 2) for p in seen]


def test_one_that_has_ended_is_not_looked_at_though_nobody_has_waited_for_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert proc.born(process.pid) is None
        assert proc.look(process.pid, {}) is None
    finally:
        process.wait()
    assert proc.born(process.pid) is None
    assert proc.look(process.pid, {}) is None


def test_what_fails_in_the_background_fails_in_the_end() -> None:
    def fails() -> None:
        raise ValueError("no")

    repeated = Repeated("fails", 0.1, fails)
    with pytest.raises(ValueError, match="no"), repeated:
        time.sleep(0.05)


def test_a_run_of_any_length_is_kept_in_the_same_room() -> None:
    for hours in (0.01, 0.5, 8, 100):
        assert hours * 3600 / pause_seconds(hours * 3600) <= MOST_READINGS
