"""A server that is hardly used looks for garbage in cycles all the same."""

import asyncio
import gc
import weakref
from typing import Any

import pytest
from flowagg.service import _TICKS_BETWEEN_COLLECTIONS, http_server
from flowagg.settings import HttpSettings
from uvicorn.server import Server


class Node:
    def __init__(self) -> None:
        self.itself = self


async def nothing(scope: Any, receive: Any, send: Any) -> None: ...


async def quiet(*_: Any) -> bool:
    return False


def test_cycles_go_within_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "on_tick", quiet)  # uvicorn's own
    server = http_server(nothing, HttpSettings())

    async def scenario() -> None:
        gc.collect()
        gc.disable()
        try:
            gone = weakref.ref(Node())
            for tick in range(1, _TICKS_BETWEEN_COLLECTIONS):
                await server.on_tick(tick)
            assert gone() is not None, "without it, it stays"
            await server.on_tick(_TICKS_BETWEEN_COLLECTIONS)
            assert gone() is None
        finally:
            gc.enable()

    asyncio.run(scenario())
