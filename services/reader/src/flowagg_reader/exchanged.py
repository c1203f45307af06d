"""A GET that is answered without a task, from the callbacks of the look-ups that it shares."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from flowagg.exchange import Exchange, Headers
from flowagg.kafka import KafkaUnavailable
from flowagg.position import Position
from flowagg.problem import fault
from starlette.types import Message

from flowagg_reader.core import Answer, Effect, FindBody, Look, LookUpEnd
from flowagg_reader.endpoint import ENDS, Asked, Flows, Get, asked_by, headers_of, is_plain, known_end, log_away
from flowagg_reader.hour import Seen
from flowagg_reader.union import EMPTY

_log = logging.getLogger(__name__)

_TARGET: Final = b"/flows?"


class Exchanges:
    """The endpoint GET /flows by exchanges."""

    def __init__(self, flows: Flows) -> None:
        self._flows = flows

    def read_head(self, method: bytes, target: bytes, headers: Headers) -> Asked | None:
        """What a GET's head says, where it is for an exchange."""
        if method != b"GET" or b"#" in target or not (target == _TARGET[:-1] or target.startswith(_TARGET)):
            return None
        raw_query = target[len(_TARGET) :]
        return asked_by(raw_query, headers) if not raw_query or is_plain(raw_query, headers) else None

    def begin(self, exchange: Exchange) -> None:
        """Answer one GET by its exchange."""
        Exchanged(self._flows, exchange).begin()


class Exchanged:
    """A GET by its exchange. What look-ups tell it comes by their callbacks; for all else it becomes a task."""

    def __init__(self, flows: Flows, exchange: Exchange) -> None:
        self._flows = flows
        self._exchange = exchange
        self._began = time.perf_counter()
        self._get: Get | None = None
        self._deadline: int | None = None
        self._until = 0.0  # by the loop's time

    def begin(self) -> None:
        """Answer it now or later."""
        flows, exchange = self._flows, self._exchange
        try:
            asked: Any = exchange.head
            get = flows.enter(asked)
        except Exception as error:
            self._refuse(error)
            return
        self._get = get
        flows.waiting += 1
        self._until = asyncio.get_running_loop().time() + flows.settings.get_timeout_seconds
        self._deadline = flows.deadlines.set(self._late)
        exchange.on_cancel = partial(self._refuse, ENDS)
        self._advance(partial(next, get.steps))

    def _advance(self, step: Callable[[], Effect]) -> None:
        """Take the next step, and those after it that need no wait."""
        flows, get = self._flows, self._get
        if get is None:
            return  # answered: the time was over
        try:
            effect = step()
            while isinstance(effect, FindBody):
                found = flows.find(effect)
                flows.take(get, found)
                effect = get.steps.send(found)
            match effect:
                case Look():
                    get.view.looks.future(effect).add_done_callback(self._looked)
                case LookUpEnd():
                    flows.ends.future().add_done_callback(self._ended)
                case _:
                    self._become_task(effect)
        except StopIteration as end:
            self._answer(get, end.value)
        except KafkaUnavailable as error:  # of ends.future alone: the core never raises it
            self._advance(partial(get.steps.throw, log_away(error)))
        except Exception as error:
            self._refuse(error)

    def _ended(self, future: "asyncio.Future[Position]") -> None:
        if self._get is None:
            return
        error = future.exception()
        if isinstance(error, KafkaUnavailable):
            self._advance(partial(self._get.steps.throw, log_away(error)))
        elif error is not None:
            self._refuse(error)
        else:
            self._advance(partial(self._get.steps.send, known_end(future.result())))

    def _looked(self, future: "asyncio.Future[Mapping[int, Seen]]") -> None:
        if self._get is None:
            return
        error = future.exception()
        if error is not None:
            self._refuse(error)
        else:
            self._advance(partial(self._get.steps.send, self._flows.looked(self._get, future.result())))

    def _become_task(self, effect: Effect) -> None:
        self._clear_deadline()
        self._exchange.run(self._go_on(effect))

    async def _go_on(self, effect: Effect) -> None:
        get = self._get
        if get is None:
            return  # the server's end came first
        try:
            async with asyncio.timeout_at(self._until):
                given = await self._flows.go_on(get, effect)
            sending = self._answer(get, given, in_task=True)
        except asyncio.CancelledError:
            self._refuse(ENDS)
        except Exception as error:
            self._refuse(error)
        else:
            if sending is not None:
                await sending

    def _answer(self, get: Get, given: Answer, *, in_task: bool = False) -> Awaitable[None] | None:
        """Answer, or what is to be awaited for it where the body is long and this is in a task."""
        flows, exchange = self._flows, self._exchange
        flows.settle(get, given)
        if given.held:
            self._observe(304)
            self._end()
            exchange.answer(304, _lines(given))
            return None
        self._observe(200)
        entry = get.entry
        body = EMPTY if entry is None else entry.body
        fields = b"%bcontent-length: %d\r\ncontent-type: application/json\r\n" % (_lines(given), body.size)
        if entry is None or len(body.chunks) == 1:
            self._end()
            exchange.answer(200, fields, body.chunks[0])
            return None
        if not exchange.is_encrypted:
            get.entry = None  # it is released when it is sent
            self._end()
            sending = exchange.send_long(200, fields, body.chunks, flows.settings.stall_seconds, entry.release)
            return self._waited_for(sending, in_task=in_task)
        sending = flows.sending(get, headers_of(given))({}, _nothing_to_receive, exchange.send)
        self._end()
        return self._waited_for(sending, in_task=in_task)

    def _waited_for(self, sending: Awaitable[None] | None, *, in_task: bool) -> Awaitable[None] | None:
        if in_task or sending is None:
            return sending
        self._exchange.run(sending)
        return None

    def _refuse(self, error: BaseException) -> None:
        exchange = self._exchange
        if exchange.response_started:
            return
        try:
            problem = self._flows.problem(error, None if self._get is None else self._get.view)
        except BaseException:
            _log.exception("a GET failed", extra={"request_id": exchange.request_id})
            problem = fault()
        self._observe(problem.status)
        exchange.respond(problem.response())
        self._end()

    def _late(self) -> None:
        self._refuse(TimeoutError())

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._flows.deadlines.clear(self._deadline)

    def _observe(self, status: int) -> None:
        self._flows.observe(status, self._began)

    def _end(self) -> None:
        """Nothing more is done for it but sending."""
        get, self._get = self._get, None
        self._clear_deadline()
        if get is not None:
            self._flows.waiting -= 1
            get.release()
            get.steps.close()


async def _nothing_to_receive() -> Message:
    return {"type": "http.disconnect"}


def _lines(given: Answer) -> bytes:
    """As headers_of, as lines."""
    return b"".join(b"%b: %b\r\n" % (n.lower().encode(), v.encode()) for n, v in headers_of(given).items())
