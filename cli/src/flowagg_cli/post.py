"""`flowagg post`: send flows from files or standard input, each exactly once, whatever ends the command on its way."""

import argparse
import gzip
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from flowagg.openapi_parts import Limits

from flowagg_cli.api import ApiAway, ApiError, add_address, api_of, problem_of
from flowagg_cli.batches import FORMATS, STDIN, BadRecord, Batch, batches, format_of, opened, unpacked_digest
from flowagg_cli.errors import CommandError, WrongUsage
from flowagg_cli.progress import SUFFIX, Bar, Progress, begin

_REPEATED: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Answers after which the same batch is sent again: under its key it counts once."""
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 5.0
_GZIP_LEVEL: Final = 1
_SHOWN_SECONDS: Final = 0.1
_FORMS: Final = """\
Formats: ndjson (one flow in JSON a line), json (an array), csv (a first line with the names of the six fields). By the
file's name unless --format says it; gzip is seen by itself.

A file that was begun is gone on with by the same command: how far it is stands in FILE.flowagg-post beside it until
all is posted, and batches go out under Idempotency-Keys of their own, so none counts twice (for 24 hours of the log's
time, FLOWAGG_DEDUPE_WINDOW_SECONDS of the system). Standard input cannot be gone on with.

exit codes: 0 all is acknowledged; 1 the system cannot be reached or refuses; 2 the command line is wrong; 3 refused, as
it could miscount flows; 130 interrupted.
"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `post` to the command line."""
    parser = subparsers.add_parser(
        "post",
        help="send flows from files",
        description="Sends flows from files, each exactly once.",
        epilog=_FORMS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", default=[STDIN], metavar="FILE", help="files; - or none: standard input")
    parser.add_argument("--format", choices=FORMATS, help="of the files; default: by their names, ndjson for -")
    add_posting(parser)
    parser.set_defaults(run=_run)


def add_posting(parser: argparse.ArgumentParser) -> None:
    """Add the options of whatever posts."""
    add_address(parser)
    parser.add_argument(
        "--batch", type=_batch, default=20_000, metavar="N", help="flows a POST, at most 100000 (default: 20000)"
    )
    parser.add_argument(
        "--connections", type=_connections, default=2, metavar="N", help="POSTs at a time, at most 64 (default: 2)"
    )
    parser.add_argument("--gzip", action="store_true", help="send bodies by gzip: a tenth of the bytes, more CPU time")
    parser.add_argument(
        "--patience", type=float, default=300.0, metavar="SECONDS",
        help="how long a batch is tried for while the system is away or busy (default: 300)",
    )  # fmt: skip
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--state", type=Path, metavar="PATH", help=f"where it is kept how far it is; default: FILE{SUFFIX}"
    )
    kept.add_argument("--no-resume", action="store_true", help="keep nothing; a run that breaks off cannot go on")
    parser.add_argument("--check", action="store_true", help="only look whether all records are good; send nothing")
    parser.add_argument("--json", action="store_true", help="one JSON document with the figures, for scripts")


def _run(given: argparse.Namespace) -> int:
    forms = {name: format_of(name, given.format) for name in given.files}
    return post_files(
        given, given.files, lambda name, file, size: batches(name, file, forms[name], size), forms.__getitem__
    )


def post_files(
    given: argparse.Namespace,
    names: list[str],
    cut: Callable[[str, BinaryIO, int], Iterator[Batch]],
    form_of: Callable[[str], str],
) -> int:
    """Post files. cut: into batches of a size. form_of: how a file is read: it must stay so in later runs."""
    if given.state is not None and len(names) > 1:
        raise WrongUsage("--state is for one file")
    if names.count(STDIN) > 1:
        raise WrongUsage("standard input can be read once")
    if len(set(names)) < len(names):
        raise WrongUsage("a file stands twice")
    if given.state is not None and STDIN in names:
        raise WrongUsage("standard input cannot be gone on with: leave --state out")
    began = time.monotonic()
    flows = 0
    postings: list[_Posting] = []
    for name in names:
        try:
            if given.check:
                with opened(name) as file:
                    flows += sum(batch.flows for batch in cut(name, file, given.batch))
            else:
                postings.append(_Posting(given, name, form_of(name)))
                flows += postings[-1].run(cut)
        except OSError as error:
            raise CommandError(f"{name}: {error.strerror or error}") from error
    for posting in postings:  # not before all are through: the same command must know of each that is
        posting.forget()
    seconds = time.monotonic() - began
    if given.json:
        print(msgspec.json.encode({"flows": flows, "seconds": round(seconds, 3), "checked": given.check}).decode())
    else:
        print(f"{flows:,} flows {'are good' if given.check else 'acknowledged'}, {seconds:.1f} s")
    return 0


class _Posting:
    """One file on its way."""

    def __init__(self, given: argparse.Namespace, name: str, form: str) -> None:
        self._given = given
        self._name = name
        self._api = api_of(given, given.connections)
        path = given.state or (None if name == STDIN else Path(f"{name}{SUFFIX}"))
        if given.no_resume:
            path = None
        self._progress = begin(path, self._api.url, form, given.batch, lambda length: unpacked_digest(name, length))
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._note = ""

    def forget(self) -> None:
        """What was kept of how far it is goes."""
        self._progress.remove()

    def run(self, cut: Callable[[str, BinaryIO, int], Iterator[Batch]]) -> int:
        """Send all batches that are not acknowledged yet; the number of flows, those of runs before among them.

        Raises CommandError.
        """
        progress, given = self._progress, self._given
        if progress.finished:
            return progress.flows
        bar = Bar(self._name, _size(self._name))
        bar.before = progress.flows
        under_way: set[Future[None]] = set()

        def wait_for(most: int, file: BinaryIO) -> None:
            """Until no more are under way. Raises what one of them has ended by."""
            nonlocal under_way
            while len(under_way) > most:
                ended, under_way = wait(under_way, _SHOWN_SECONDS, FIRST_COMPLETED)
                bar.show(progress.flows, _place(file, progress), self._note)
                for future in ended:
                    future.result()

        with ThreadPoolExecutor(given.connections, "post") as pool, opened(self._name) as file:
            try:
                for batch in cut(self._name, file, progress.batch):
                    if not progress.is_done(batch.number):
                        wait_for(2 * given.connections - 1, file)
                        with self._lock:
                            progress.sending(batch)
                        under_way.add(pool.submit(self._send, batch))
                wait_for(0, file)
            except BadRecord:
                wait_for(0, file)  # what is before it is told
                raise
            except BaseException:
                self._stop.set()  # no further tries; what has been sent is waited for, and kept
                raise
        bar.show(progress.flows, progress.consumed, last=True)
        progress.finish()
        return progress.flows

    def _send(self, batch: Batch) -> None:
        headers = {
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": f"{self._progress.run}-{batch.number}",
        }
        if self._stop.is_set():
            return
        body = batch.body
        if self._given.gzip:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
        deadline = time.monotonic() + self._given.patience
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                reply = self._api.ask("POST", "/flows", headers=headers, body=body)
            except ApiAway as error:
                failure: CommandError = error
                wanted = 0.0
            else:
                if reply.status == 200:
                    with self._lock:
                        self._note = ""
                        self._progress.acknowledged(batch)
                    return
                failure, wanted = problem_of(reply), _retry_after(reply.headers.get("retry-after"))
                if reply.status not in _REPEATED:
                    raise self._refused(failure, batch) from None
            # As long as it waits the batch is nobody's loss: the next run sends it under the same key.
            wait = max(wanted, pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            if time.monotonic() + wait > deadline or self._stop.is_set():
                raise CommandError(f"{failure} {self._how_to_go_on()}") from failure
            self._note = f"waiting: {failure}"
            self._stop.wait(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _refused(self, failure: ApiError, batch: Batch) -> CommandError:
        place = ""
        if failure.index is not None and failure.index < batch.flows:
            place = f", line {batch.lines[failure.index]}"
        return CommandError(f"{self._name}{place}: {failure} {self._how_to_go_on()}")

    def _how_to_go_on(self) -> str:
        done = f"{self._progress.flows:,} flows are acknowledged."
        if self._progress.path is None:
            return f"{done} How far that is was not kept: a new run would count them again."
        return f"{done} The same command goes on from there."


def _place(file: BinaryIO, progress: Progress) -> int:
    """How far the file is read, in bytes of its own."""
    raw: Any = file
    with suppress(AttributeError, OSError, ValueError):
        return int(getattr(raw, "fileobj", raw).tell())  # of a gzip file, what it is read from
    return progress.consumed


def _size(name: str) -> int | None:
    if name == STDIN:
        return None
    with suppress(OSError):
        return Path(name).stat().st_size
    return None


def _retry_after(value: str | None) -> float:
    return float(value) if value is not None and value.isdigit() else 0.0


def _batch(text: str) -> int:
    return _whole(text, Limits().max_flows)


def _connections(text: str) -> int:
    return _whole(text, 64)


def _whole(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most}, not {text!r}")
    return int(text)
