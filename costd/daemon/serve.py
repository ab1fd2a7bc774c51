"""One daemon from start to stop: open the books, serve, reload, drain, close."""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from costd import __version__
from costd.clock import ticks_ns
from costd.daemon import meters, sockets
from costd.daemon.admission import AdmissionService
from costd.daemon.calls import CallFigures, Calls
from costd.daemon.control import ControlService
from costd.daemon.durable import GroupSync
from costd.daemon.ledger import Ledger, Trust
from costd.daemon.reload import PolicyFile, watch
from costd.daemon.settings import Settings
from costd.daemon.sockets import CannotListen
from costd.daemon.sweeper import Retention, Sweeper
from costd.daemon.timekeeping import Timekeeper
from costd.daemon.upkeep import Upkeep
from costd.model.time import NS_PER_S
from costd.store.rocks import RocksStore
from costd.telemetry.logs import Log
from costd.telemetry.metrics import Metrics
from costd.wire.pb import admission_pb2, control_pb2

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
ADMISSION: Final = admission_pb2.DESCRIPTOR.services_by_name["Admission"]
CONTROL: Final = control_pb2.DESCRIPTOR.services_by_name["Control"]

CONTROL_MODE: Final = 0o600
SWEEP_SLICE_COUNT: Final = 100
"""About 10 ms of expiring; asks are answered between slices."""
QUIET_S: Final = 0.2
"""A draining daemon cuts what is left once no call has been open for so long: watchers of its
health and readers of its reflection stay for ever."""


class Stop:
    """Asked once, the daemon drains; asked again, it cuts what is open."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()

    def ask(self) -> None:
        """Ask, or insist."""
        (self.insisted if self.asked.is_set() else self.asked).set()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Ask at SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


async def serve(settings: Settings, log: Log, stop: Stop) -> None:
    """Run a daemon until it is asked to stop.

    Ensures: on return the books are written out and closed, and the sockets are gone.
    Errors:  InvalidPolicy, StoreUnavailable, StoreCorrupt, CannotListen; nothing was served.
    """
    started_ns = ticks_ns()
    store = RocksStore(settings.data)
    try:
        timekeeper = Timekeeper(store)
        file = PolicyFile(settings.policy.absolute(), timekeeper.clock, log)
        ledger = Ledger(
            store,
            file.policy,
            timekeeper.clock,
            trust=Trust(settings.name, dict(settings.labels_fixed), frozenset(settings.claims)),
            closed_keep_s=settings.reservations_retention_s,
        )
        file.govern(ledger)
        sweeper = Sweeper(ledger, _retention(settings))
        upkeep = Upkeep(sweeper, timekeeper, log)
        durable = GroupSync(store.sync) if settings.durability == "disk" else None
        figures = CallFigures()
        async with (
            _metrics(settings, log) as metrics,
            _Servers(settings, log) as servers,
            _background(upkeep.run(), watch(Path(file.path), file.follow, log)),
        ):
            meters.meter_ledger(metrics, ledger)
            meters.meter_upkeep(metrics, upkeep, sweeper)
            meters.meter_policy(metrics, file)
            meters.meter_calls(metrics, figures, now_ns=lambda: timekeeper.clock.now().wall_ns)
            calls = Calls(figures=figures, log=log, durable=durable)
            control = ControlService(
                ledger, file, data_dir=str(settings.data), durability=settings.durability
            )
            await servers.start(
                admission=calls.handlers(ADMISSION, AdmissionService(ledger)),
                control=calls.handlers(CONTROL, control),
            )
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, file.follow, "SIGHUP")
            # What start-up made lives until the end; the collector need not walk it again.
            gc.collect()
            gc.freeze()
            log.info(
                "serving",
                version=__version__,
                name=settings.name,
                pid=os.getpid(),
                data=str(settings.data),
                policy=file.path,
                revision=file.policy.revision,
                started_in_ms=(ticks_ns() - started_ns) // 1_000_000,
                **servers.addresses,
            )
            await stop.asked.wait()
            log.info("draining", open_count=figures.open_count)
            await servers.drain(figures, stop)
        upkeep.tell_alerts()
        sweeper.save()
        timekeeper.save()
        store.sync()
    finally:
        store.close()
    log.info("stopped")


class _Servers:
    """The agents' server and the operators', each with health and reflection."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings = settings
        self._log = log
        options = [
            ("grpc.max_receive_message_length", settings.message_bytes_max),
            # Two daemons on one port would each get some of the calls.
            ("grpc.so_reuseport", 0),
        ]
        self._admission, self._control = (
            grpc.aio.server(options=options, maximum_concurrent_rpcs=settings.rpcs_count_max)
            for _ in range(2)
        )
        self._health = health.aio.HealthServicer()
        self._bound: dict[Path, int] = {}
        self.addresses: dict[str, str] = {}

    async def __aenter__(self) -> "_Servers":
        return self

    async def __aexit__(self, *_error: object) -> None:
        await asyncio.gather(self._admission.stop(None), self._control.stop(None))
        for path, inode in self._bound.items():
            sockets.remove_if_ours(path, inode)

    async def start(
        self, *, admission: grpc.GenericRpcHandler, control: grpc.GenericRpcHandler
    ) -> None:
        """Bind and serve.

        Errors: CannotListen.
        """
        settings = self._settings
        self._bind(self._control, "control_socket", settings.control_socket, CONTROL_MODE)
        self._bind(self._admission, "socket", settings.socket, settings.socket_mode_bits)
        if settings.listen_endpoint is not None:
            self._bind_tcp()
        for server, handler, name in (
            (self._admission, admission, ADMISSION.full_name),
            (self._control, control, CONTROL.full_name),
        ):
            # First, because gRPC asks its handlers in turn at every call.
            server.add_generic_rpc_handlers((handler,))
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            reflection.enable_server_reflection(
                (name, health.SERVICE_NAME, reflection.SERVICE_NAME), server
            )
            await self._health.set(name, SERVING)
        await asyncio.gather(self._admission.start(), self._control.start())

    async def drain(self, figures: CallFigures, stop: Stop) -> None:
        """Accept no more and let what is open finish, for a while, unless somebody insists."""
        await self._health.enter_graceful_shutdown()
        servers = (self._admission, self._control)
        ended = asyncio.gather(*(server.stop(self._settings.drain_s) for server in servers))
        waits = [
            asyncio.ensure_future(ended),
            asyncio.create_task(_quiet(figures)),
            asyncio.create_task(stop.insisted.wait()),
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits[1:]:
            wait.cancel()
        if not ended.done():
            await asyncio.gather(*(server.stop(None) for server in servers))
        await ended

    def _bind(self, server: grpc.aio.Server, name: str, path: Path, mode: int) -> None:
        path = path.absolute()
        sockets.claim(path)
        with sockets.created_with(mode):
            try:
                server.add_insecure_port(f"unix:{path}")
            except RuntimeError as error:
                raise CannotListen(f"{path} cannot be bound: {error}") from error
        path.chmod(mode)
        self._bound[path] = path.stat().st_ino
        self.addresses[name] = str(path)

    def _bind_tcp(self) -> None:
        endpoint = self._settings.listen_endpoint
        assert endpoint is not None
        try:
            port = self._admission.add_insecure_port(str(endpoint))
        except RuntimeError as error:
            raise CannotListen(
                f"listen: {endpoint} cannot be bound ({error}); is another program there?"
            ) from error
        bound = endpoint._replace(port=port)
        self.addresses["listen"] = str(bound)
        if not bound.is_loopback:
            self._log.warning(
                "listening_insecure",
                listen=str(bound),
                message="whoever reaches this address can spend; nothing encrypts or "
                "authenticates it",
            )


async def _quiet(figures: CallFigures) -> None:
    """Return once no call has been open for a while."""
    quiet_since_ns = ticks_ns()
    while ticks_ns() - quiet_since_ns < QUIET_S * NS_PER_S:
        await asyncio.sleep(QUIET_S / 10)
        if figures.open_count:
            quiet_since_ns = ticks_ns()


@contextlib.asynccontextmanager
async def _metrics(settings: Settings, log: Log) -> AsyncIterator[Metrics]:
    metrics = Metrics(version=__version__, name=settings.name)
    endpoint = settings.metrics_endpoint
    try:
        if endpoint is not None:
            try:
                address = metrics.listen(endpoint.host, endpoint.port)
            except OSError as error:
                raise CannotListen(
                    f"metrics_listen: {endpoint} cannot be bound ({error.strerror}); name "
                    "another address, or `off`"
                ) from error
            log.info("metrics_listening", address=address)
        yield metrics
    finally:
        metrics.close()


@contextlib.asynccontextmanager
async def _background(*work: "asyncio._CoroutineLike[None]") -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _retention(settings: Settings) -> Retention:
    return Retention(
        counters_s=settings.counters_retention_s,
        usage_s=settings.usage_retention_s,
        alerts_s=settings.alerts_retention_s,
        audit_s=settings.audit_retention_s,
        runs_idle_s=settings.runs_retention_s,
        slice_count=SWEEP_SLICE_COUNT,
    )
