"""What makes a process a service: its command line, its probes and its HTTP server."""

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.metadata import version
from typing import TypeVar

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from flowagg.settings import InvalidSettings, Settings, describe
from flowagg.telemetry import configure_logging

_log = logging.getLogger(__name__)
_S = TypeVar("_S", bound=Settings)

Checks = dict[str, str]
"""What a probe looks at -> "ok" or what is wrong and what to do."""
OK = "ok"


def start(service: str, settings_class: type[_S], summary: str, arguments: Sequence[str] | None = None) -> _S:
    """Read the command line and the settings; set up logging. Ends the process where they are wrong."""
    distribution = f"flowagg-{service}"
    parser = argparse.ArgumentParser(
        prog=distribution,
        description=summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="settings, from the environment (NAME_FILE may name a file that holds the value of NAME):\n\n"
        + describe(settings_class),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version(distribution)}")
    parser.parse_args(arguments)
    try:
        settings = settings_class.read()
    except InvalidSettings as error:
        sys.exit(
            f"{distribution}: the settings are wrong:\n  "
            + str(error).replace("\n", "\n  ")
            + f"\nAll settings: {distribution} --help"
        )
    configure_logging(service, settings.log_level)
    _log.info("starting", extra={"version": version(distribution), "settings": settings.public()})
    return settings


def operational_routes(live: Callable[[], Checks], ready: Callable[[], Checks]) -> list[Route]:
    """/livez, /readyz and /metrics. A check that is not "ok" makes the probe answer 503.

    A service whose one event loop both works and answers needs no live check: no answer is the failure.
    """

    def probe(checks: Callable[[], Checks]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(_: Request) -> Response:
            found = checks()
            well = all(state == OK for state in found.values())
            body = msgspec.json.format(msgspec.json.encode({"status": OK if well else "failing", "checks": found}))
            return Response(body + b"\n", 200 if well else 503, media_type="application/json")

        return endpoint

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [
        Route("/livez", probe(live)),
        Route("/readyz", probe(ready)),
        Route("/metrics", metrics),
    ]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            # uvicorn would raise the signal again now; an orderly end has exit status 0.
            self._captured_signals.clear()

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        for server in self.servers:
            for socket in server.sockets:
                _log.info("listening", extra={"address": "{}:{}".format(*socket.getsockname()[:2])})


def http_server(app: ASGIApp, settings: Settings, **options: int) -> uvicorn.Server:
    """A uvicorn server of app: uvloop and httptools, no access log, signals handled by uvicorn."""
    return _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
            **options,  # type: ignore[arg-type]
        )
    )


def serve(app: ASGIApp, settings: Settings, **options: int) -> None:
    """Serve until SIGTERM or SIGINT; requests in hand are answered first."""
    server = http_server(app, settings, **options)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(server.serve())
    if not server.started:
        sys.exit(1)


def _new_loop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415 - only where a server runs

    return uvloop.new_event_loop()
