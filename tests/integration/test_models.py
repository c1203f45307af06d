"""The simulation's model of Redis is pinned to the real one: the same commands, the same answers, the same dump."""

import random
from typing import Any

import pytest
import redis
from flowagg.flow import encode_key, encode_value
from flowagg.view import DamagedView, HourMark, encode_hour
from flowagg_consumer import effects as fx
from flowagg_consumer.partition import HourTotals
from flowagg_consumer.retention import Expiry
from flowagg_consumer.settings import ConsumerSettings
from flowagg_consumer.store import Store
from flowagg_stack.embedded import Server

from tests.simulation.redis_model import Node


def commands(seed: int) -> list[fx.Command]:
    """A scripted mixture of good, stale and foreign commands on three partitions."""
    rng = random.Random(seed)
    position = {0: 0, 1: 0, 2: 0}
    made: list[fx.Command] = []
    for step in range(60):
        number = rng.randrange(3)
        kind = rng.choice(
            ["begin", "apply", "apply", "apply", "stale", "diverge", "load", "positions", "totals", "marks", "hours"]
        )
        if kind == "begin":
            made.append(fx.Begin(number, rng.choice([0, 0, 7]), f"t{rng.randrange(2)}", f"i{rng.randrange(2)}"))
        elif kind in ("apply", "stale"):
            expected = position[number] if kind == "apply" else position[number] + 1
            made.append(_apply(rng, number, expected, step))
            if kind == "apply":
                position[number] = expected + 3
        elif kind == "diverge":
            stale = rng.random() < 0.5
            made.append(fx.Diverge(number, position[number] + stale, "t0", "i0", f"at {step}: caf\u00e9"))
        elif kind == "load":
            made.append(fx.Load([0, 1, 2]))
        elif kind == "positions":
            made.append(fx.ReadPositions([0, 1, 2]))
        elif kind == "totals":
            made.append(fx.ReadTotals(number, "i0", [(h, [_field(n) for n in range(3)]) for h in range(2)]))
        elif kind == "hours":
            made.append(fx.ReadHours(number, rng.choice(["i0", "i1"])))
        else:
            made.append(fx.ReadMarks(number, "i0", ["k0", "k1", "k2"], list(range(5))))
    return made


def _field(number: int) -> bytes:
    return encode_key(f"a{number}", "b", "c", 0).replace(b",0]", b"]")


def _apply(rng: random.Random, number: int, expected: int, step: int) -> fx.Apply:
    pairs = [part for n in range(rng.randint(1, 3)) for part in (_field(n), encode_value(step, n))]
    return fx.Apply(
        partition=number,
        expected=expected,
        topic_id=f"t{rng.randrange(2) if rng.random() < 0.2 else 0}",
        incarnation="i0",
        position=expected + 3,
        leader_epoch=rng.randrange(3),
        time=step,
        writer=f"w{rng.randrange(2)}",
        hours=[
            HourTotals(hour, encode_hour(HourMark(step, rng.choice([-1, step]))), pairs)
            for hour in rng.sample(range(3), rng.randint(0, 2))
        ],
        marks={bucket: [f"k{rng.randrange(3)}", b"d 0-1"] for bucket in rng.sample(range(5), rng.randint(0, 2))},
        expired=rng.sample(range(5), rng.randint(0, 2)),
        lost=rng.choice([None, None, None, "5-9"]),
        expiry=rng.choice([None, None, Expiry(step, rng.randrange(3), [rng.randrange(3)], {1: HourMark(step, step)})]),
    )


@pytest.mark.parametrize("script_writes", [10**9, 2, -1], ids=["scripts", "both", "transactions"])
@pytest.mark.parametrize("seed", range(20))
def test_the_same_commands_on_the_model_and_on_redis(seed: int, script_writes: int, redis_server: Server) -> None:
    view = f"pinned-{seed}-{script_writes}"
    store = Store(ConsumerSettings(redis_url=f"redis://{redis_server.address}/0", view=view), script_writes)
    model = Node("model", {})
    try:
        for command in commands(seed):
            store.send(command)
            assert _plain(store.receive()) == _plain(model.execute(view, command)), command
    finally:
        store.close()
    with redis.Redis.from_url(f"redis://{redis_server.address}/0") as raw:
        dump = {key.decode(): raw.hgetall(key) for key in raw.keys(f"flowagg:{{{view}:*")}
    assert dump == {key: fields for key, fields in model.data.items() if fields}


def _plain(answer: Any) -> Any:
    """Errors compare by kind."""
    if isinstance(answer, dict):
        return {key: _plain(value) for key, value in answer.items()}
    if isinstance(answer, tuple):
        return [_plain(part) for part in answer]
    return type(answer) if isinstance(answer, DamagedView) else answer
