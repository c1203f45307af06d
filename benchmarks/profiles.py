"""Flame graphs of the hot loops, by py-spy: what the services' Python does with its time under full load.

    make bench-profiles [SECONDS=10]

A real Kafka and a real Redis on this machine. Each service is recorded while it is kept busy: the consumer with a log
that is there, the writer by POSTs of 1 and of 1,000 flows, the reader by GETs of an hour of 10,000 flow keys, whole
(warm) and not modified (304). Writes docs/assets/flame-*.svg. The time of C code is that of the Python line that called
it; threads of librdkafka are not seen.
"""

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import msgspec
from flowagg_load.generator import Shape
from flowagg_stack import provision
from flowagg_stack.embedded import Server, start_redis_binary
from flowagg_stack.processes import Processes, wait_until
from flowagg_stack.services import Service, start_service

from benchmarks.hot_paths.consumer import fill
from benchmarks.http.common import JSON, OTHER_CORES, SERVER_CORE, bodies, kafka_here, on_cores, run_wrk

ASSETS: Final = Path(__file__).parents[1] / "docs" / "assets"
HOUR: Final = 1_000_000
_KEYS: Final = 10_000
_FLOWS: Final = 4_000_000
_TITLE: Final = re.compile('(<text id="title"[^>]*>)[^<]*')
"""Of a recording; py-spy puts its command line there."""
_RATE: Final = 500
"""samples a second"""
_SETTLE_SECONDS: Final = 1.0
_POST_CONNECTIONS: Final = {1: 64, 1000: 16}
_GET_CONNECTIONS: Final = {"warm": 4, "304": 16}


def main() -> None:
    """Record all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="of each recording")
    parser.add_argument("--only", choices=["consumer", "writer", "reader"])
    given = parser.parse_args()
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        sys.exit("py-spy is missing: uv sync --group profiles")
    provision.provision(print)
    provision.provision_wrk(print)
    record = partial(_record, spy, given.seconds)
    for name, recorded in (("consumer", _consumer), ("writer", _writer), ("reader", _reader)):
        if given.only in (None, name):
            with on_cores(OTHER_CORES):
                recorded(record, given.seconds)


Record = Callable[[str, Service], None]


def _record(spy: str, seconds: int, name: str, service: Service) -> None:
    """Record a service that is busy; docs/assets/flame-NAME.svg."""
    ASSETS.mkdir(parents=True, exist_ok=True)
    file = ASSETS / f"flame-{name}.svg"
    command = [spy, "record", "--pid", str(service.child.process.pid), "--duration", str(seconds)]
    command += ["--rate", str(_RATE), "--format", "flamegraph", "--function", "--output", str(file), "--nonblocking"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0 or not file.is_file():
        sys.exit(f"py-spy could not record {name}:\n{done.stderr[-2000:]}")
    # Paths of this machine are nobody's business.
    text = file.read_text(encoding="utf-8").replace(f"{ASSETS.parents[1]}/", "")
    file.write_text(_TITLE.sub(rf"\g<1>{name}: samples of its Python", text), encoding="utf-8")
    print(f"written: {file.relative_to(ASSETS.parents[1])}", flush=True)


@contextlib.contextmanager
def _busy(work: Callable[[], object]) -> Iterator[None]:
    """Work in another thread, which has begun a moment ago; its end is waited for."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        time.sleep(_SETTLE_SECONDS)
        yield
    finally:
        thread.join()


def _redis_here(processes: Processes, kafka: Server) -> dict[str, str]:
    redis = start_redis_binary(processes, provision.redis_server())
    return {
        "FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address,
        "FLOWAGG_REDIS_URL": f"redis://{redis.address}/0",
        "FLOWAGG_VIEW": "bench",
    }


def _consumer(record: Record, _: int) -> None:
    with kafka_here() as (processes, kafka, _directory):
        settings = _redis_here(processes, kafka)
        fill(kafka.address, _FLOWS, Shape(keys=100_000))
        with on_cores(SERVER_CORE):
            service = start_service(processes, "consumer", settings)
        wait_until(lambda: service.running_partitions() > 0, "it has begun", 60, [service.child], 0.01)
        record("consumer", service)


def _writer(record: Record, seconds: int) -> None:
    with kafka_here() as (processes, kafka, directory):
        with on_cores(SERVER_CORE):
            service = start_service(processes, "writer", {"FLOWAGG_KAFKA_BOOTSTRAP_SERVERS": kafka.address})
        service.wait_ready()
        for flows, connections in _POST_CONNECTIONS.items():
            file = directory / f"{flows}.bodies"
            file.write_bytes(b"\n".join(bodies(flows)) + b"\n")
            posts = partial(run_wrk, f"{service.url}/flows", seconds + 3, connections, str(file))
            with _busy(posts):
                record(f"writer-{flows}", service)


def _reader(record: Record, seconds: int) -> None:
    with kafka_here() as (processes, kafka, _directory):
        settings = _redis_here(processes, kafka)
        writer = start_service(processes, "writer", settings)
        consumer = start_service(processes, "consumer", settings)
        with on_cores(SERVER_CORE):
            service = start_service(processes, "reader", settings)
        for one in (writer, consumer, service):
            one.wait_ready()
        flows = [
            {
                "src_app": f"app-{n}",
                "dest_app": f"svc-{n % 50}",
                "vpc_id": "v",
                "hour": HOUR,
                "bytes_tx": n,
                "bytes_rx": 1,
            }
            for n in range(_KEYS)
        ]
        posted = httpx.post(f"{writer.url}/flows", content=msgspec.json.encode(flows), headers=JSON, timeout=60)
        after = json.loads(posted.content)["position"]
        url = f"{service.url}/flows?hour={HOUR}"

        def applied() -> httpx.Response | None:
            found = httpx.get(f"{url}&consistency=strict&after={after}", timeout=60)
            return found if found.status_code == 200 else None

        wait_until(lambda: applied() is not None, "the hour is there", 60, [service.child])
        tag = httpx.get(f"{url}&consistency=eventual", timeout=60).headers["etag"]
        for kind, connections in _GET_CONNECTIONS.items():
            headers = {"If-None-Match": tag} if kind == "304" else {}
            gets = partial(run_wrk, f"{url}&consistency=eventual", seconds + 3, connections, headers=headers)
            with _busy(gets):
                record(f"reader-{kind}", service)


if __name__ == "__main__":
    main()
