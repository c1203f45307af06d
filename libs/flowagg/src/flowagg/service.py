"""What makes a process a service: its command line, its probes and its HTTP server."""

import argparse
import asyncio
import contextlib
import gc
import logging
import re
import resource
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Container, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowagg.exchange import Endpoint
from flowagg.http_guard import CONNECTIONS, SPARE_CONNECTIONS, Guard, Limits, Phase, guard
from flowagg.settings import HttpSettings, InvalidSettings, Settings, describe
from flowagg.telemetry import configure_logging

if TYPE_CHECKING:
    from flowagg.election_thread import Elector  # with its metrics, which a service without an election has not

_log = logging.getLogger(__name__)
_S = TypeVar("_S", bound=Settings)

Checks = dict[str, str]
"""What a probe looks at -> "ok" or what is wrong and what to do."""
OK = "ok"

_TICKS_A_SECOND: Final = 10  # of uvicorn's main loop
_TICKS_BETWEEN_COLLECTIONS: Final = 10 * _TICKS_A_SECOND
"""Of the youngest garbage in cycles; each tenth time of what has outlived one, too: see collect_less_often."""
_BACKLOG: Final = 4096
_OTHER_FILES: Final = 128  # listeners, Kafka's and Redis's connections, logs


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


class Entrance:
    """An ASGI application: requests for one path go straight to its endpoint, everything else to Starlette.

    Starlette's middleware and routing cost a fifth of a small request. The endpoint answers every failure itself;
    Starlette has a route of that path as well, so that other methods are answered 405 with Allow.

    exchanges: what answers small whole requests of the path without ASGI, where the server can.
    """

    def __init__(
        self,
        path: str,
        methods: Container[str],
        endpoint: ASGIApp,
        others: ASGIApp,
        exchanges: Endpoint | None = None,
    ) -> None:
        self._path = path
        self._methods = methods
        self._endpoint = endpoint
        self._others = others
        self.exchanges = exchanges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's start and end."""
        if scope["type"] == "http" and scope["path"] == self._path and scope["method"] in self._methods:
            await self._endpoint(scope, receive, send)
        else:
            await self._others(scope, receive, send)


def answered_at_the_entrance(path: str, methods: Sequence[str]) -> Route:
    """The route of an Entrance's path."""

    async def never(_: Request) -> Response:
        raise AssertionError(f"{path} is answered at the entrance")

    route = Route(path, never, methods=methods)
    route.path_regex = re.compile(re.escape(path) + r"\Z")  # Starlette's lets a line end pass behind the path
    return route


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


class AccessLog:
    """ASGI middleware that logs each request once it is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and look at the answer's status and size."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status, size = 0, 0

        async def watch(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            fields = {
                "method": scope["method"],
                "path": scope["path"],
                "query": scope["query_string"].decode("latin-1"),
                "status": status,
                "bytes": size,
                "seconds": round(time.perf_counter() - began, 6),
                "client": scope["client"][0] if scope.get("client") else None,
                "request_id": scope["state"].get("request_id"),
            }
            _log.info("request", extra=fields)


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, phase: Phase, drain_seconds: float, elector: "Elector | None" = None
    ) -> None:
        super().__init__(config)
        self._phase = phase
        self._elector = elector
        self._drain_seconds = drain_seconds
        self._drained_at: float | None = None
        self._certificate_read = _certificate_times(config)

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
        if self._elector is not None and not self.should_exit:
            loop = asyncio.get_running_loop()

            def from_thread(function: Callable[..., None], *arguments: Any) -> None:
                with contextlib.suppress(RuntimeError):  # the loop has ended: there is nobody left to tell
                    loop.call_soon_threadsafe(function, *arguments)

            self._elector.start(
                partial(from_thread, self._take_role), partial(from_thread, setattr, self, "should_exit", True)
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._phase.draining = True
        if self._elector is not None:
            self._elector.end()

    def _take_role(self, active: bool) -> None:
        """Stay with the clients, or send them to the replica that is active now."""
        self._phase.standby = not active
        if not active:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Guard):
                    connection.send_away()

    async def on_tick(self, counter: int) -> bool:
        ends = await super().on_tick(counter)
        now = asyncio.get_running_loop().time()
        if counter % _TICKS_A_SECOND == 0:
            connections = list(self.server_state.connections)
            CONNECTIONS.set(len(connections))
            for connection in connections:
                if isinstance(connection, Guard):
                    connection.check(now)
            self._reload_certificate()
        if counter % _TICKS_BETWEEN_COLLECTIONS == 0:
            gc.collect(1 if counter % (10 * _TICKS_BETWEEN_COLLECTIONS) == 0 else 0)
        if not ends or self.force_exit:
            return ends
        self._phase.draining = True
        if self._elector is not None and not self._elector.ended:
            return False
        if self._drained_at is None:
            self._drained_at = now + self._drain_seconds
        return now >= self._drained_at

    def _reload_certificate(self) -> None:
        """Take a renewed certificate for connections from now on; keep the old one where the new is no good."""
        config = self.config
        if config.ssl is None or (times := _certificate_times(config)) == self._certificate_read:
            return
        self._certificate_read = times
        try:
            config.ssl.load_cert_chain(config.ssl_certfile, config.ssl_keyfile)  # type: ignore[arg-type]
        except (OSError, ssl.SSLError) as error:
            _log.warning("the renewed certificate cannot be used; the old one stays", extra={"reason": str(error)})
        else:
            _log.info("certificate renewed")


def _certificate_times(config: uvicorn.Config) -> list[int]:
    """When the files of certificate and key were changed; 0 for one that is not there."""
    times = []
    for path in (config.ssl_certfile, config.ssl_keyfile):
        try:
            times.append(Path(path).stat().st_mtime_ns if path else 0)
        except OSError:
            times.append(0)
    return times


def http_server(app: ASGIApp, settings: Settings, elector: "Elector | None" = None) -> uvicorn.Server:
    """A uvicorn server of app: uvloop, httptools behind a guard, signals handled by uvicorn.

    With an elector it is a standby until that says otherwise, and hands over before it ends.
    Raises InvalidSettings where the certificate cannot be used.
    """
    limits, phase, options = Limits(), Phase(standby=elector is not None), dict[str, Any]()
    drain_seconds = 0.0
    endpoint = app.exchanges if isinstance(app, Entrance) else None
    if isinstance(settings, HttpSettings):
        limits = Limits(
            connections=_allowed_connections(settings.max_connections),
            head_bytes=settings.max_head_bytes,
            head_fields=settings.max_head_fields,
            head_seconds=settings.head_timeout_seconds,
            stall_seconds=settings.stall_seconds,
        )
        drain_seconds = settings.drain_seconds
        options["timeout_keep_alive"] = settings.keep_alive_seconds
        if settings.access_log:
            app, endpoint = AccessLog(app), None  # the log is of ASGI's messages
        options |= _tls(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=guard(limits, phase, endpoint),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
        **options,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise InvalidSettings(
            f"FLOWAGG_TLS_CERTIFICATE_FILE and FLOWAGG_TLS_KEY_FILE cannot be used: {error}"
        ) from None
    return _Server(config, phase, drain_seconds, elector)


def _tls(settings: HttpSettings) -> dict[str, Any]:
    if (settings.tls_certificate_file is None) != (settings.tls_key_file is None):
        raise InvalidSettings("set both FLOWAGG_TLS_CERTIFICATE_FILE and FLOWAGG_TLS_KEY_FILE, or neither")
    if settings.tls_certificate_file is None:
        return {}
    return {"ssl_certfile": str(settings.tls_certificate_file), "ssl_keyfile": str(settings.tls_key_file)}


def _allowed_connections(wanted: int) -> int:
    """As many connections as are wanted, or as the system's limit on open files lets in."""
    needed = wanted + SPARE_CONNECTIONS + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = max(1, soft - SPARE_CONNECTIONS - _OTHER_FILES)
    _log.warning(
        "the limit on open files lets in fewer connections than FLOWAGG_MAX_CONNECTIONS",
        extra={"open_files": soft, "connections": allowed},
    )
    return allowed


def serve(app: ASGIApp, settings: Settings, elector: "Elector | None" = None) -> None:
    """Serve until SIGTERM or SIGINT; requests in hand are answered first. Raises InvalidSettings.

    elector: which replica is active; None: each is.
    """
    server = http_server(app, settings, elector)
    collect_less_often()
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(server.serve())
    if elector is not None:
        elector.close()
    if not server.started:
        sys.exit(1)


def collect_less_often() -> None:
    """Have Python look for cycles of garbage less often than every 700 objects.

    Batches make and free tens of thousands of objects, none of them in cycles. Measured on the
    consumer: 427 k flows a CPU second with Python's default, 641 k with this. A request over HTTP does leave some: a
    few objects, more where it fails. A server of little load would take an hour to leave enough, and its memory grow by
    20 MiB meanwhile, so it looks every ten seconds, too.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _new_loop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415 - only where a server runs

    return uvloop.new_event_loop()
