"""The C library's arenas are bounded."""

import os
import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent(
    """
    import ctypes, sys, threading
    from flowagg.memory import bound_arenas

    if "bound" in sys.argv:
        print(bound_arenas(), flush=True)
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    together = threading.Barrier(12)

    def allocate():
        together.wait()
        kept = [libc.malloc(5000) for _ in range(2000)]
        together.wait()
        for one in kept:
            libc.free(one)

    threads = [threading.Thread(target=allocate) for _ in range(12)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    libc.fopen.restype = ctypes.c_void_p
    libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.fclose.argtypes = [ctypes.c_void_p]
    file = libc.fopen(b"/dev/stdout", b"w")
    libc.malloc_info(0, file)
    libc.fclose(file)
    """
)


def heaps(*arguments: str, **more: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"} | more
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.count("<heap nr="), done.stdout


def has_glibc() -> bool:
    return sys.platform.startswith("linux") and "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")


@pytest.mark.skipif(not has_glibc(), reason="only glibc has arenas")
def test_threads_share_two_arenas() -> None:
    count, _ = heaps()
    assert count > 2, "without the bound there are more: the test shows something"
    count, said = heaps("bound")
    assert said.startswith("True\n")
    assert count <= 2


def test_who_has_chosen_keeps_it() -> None:
    _, said = heaps("bound", MALLOC_ARENA_MAX="5")
    assert said.startswith("False\n")


FRAGMENTS = textwrap.dedent(
    """
    import random, re, sys
    from flowagg.memory import keep_large_apart

    if "apart" in sys.argv:
        print(keep_large_apart(), flush=True)

    def anonymous():
        return int(re.search(r"Anonymous: +([0-9]+)", open("/proc/self/smaps_rollup").read())[1]) / 1024

    before = anonymous()
    rng = random.Random(1)
    bodies = [bytes(1_000_000)]
    bodies.clear()  # from now on glibc has what is no larger among the small
    for _ in range(20_000):
        bodies.append(b"x" * int(2 ** rng.uniform(14, 18)))
        if len(bodies) > 100:
            bodies[rng.randrange(100)] = bodies.pop()
    kept = sum(map(len, bodies)) / 2**20
    print(anonymous() - before - kept)
    """
)


@pytest.mark.skipif(not has_glibc(), reason="only glibc moves its limit")
def test_what_large_things_of_all_sizes_leave_is_given_back() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    def left(*arguments: str, **more: str) -> tuple[list[str], float]:
        done = subprocess.run(
            [sys.executable, "-c", FRAGMENTS, *arguments],
            env=environment | more,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        *said, over = done.stdout.split()
        return said, float(over)

    said, over = left("apart")
    assert said == ["True"]
    assert over < 1.5, "MiB beside what is kept"
    assert left()[1] > 2 * over
    assert left("apart", MALLOC_MMAP_THRESHOLD_="1000000")[0] == ["False"]
