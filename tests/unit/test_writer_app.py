"""What the writer answers, with a log that only says how it went."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest
from flowagg.kafka import KafkaUnavailable
from flowagg.position import Position
from flowagg_writer.accepted import accepted_body
from flowagg_writer.app import create_app
from flowagg_writer.batch import Batch, KeyReused
from flowagg_writer.log import Appending, Log, LogFull, NotAppended, TooFewPartitions
from flowagg_writer.parcels import ParcelBatch
from flowagg_writer.settings import WriterSettings

from tests.exchanges import TRANSPORTS

FLOW = {"src_app": "a", "dest_app": "b", "vpc_id": "c", "hour": 1, "bytes_tx": 1, "bytes_rx": 2}
NOTHING = "Nothing was kept: why."


@dataclass
class Told:
    """As Appending."""

    count: int
    error: NotAppended | None

    def answer(self) -> bytes:
        if self.error is not None:
            raise self.error
        return accepted_body(self.count, Position("topic", {}))


class FakeLog:
    """Raises what it is given, and keeps the batches that it gets."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.batches: list[Batch | ParcelBatch] = []

    async def append(self, batch: Batch | ParcelBatch, timeout_seconds: float) -> Position:
        self.batches.append(batch)
        if self.error is not None:
            raise self.error
        return Position("topic", {})

    def begin(self, batch: Batch | ParcelBatch, ended: Callable[[Appending], None]) -> None:
        """As append; what may have been appended is told later."""
        self.batches.append(batch)
        if self.error is not None and not isinstance(self.error, NotAppended):
            raise self.error
        told = Told(batch.count, self.error)
        asyncio.get_running_loop().call_soon(ended, cast(Appending, told))


WAY = "by ASGI"


@pytest.fixture(autouse=True, params=list(TRANSPORTS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test goes both ways."""
    monkeypatch.setitem(globals(), "WAY", request.param)


def post(log: FakeLog, *keys: str, flows: Any = (FLOW,), **settings: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = TRANSPORTS[WAY](create_app(WriterSettings(**settings), cast(Log, log)))
        async with httpx.AsyncClient(transport=transport, base_url="http://writer") as client:
            return await client.post("/flows", json=flows, headers=[(b"Idempotency-Key", key.encode()) for key in keys])

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (KeyReused("why"), 422, NOTHING),
        (
            KafkaUnavailable("broker-7:9092 is away"),
            503,
            "Nothing was kept: Kafka, which keeps the log, takes no records now: send the same again later.",
        ),
        (TooFewPartitions("why"), 503, NOTHING),
        (LogFull("why"), 503, NOTHING),
        (
            NotAppended("why"),
            503,
            "why. Some records may have been kept: "
            "send the same batch again with the same Idempotency-Key, and it counts once.",
        ),
    ],
)
def test_a_keyed_batch_that_failed_says_whether_anything_was_kept_and_what_to_do(
    error: Exception, status: int, detail: str
) -> None:
    reply = post(FakeLog(error), "k")
    assert (reply.status_code, reply.json()["detail"]) == (status, detail)
    assert reply.headers.get("retry-after") == ("1" if status == 503 else None)


def test_without_a_key_a_batch_that_failed_in_the_middle_warns_of_counting_twice() -> None:
    assert "may count them twice" in post(FakeLog(NotAppended("why"))).json()["detail"]


@pytest.mark.parametrize(
    ("keys", "detail"),
    [
        (("",), "Nothing was kept: an Idempotency-Key has 1 to 128 printable ASCII characters."),
        (("k" * 129,), "Nothing was kept: an Idempotency-Key has 1 to 128 printable ASCII characters."),
        (("é",), "Nothing was kept: an Idempotency-Key has 1 to 128 printable ASCII characters."),
        (("a", "a"), "Nothing was kept: send one Idempotency-Key, not several."),
        (("a", ""), "Nothing was kept: send one Idempotency-Key, not several."),
    ],
)
def test_a_key_that_cannot_be_kept_reaches_no_log(keys: tuple[str, ...], detail: str) -> None:
    log = FakeLog()
    reply = post(log, *keys)
    assert (reply.status_code, reply.json()["detail"]) == (400, detail)
    assert log.batches == []


@pytest.mark.parametrize(("keys", "key"), [((), None), (("k",), "k"), (("k, 2",), "k, 2")])
def test_the_key_and_the_fixed_number_of_partitions_reach_the_log(keys: tuple[str, ...], key: str | None) -> None:
    log = FakeLog()
    assert post(log, *keys, keyed_partitions=3).status_code == 200
    assert [(batch.key, batch.partitions_needed) for batch in log.batches] == [(key, 1 if key is None else 3)]


@pytest.mark.parametrize("keys", [(), ("k",)])
def test_a_batch_past_the_limit_reaches_no_log(keys: tuple[str, ...]) -> None:
    log = FakeLog()
    assert post(log, *keys, flows=[FLOW] * 9, max_flows=8).status_code == 413
    assert log.batches == []


@pytest.mark.parametrize(
    ("keys", "flow", "native", "kind"),
    [
        ((), FLOW, True, ParcelBatch),
        ((), FLOW, False, Batch),
        (("k",), FLOW, True, Batch),
        ((), FLOW | {"more": 1}, True, Batch),
        ((), FLOW | {"src_app": "é"}, True, Batch),
    ],
)
def test_plain_bodies_without_a_key_are_read_by_the_library(
    keys: tuple[str, ...], flow: dict[str, Any], native: bool, kind: type
) -> None:
    log = FakeLog()
    assert post(log, *keys, flows=[flow] * 9, native=native).json()["accepted"] == 9
    assert post(log, *keys, flows=[flow], native=native).json()["accepted"] == 1
    assert [(type(batch), batch.count) for batch in log.batches] == [(kind, 9), (kind, 1)]
