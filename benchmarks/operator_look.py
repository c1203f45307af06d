"""What a look at Kafka and a scaling decision cost the operator.

    make bench-look [PARTITIONS=100]

A real Kafka broker with a topic of so many partitions, records in each, and a group of three members that has
committed; then looks as the operator makes them, one after another, and decisions on 1,000 partitions.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from confluent_kafka import Consumer, Producer, TopicPartition
from flowagg.settings import KafkaSettings
from flowagg_operator.kafka_look import KafkaClient
from flowagg_operator.lag import History, Snapshot
from flowagg_operator.scaling import decide
from flowagg_operator.scaling_terms import Observation, Policy, State
from flowagg_operator.spec import Topic
from flowagg_stack.apache_kafka import start_kafka
from flowagg_stack.processes import Processes, wait_until

BAR_LOOK_SECONDS, BAR_DECISION_SECONDS = 1.0, 0.005
_GROUP: Final = "flowagg-default"
_LOOKS: Final = 50
_MANY: Final = 1_000
_DECISIONS: Final = 200


def main() -> None:
    """Measure, print, and say which bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=100)
    given = parser.parse_args()
    looks = _looks(given.partitions)
    decisions = _decisions()
    print(f"{'':44}{'p50':>10}{'max':>10}{'bar':>8}")
    print(f"a look at {given.partitions} partitions of a real broker, s".ljust(44), end="")
    print(f"{statistics.median(looks):10.3f}{max(looks):10.3f}{BAR_LOOK_SECONDS:8g}")
    print(f"a decision on {_MANY:,} partitions, ms".ljust(44), end="")
    median = statistics.median(decisions)
    print(f"{median * 1e3:10.2f}{max(decisions) * 1e3:10.2f}{BAR_DECISION_SECONDS * 1e3:8g}")
    missed = [
        name
        for name, misses in (("look", max(looks) > BAR_LOOK_SECONDS), ("decision", median > BAR_DECISION_SECONDS))
        if misses
    ]
    print(f"missed: {', '.join(missed)}" if missed else "both bars hold")
    sys.exit(bool(missed))


def _looks(partitions: int) -> list[float]:
    topic = Topic(partitions=partitions, keyed_partitions=6)
    with tempfile.TemporaryDirectory(prefix="flow-aggregator-bench-") as name, Processes(Path(name)) as processes:
        kafka = start_kafka(processes, Path(name))
        client = KafkaClient(KafkaSettings(kafka_bootstrap_servers=kafka.address))
        wait_until(lambda: client.look(topic, _GROUP, time.monotonic).snapshot is not None, "a first look", 60)
        producer = Producer({"bootstrap.servers": kafka.address})
        for number in range(100 * partitions):
            producer.produce(topic.name, b"record", partition=number % partitions)
            producer.poll(0)
        producer.flush()
        members = [_member(kafka.address, topic.name) for _ in range(3)]
        deadline = time.monotonic() + 60
        while not all(0 < len(member.assignment()) <= partitions // len(members) + 1 for member in members):
            assert time.monotonic() < deadline, "the group did not settle within 60 s"
            for member in members:
                member.consume(100, 0.1)
        for member in members:
            own = [TopicPartition(topic.name, part.partition, 50) for part in member.assignment()]
            member.commit(offsets=own, asynchronous=False)
        times = []
        for _ in range(_LOOKS):
            began = time.perf_counter()
            found = client.look(topic, _GROUP, time.monotonic)
            times.append(time.perf_counter() - began)
            assert found.snapshot is not None, found.trouble
            assert len(found.snapshot.high) == partitions
            assert found.snapshot.members is not None
            assert sum(map(len, found.snapshot.members.values())) == partitions
        for member in members:
            member.close()
        client.close()
        return times


def _member(address: str, topic: str) -> Consumer:
    member = Consumer({"bootstrap.servers": address, "group.id": _GROUP, "auto.offset.reset": "earliest"})
    member.subscribe([topic])
    return member


def _decisions() -> list[float]:
    """Twelve consumers with a backlog: the way through the decision that costs most."""
    policy, state, history = Policy(max_replicas=_MANY), State(), History()
    owners = {partition: f"consumer-{partition % 12}" for partition in range(_MANY)}
    times = []
    for number in range(_DECISIONS):
        at = 5.0 * number
        committed = dict.fromkeys(range(_MANY), 400 * number)
        high = dict.fromkeys(range(_MANY), 500 * number + 1000)
        began = time.perf_counter()
        history = history.after(Snapshot(at, committed, dict.fromkeys(high, 0), high))
        seen = Observation(at, 12, 12, 12, 12, history, group="Stable", members=12, owners=owners)
        state = decide(seen, policy, state).state
        times.append(time.perf_counter() - began)
    return times[20:]


if __name__ == "__main__":
    main()
