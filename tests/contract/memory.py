"""The memory of a process, as Linux counts it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def bounded_growth(pid: int, mib: int) -> Iterator[None]:
    """Asserts that the process's memory at its highest within grows by no more than so many MiB."""
    process = Path(f"/proc/{pid}")
    if not process.exists():
        pytest.skip("memory is measured by /proc")
    (process / "clear_refs").write_text("5")  # the peak begins anew
    before = _mib(process, "VmRSS")
    yield
    grown = _mib(process, "VmHWM") - before
    assert grown <= mib, f"memory grew by {grown:.0f} MiB"


def _mib(process: Path, name: str) -> float:
    match = re.search(rf"^{name}:\s+(\d+) kB$", (process / "status").read_text(), re.M)
    assert match is not None
    return int(match[1]) / 1024
