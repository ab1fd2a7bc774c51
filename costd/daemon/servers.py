"""The gRPC servers of one daemon: agents on one socket, operators on another."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from costd.clock import ticks_ns
from costd.daemon.settings import Settings
from costd.endpoint import Endpoint
from costd.model.time import NS_PER_S
from costd.serving import sockets
from costd.serving.calls import CallFigures
from costd.serving.sockets import CannotListen
from costd.serving.unserved import Unserved
from costd.telemetry.logs import Log
from costd.trust import TlsFiles, server_credentials
from costd.wire.pb import admission_pb2, control_pb2, ratelimit_pb2

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
ADMISSION: Final = admission_pb2.DESCRIPTOR.services_by_name["Admission"]
CONTROL: Final = control_pb2.DESCRIPTOR.services_by_name["Control"]
ENVOY: Final = ratelimit_pb2.DESCRIPTOR.services_by_name["RateLimitService"]
ENVOY_NAME: Final = "envoy.service.ratelimit.v3.RateLimitService"
"""What Envoy calls the service; its messages have other names here, and the same bytes."""

CONTROL_MODE: Final = 0o600
HANDSHAKE_MS_MAX: Final = 10_000
"""Whoever connects and says nothing is let go; gRPC would wait for two minutes."""

QUIET_S: Final = 0.2
"""A draining daemon cuts what is left once no call has been open for so long: watchers of its
health and readers of its reflection would stay for ever."""


class Servers:
    """The agents' server and the operators', each with health and reflection.

    Operators elsewhere have a server of their own, so that what is open there takes nothing away
    from those at the socket.
    """

    def __init__(self, settings: Settings, log: Log, files: TlsFiles | None = None) -> None:
        self._settings = settings
        self._log = log
        self._files = files
        options = [
            ("grpc.max_receive_message_length", settings.message_bytes_max),
            # Two daemons on one port would each get some of the calls.
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS_MAX),
        ]
        self._all = [
            grpc.aio.server(options=options, maximum_concurrent_rpcs=settings.rpcs_count_max)
            for _ in range(2 if settings.control_endpoint is None else 3)
        ]
        self._admission, self._control, *self._remote = self._all
        self._health = health.aio.HealthServicer()
        self._stopping: list[asyncio.Task[None]] = []
        self._bound: dict[Path, int] = {}
        self.addresses: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await asyncio.gather(*(server.stop(None) for server in self._all))
        for path, inode in self._bound.items():
            sockets.remove_if_ours(path, inode)

    async def start(
        self,
        *,
        agents: Sequence[grpc.GenericRpcHandler],
        operators: Sequence[grpc.GenericRpcHandler],
    ) -> None:
        """Bind and serve.

        Errors: CannotListen, TlsFault.
        """
        settings = self._settings
        self._bind(self._control, "control_socket", settings.control_socket, CONTROL_MODE)
        self._bind(self._admission, "socket", settings.socket, settings.socket_mode_bits)
        if settings.listen_endpoint is not None:
            self._bind_tcp(
                self._admission, "listen", settings.listen_endpoint, tls=settings.listen_tls
            )
        for remote in self._remote:
            assert settings.control_endpoint is not None
            self._bind_tcp(remote, "control_listen", settings.control_endpoint, tls=True)
        for server, handlers, name in (
            (self._admission, agents, ADMISSION.full_name),
            (self._control, operators, CONTROL.full_name),
            *((remote, operators, CONTROL.full_name) for remote in self._remote),
        ):
            # First, because gRPC asks its handlers in turn at every call.
            server.add_generic_rpc_handlers(tuple(handlers))
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            reflection.enable_server_reflection(
                (name, health.SERVICE_NAME, reflection.SERVICE_NAME), server
            )
            server.add_generic_rpc_handlers((Unserved("daemon", [name]),))
            await self._health.set(name, SERVING)
        await asyncio.gather(*(server.start() for server in self._all))

    async def drain(self, figures: CallFigures, insisted: asyncio.Event) -> None:
        """Accept no more and let open calls finish, for a while, unless somebody insists."""
        await self._health.enter_graceful_shutdown()
        drain_s = self._settings.drain_s
        # Stopping servers refuse new calls at once and leave open ones alone until `drain_s`.
        self._stopping = [asyncio.create_task(server.stop(drain_s)) for server in self._all]
        await _until_quiet(figures, insisted, drain_s)

    async def cut(self) -> None:
        """End what is still open: streams, which would stay."""
        await asyncio.gather(*(server.stop(None) for server in self._all), *self._stopping)

    def _bind(self, server: grpc.aio.Server, name: str, path: Path, mode: int) -> None:
        path = path.absolute()
        sockets.claim(path, mode)
        with sockets.created_with(mode):
            try:
                server.add_insecure_port(f"unix:{path}")
            except RuntimeError as error:
                raise CannotListen(f"{path} cannot be bound: {error}") from error
        path.chmod(mode)
        self._bound[path] = path.stat().st_ino
        self.addresses[name] = str(path)

    def _bind_tcp(
        self, server: grpc.aio.Server, name: str, endpoint: Endpoint, *, tls: bool
    ) -> None:
        try:
            if tls:
                assert self._files is not None  # the settings see to it
                credentials = server_credentials(
                    self._files, client_certificates=self._settings.tls_verify_clients
                )
                port = server.add_secure_port(str(endpoint), credentials)
            else:
                port = server.add_insecure_port(str(endpoint))
        except RuntimeError as error:
            raise CannotListen(
                f"{name}: {endpoint} cannot be bound ({error}); is another program there?"
            ) from error
        bound = endpoint._replace(port=port)
        self.addresses[name] = str(bound)
        if not bound.is_loopback and not tls:
            self._log.warning("listening_insecure", **{name: str(bound)})


async def _until_quiet(figures: CallFigures, insisted: asyncio.Event, at_most_s: float) -> None:
    """Return once no call has been open for a while, at the latest after so many seconds."""
    started_ns = quiet_since_ns = now_ns = ticks_ns()
    while (
        not insisted.is_set()
        and now_ns - quiet_since_ns < QUIET_S * NS_PER_S
        and now_ns - started_ns < at_most_s * NS_PER_S
    ):
        await asyncio.sleep(QUIET_S / 10)
        now_ns = ticks_ns()
        if figures.open_count:
            quiet_since_ns = now_ns
