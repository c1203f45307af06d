"""A small disk, which can be made as full as it can be."""

import ctypes
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

_CLONE_NEWNS: Final = 0x00020000


def own_mounts() -> bool:
    """Give this process mounts of its own: they end with it and its children, whatever ends them. Needs root."""
    if os.geteuid() != 0 or ctypes.CDLL(None).unshare(_CLONE_NEWNS) != 0:
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False).returncode == 0


class Disk:
    """A tmpfs on a directory; a context manager."""

    def __init__(self, directory: Path, mib: int) -> None:
        self._directory = directory
        self._size = f"{mib}m"

    def __enter__(self) -> Self:
        _mount("-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", str(self._directory))
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self._directory)], capture_output=True, check=False)

    def fill(self) -> None:
        """From now on it has no room for another page."""
        while True:
            status = os.statvfs(self._directory)
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            with suppress(subprocess.CalledProcessError):  # it has grown meanwhile
                _mount("-o", f"remount,size={used}", str(self._directory))
                return

    def widen(self) -> None:
        """It has room again."""
        _mount("-o", f"remount,size={self._size}", str(self._directory))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], capture_output=True, check=True, timeout=10)
