"""Which faults strike."""

from itertools import islice

from tests.soak.pace import SPARED, faults, kinds


def test_a_seed_tells_the_faults_and_their_pace() -> None:
    first = list(islice(faults(1), 250))
    assert first == list(islice(faults(1), 250))
    assert first != list(islice(faults(2), 250))
    assert [fault.number for fault in first] == list(range(1, 251))
    assert all(15 <= fault.pause_seconds <= 45 for fault in first)


def test_every_service_keeps_a_process_that_nothing_ends() -> None:
    for kind in kinds():
        if kind.name.startswith(("kill", "SIGTERM")):
            assert not set(kind.victims) & set(SPARED.values())
            assert not any(victim.startswith(("active", "other")) for victim in kind.victims)


def test_parts_end_hang_and_lose_their_ways_but_never_all_at_once() -> None:
    names = {kind.name for kind in kinds()}
    assert {"kill -9 consumer", "SIGSTOP writer", "kill -9 redis master", "stale redis master"} <= names
    assert {"black hole to kafka", "resets to redis", "SIGTERM reader", "kill -9 broker"} <= names
    assert not {name for name in names if "everything" in name or "disk" in name}
