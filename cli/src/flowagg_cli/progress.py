"""How far a file was posted: kept beside it, so that the same command goes on after whatever ended it."""

import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

import msgspec

from flowagg_cli.batches import Batch
from flowagg_cli.errors import Refused

SUFFIX: Final = ".flowagg-post"
_BAR_SECONDS: Final = 0.1


class _Kept(msgspec.Struct, forbid_unknown_fields=True):
    run: str
    url: str
    form: str
    batch: int
    done: int
    more: list[int]
    flows: int
    consumed: int
    digest: str
    ended: bool
    finished: bool


@dataclass(slots=True)
class Progress:
    """run: names the batches' keys, and is drawn once a file. form: what the input is and how it is read.

    done: that many batches from the first on are acknowledged; more: others behind them. consumed, digest: of the
    input up to the end of the last batch that was handed over to be sent: there it must not change any more, as a
    batch may have been counted though nobody heard of it. ended: the one that was cut by the input's end is among
    those, so the input must not grow either. finished: all of it is acknowledged. path: where it is kept; None:
    nowhere.
    """

    path: Path | None
    url: str
    form: str
    batch: int
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    done: int = 0
    more: set[int] = field(default_factory=set)
    flows: int = 0
    consumed: int = 0
    digest: str = ""
    ended: bool = False
    finished: bool = False

    def is_done(self, number: int) -> bool:
        """Whether a batch was acknowledged."""
        return number < self.done or number in self.more

    def sending(self, batch: Batch) -> None:
        """A batch is going to be sent. Raises Refused where that cannot be kept: then it must not be."""
        self.ended = self.ended or batch.last
        if batch.consumed > self.consumed:
            self.consumed, self.digest = batch.consumed, batch.digest
        try:
            self.keep()
        except OSError as error:
            raise Refused(
                f"how far the file is posted cannot be kept at {self.path}: {error.strerror}. Say where by --state, or "
                "--no-resume to do without: then a run that breaks off cannot be gone on with"
            ) from None

    def acknowledged(self, batch: Batch) -> None:
        """A batch was acknowledged."""
        self.more.add(batch.number)
        self.flows += batch.flows
        while self.done in self.more:
            self.more.discard(self.done)
            self.done += 1
        with suppress(OSError):  # it is sent again under its key then
            self.keep()

    def finish(self) -> None:
        """All of it is acknowledged."""
        self.finished = True
        if self.consumed:
            self.keep()

    def keep(self) -> None:
        """Write it, so that it outlasts the machine. Raises OSError."""
        if self.path is None:
            return
        kept = _Kept(
            self.run, self.url, self.form, self.batch, self.done, sorted(self.more), self.flows, self.consumed,
            self.digest, self.ended, self.finished,
        )  # fmt: skip
        new = self.path.with_name(self.path.name + ".new")
        with new.open("wb") as file:
            file.write(msgspec.json.encode(kept) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def remove(self) -> None:
        """Forget it: all is posted."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def begin(
    path: Path | None, url: str, form: str, batch: int, digest_of: "Callable[[int], tuple[str, bool] | None]"
) -> Progress:
    """The progress to go on from. digest_of: of the input's first bytes, and whether it has more. Raises Refused."""
    if path is None:
        return Progress(None, url, form, batch)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Progress(path, url, form, batch)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}: how far the file was posted is not known") from None
    anew = f"To begin anew, and count what was posted a second time, remove {path}."
    try:
        kept = msgspec.json.decode(raw, type=_Kept)
    except msgspec.MsgspecError:
        raise Refused(f"{path} is damaged: how far the file was posted is not known. {anew}") from None
    if (kept.url, kept.form) != (url, form):
        was = json.dumps({"url": kept.url, "input": kept.form})
        raise Refused(f"the file was begun to be posted in another way: {was}. Go on in that way. {anew}")
    found = digest_of(kept.consumed)
    if found is None or found[0] != kept.digest or (kept.ended and found[1]):
        raise Refused(f"the file has changed in a part that was posted: going on could miscount flows. {anew}")
    return Progress(
        path, url, form, kept.batch, kept.run, kept.done, set(kept.more), kept.flows, kept.consumed, kept.digest,
        kept.ended, kept.finished,
    )  # fmt: skip


class Bar:
    """One line that tells how far it is, rewritten; nothing where nobody looks on. total: bytes, None: not known."""

    def __init__(self, name: str, total: int | None, out: TextIO = sys.stderr) -> None:
        self._name, self._total, self._out = name, total, out
        self._shown = out.isatty()
        self._began = time.monotonic()
        self._next = 0.0
        self.before = 0  # flows of runs before

    def show(self, flows: int, place: int, note: str = "", *, last: bool = False) -> None:
        """flows: acknowledged. place: in the input, in bytes. note: what it waits for."""
        now = time.monotonic()
        if not self._shown or (now < self._next and not last):
            return
        self._next = now + _BAR_SECONDS
        pace = (flows - self.before) / max(now - self._began, 1e-3)
        share = ""
        if self._total:
            part = min(1.0, place / self._total)
            full = round(24 * part)
            share = f" [{'#' * full}{' ' * (24 - full)}] {part:4.0%}"
        text = f"{self._name}{share}  {flows:,} flows  {pace:,.0f}/s{f'  {note}' if note else ''}"
        self._out.write(f"\r\033[K{text}" + ("\n" if last else ""))
        self._out.flush()
