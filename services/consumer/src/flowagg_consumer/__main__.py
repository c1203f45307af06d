"""flowagg-consumer: the process."""

import signal
import sys
import threading
import uuid
from collections.abc import Sequence

from confluent_kafka import KafkaException
from flowagg.errors import FlowaggError
from flowagg.service import collect_less_often, http_server, operational_routes, start
from starlette.applications import Starlette

from flowagg_consumer.log import Log
from flowagg_consumer.settings import ConsumerSettings
from flowagg_consumer.store import Store
from flowagg_consumer.worker import Worker


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the consumer until SIGTERM or SIGINT."""
    settings = start(
        "consumer",
        ConsumerSettings,
        "Folds the log of flows into exact totals in Redis, each record exactly once.",
        arguments,
    )
    try:
        worker = Worker(settings, Log(settings), Store(settings), _new_id(), _new_id)
    except (FlowaggError, KafkaException) as error:
        sys.exit(f"flowagg-consumer: {error}")
    collect_less_often()
    server = http_server(Starlette(routes=operational_routes(worker.live, worker.ready)), settings)
    probes = threading.Thread(target=server.run, name="probes", daemon=True)
    probes.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    try:
        worker.run()
    finally:
        server.should_exit = True
        probes.join(timeout=2)


def _new_id() -> str:
    return uuid.uuid4().hex[:16]


if __name__ == "__main__":
    main()
