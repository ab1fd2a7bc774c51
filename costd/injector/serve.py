"""One injector from start to stop: the certificate, the webhook, the metrics."""

import asyncio
import contextlib
import math
import os
import socket
import ssl
from collections.abc import Callable, Iterator

import uvicorn

from costd import __version__
from costd.clock import ticks_ns
from costd.injector.bootstrap import Bootstrap, Names
from costd.injector.cluster import Cluster
from costd.injector.connection import KEEP_ALIVE_S, Connection
from costd.injector.gate import Gate
from costd.injector.handshake import Files, Source, server_context
from costd.injector.meters import meter_injector, meter_made
from costd.injector.reviews import Reviews
from costd.injector.settings import Settings
from costd.serving.background import background
from costd.serving.loop import run_until_signalled
from costd.serving.metered import meter_certificate, metered
from costd.serving.sockets import CannotListen
from costd.serving.stop import Stop
from costd.telemetry.exports import NO_EXPORTS, Exports
from costd.telemetry.logs import Log
from costd.telemetry.metrics import Metrics
from costd.trust import TlsFiles


def run(settings: Settings, log: Log, exports: Exports = NO_EXPORTS) -> None:
    """Run an injector in this process until SIGTERM or SIGINT.

    Errors: as `serve`.
    """
    run_until_signalled(lambda stop: serve(settings, log, stop, exports))


async def serve(settings: Settings, log: Log, stop: Stop, exports: Exports = NO_EXPORTS) -> None:
    """Run an injector until it is asked to stop.

    Errors:  TlsFault, CannotListen; nothing was served.
    """
    started_ns = ticks_ns()

    def refused(problem: str) -> None:
        log.error("tls_files_refused", problem=problem)

    async with contextlib.AsyncExitStack() as stack:
        source = _source(settings, log, refused)
        if isinstance(source, Bootstrap):
            await stack.enter_async_context(background(log, source.run()))
        reviews = Reviews(
            settings.rules,
            log,
            is_ready=lambda: source.is_ready and not stop.asked.is_set(),
            body_bytes_max=settings.body_bytes_max,
            deadline_s=settings.deadline_s,
        )
        metrics = await stack.enter_async_context(
            metered(settings.service, settings.metrics_endpoint, log, exports)
        )
        meter_injector(metrics, reviews)
        _meter_certificate(metrics, source)
        server, gate, listener = _server(settings, reviews, server_context(source, refused))
        stack.push_async_callback(gate.end)
        stack.push_async_callback(_ended, server, asyncio.create_task(server.serve(sockets=[])))
        await stack.enter_async_context(background(log, gate.run()))
        log.info(
            "injecting",
            version=__version__,
            pid=os.getpid(),
            address="{}:{}".format(*listener.getsockname()[:2]),
            started_in_ms=(ticks_ns() - started_ns) // 1_000_000,
        )
        await stop.asked.wait()
        log.info("draining", connections=len(server.server_state.connections))
        # The API server goes on calling until it has heard that this replica is going.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.insisted.wait(), settings.drain_s)
    log.info("stopped")


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _server(
    settings: Settings, reviews: Reviews, context: ssl.SSLContext
) -> tuple[uvicorn.Server, Gate, socket.socket]:
    """Make the server, and the gate that its connections come by.

    Errors: CannotListen.
    """
    config = uvicorn.Config(
        reviews.app(),
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, math.ceil(settings.deadline_s)),
    )
    config.load()
    server, listener = _Server(config), _listening(settings)
    gate = Gate(
        listener,
        context,
        lambda: Connection(config, server.server_state, headers_s=settings.deadline_s),
        count_max=settings.connections_count_max,
        handshake_s=settings.deadline_s,
        tell=reviews.crowd_out,
    )
    return server, gate, listener


def _listening(settings: Settings) -> socket.socket:
    """Bind the address.

    Errors: CannotListen.
    """
    endpoint = settings.endpoint
    try:
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        return socket.create_server((endpoint.host, endpoint.port), family=family, backlog=256)
    except OSError as error:
        raise CannotListen(
            f"listen: {endpoint} cannot be bound ({error.strerror}); name another address"
        ) from error


async def _ended(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    """Let open reviews end, and the listener with them."""
    server.should_exit = True
    await serving


def _source(settings: Settings, log: Log, refused: Callable[[str], None]) -> Source:
    """Choose where the certificate comes from.

    Errors: TlsFault.
    """
    if settings.bootstrap:
        names = settings.service, settings.namespace, settings.secret, settings.webhook
        return Bootstrap(Cluster.of_pod(settings.service_account), Names(*names), log)
    return Files(TlsFiles(certificate=settings.tls_cert, key=settings.tls_key, tell=refused))


def _meter_certificate(metrics: Metrics, source: Source) -> None:
    if isinstance(source, Files):
        meter_certificate(metrics, source.files)
    elif isinstance(source, Bootstrap):
        meter_made(metrics, lambda: source.ends_s)
