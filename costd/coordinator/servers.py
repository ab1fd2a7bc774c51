"""The gRPC servers of one coordinator: daemons and operators over TCP, operators at a socket."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from costd.clock import Clock
from costd.coordinator.settings import Settings
from costd.coordinator.store import CoordinatorStore
from costd.errors import CoordinatorUnavailable
from costd.grants import load_public_key
from costd.model.events import AuditRecord
from costd.serving import sockets
from costd.serving.certificates import certificate_files
from costd.serving.guard import Guard, Refused
from costd.serving.sockets import CannotListen
from costd.serving.unserved import Unserved
from costd.telemetry.logs import Log
from costd.trust import Authenticator, Kind, TlsFiles, server_credentials
from costd.wire.pb import control_pb2, fleet_control_pb2, fleet_pb2

FLEET: Final = fleet_pb2.DESCRIPTOR.services_by_name["Fleet"]
CONTROL: Final = control_pb2.DESCRIPTOR.services_by_name["Control"]
FLEET_CONTROL: Final = fleet_control_pb2.DESCRIPTOR.services_by_name["FleetControl"]

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
"""An Enrol names every counter that a daemon holds."""
STREAMS_COUNT_MAX: Final = 50_000
CONTROL_MODE: Final = 0o600
KEEPALIVE_MS: Final = 2_000
"""A daemon whose host is gone without a word is noticed after a few of these."""
HANDSHAKE_MS_MAX: Final = 10_000


class Servers:
    """One server for both ways in: what a call needs to show is its guard's business."""

    def __init__(self, settings: Settings, log: Log, clock: Clock, store: CoordinatorStore) -> None:
        self._settings = settings
        self._log = log
        self._clock = clock
        self._store = store
        self.files = self._tls_files()
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
                ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS_MAX),
            ],
            maximum_concurrent_rpcs=STREAMS_COUNT_MAX,
        )
        self._health = health.aio.HealthServicer()
        self._bound: dict[Path, int] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self.addresses: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._server.stop(None)
        for path, inode in self._bound.items():
            sockets.remove_if_ours(path, inode)

    def guard(self, service: ServiceDescriptor) -> Guard | None:
        """Who watches over a service; nobody over daemons where nothing certifies them."""
        if service is FLEET and self.files is None:
            return None
        keys = self._settings.control_keys.items()
        authenticator = Authenticator(
            wall_ns=lambda: self._clock.now().wall_ns,
            audiences=(self._settings.name,),
            keys={key_id: load_public_key(text) for key_id, text in keys},
            files=self.files,
        )
        return Guard(service.full_name, authenticator, self._refused)

    async def start(self, handlers: Mapping[ServiceDescriptor, grpc.GenericRpcHandler]) -> None:
        """Bind and serve.

        Errors: CannotListen, TlsFault.
        """
        self._bind_socket()
        self._bind_tcp()
        self._server.add_generic_rpc_handlers(tuple(handlers.values()))
        names = [service.full_name for service in handlers]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self._server.add_generic_rpc_handlers((Unserved("coordinator", names),))
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def drain(self) -> None:
        """Accept no more, and let calls that are open finish; streams are cut, and go elsewhere."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(0)

    def _tls_files(self) -> TlsFiles | None:
        settings = self._settings
        if settings.tls_cert is None:
            return None
        return certificate_files(settings, self._log, Kind.COORDINATOR, settings.tls_ca)

    def _bind_socket(self) -> None:
        path = self._settings.control_socket.absolute()
        sockets.claim(path)
        try:
            with sockets.created_with(CONTROL_MODE):
                self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise CannotListen(f"control_socket: {path} cannot be bound") from error
        self._bound[path] = path.stat().st_ino
        self.addresses["control_socket"] = str(path)

    def _bind_tcp(self) -> None:
        endpoint = self._settings.endpoint
        try:
            if self.files is not None:
                credentials = server_credentials(self.files, client_certificates=True)
                port = self._server.add_secure_port(str(endpoint), credentials)
            else:
                port = self._server.add_insecure_port(str(endpoint))
        except RuntimeError as error:
            raise CannotListen(
                f"listen: {endpoint} cannot be bound; name another address"
            ) from error
        self.addresses["listen"] = str(endpoint._replace(port=port))
        if self.files is None:
            self._log.warning(
                "listening_insecure",
                listen=self.addresses["listen"],
                problem="nothing encrypts or authenticates daemons; `costctl ca init` begins that",
            )

    def _refused(self, refused: Refused) -> None:
        """Have a refusal written down, if the database can be written."""
        record = AuditRecord(
            at_ns=self._clock.now().wall_ns,
            actor=refused.actor,
            action="call_refused",
            subject=refused.method,
            detail=f"{refused.error} (from {refused.address})",
        )
        task = asyncio.get_running_loop().create_task(self._write(record))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _write(self, record: AuditRecord) -> None:
        try:
            await self._store.append_audit([record])
        except CoordinatorUnavailable as error:
            self._log.warning("refusal_not_audited", problem=str(error), refused=record.detail)
