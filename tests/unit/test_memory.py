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
