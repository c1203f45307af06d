"""The bare produce loop that the writer is compared with: one process, one line of JSON.

    bare.py BOOTSTRAP_SERVERS SECONDS

The records of the 1,000-flow POSTs, encoded before; the writer's producer properties, positional arguments
and a delivery callback that counts and remembers how far each partition has come; Python's garbage collection as the
services have it. No HTTP, no JSON.
"""

import gc
import json
import sys
import time
from collections import deque
from itertools import repeat
from typing import Any, Final

from common import batches
from confluent_kafka import KafkaError, Message, Producer
from flowagg.flow import encode_key, encode_value

_IN_FLIGHT: Final = 20_000  # as 16 connections with a POST each and some


def main(address: str, seconds: float) -> None:
    """Produce for so long; print flows, seconds, CPU seconds and errors."""
    producer = Producer(
        {
            "bootstrap.servers": address,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 2,
            "queue.buffering.max.messages": 0,
        }
    )
    encoded = [
        (
            [encode_key(f.src_app, f.dest_app, f.vpc_id, f.hour) for f in batch],
            [encode_value(f.bytes_tx, f.bytes_rx) for f in batch],
        )
        for batch in batches(1000)
    ]
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    reported = errors = 0
    last: dict[int | None, Message] = {}

    def delivered(error: KafkaError | None, message: Message) -> None:
        nonlocal reported, errors
        if error is None:
            last[message.partition()] = message
        else:
            errors += 1
        reported += 1

    produce: Any = producer.produce
    produce("flows", encoded[0][1][0], encoded[0][0][0], -1, delivered)
    assert producer.flush(30) == 0
    reported = turn = 0
    began, cpu_began = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        keys, values = encoded[turn % len(encoded)]
        deque(map(produce, repeat("flows"), values, keys, repeat(-1), repeat(delivered)), maxlen=0)
        turn += 1
        producer.poll(0)
        while len(producer) > _IN_FLIGHT:
            producer.poll(0.001)
    assert producer.flush(60) == 0
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    print(json.dumps({"flows": reported, "seconds": wall, "cpu_seconds": cpu, "errors": errors}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
