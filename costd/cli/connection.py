"""Talk to a daemon or a coordinator, and say in one line why it did not answer."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from costd.address import default_control_socket, default_coordinator_socket
from costd.cli.address import (
    ADDRESS_VARIABLE,
    CONTROL_VARIABLE,
    grpc_target,
    is_local,
    socket_path,
)
from costd.cli.credentials import shown
from costd.cli.exits import ExitCode, Failure
from costd.cli.handshake import disagreement
from costd.model.time import NS_PER_S
from costd.serving.sockets import is_answered
from costd.wire.pb.admission_pb2_grpc import AdmissionStub
from costd.wire.pb.control_pb2_grpc import ControlStub
from costd.wire.pb.fleet_control_pb2_grpc import FleetControlStub

ANSWER_S = 10
"""A daemon on the same host answers in milliseconds; later than this it hangs."""
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""A list of every counter of a large host; gRPC's own 4 MiB would cut it off."""
CONTROL_SOCKET = default_control_socket().name
COORDINATOR_SOCKET = default_coordinator_socket().name
CALLER_METADATA = "costd-caller"
"""The metadata key under which a caller says who it is."""

_CONFLICTS = {
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
}
_ADMISSION, _CONTROL, _FLEET = (
    f"costd.v1.{name}" for name in ("Admission", "Control", "FleetControl")
)
_UNREACHABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,  # it stops with the request in its hands
}


class Coordinator(NamedTuple):
    """What operators ask of a coordinator."""

    fleet: FleetControlStub
    control: ControlStub


@contextmanager
def admission(address: str) -> Iterator[AdmissionStub]:
    """Connect to the service that agents ask.

    Errors: Failure for every gRPC error inside the block.
    """
    with _channel(address, f"--address or {ADDRESS_VARIABLE}", _ADMISSION) as channel:
        yield AdmissionStub(channel)  # type: ignore[no-untyped-call]  # generated


@contextmanager
def control(address: str, *, work_ns: int = 0, instead: str = "") -> Iterator[ControlStub]:
    """Connect to the service that operators ask, at a daemon or a coordinator.

    Shape:  `work_ns` is what an answer may take longer; `instead` what else helps if none comes.
    Errors: Failure for every gRPC error inside the block.
    """
    try:
        with _channel(address, f"--control or {CONTROL_VARIABLE}", _CONTROL, work_ns) as channel:
            yield ControlStub(channel)  # type: ignore[no-untyped-call]  # generated
    except Failure as failure:
        if not instead or failure.exit_code is not ExitCode.UNREACHABLE:
            raise
        raise Failure(f"{failure}. {instead}", ExitCode.UNREACHABLE) from failure


@contextmanager
def coordinator(address: str) -> Iterator[Coordinator]:
    """Connect to the services that operators ask at a coordinator.

    Errors: Failure for every gRPC error inside the block; one that says so for a daemon's address.
    """
    with _channel(address, f"--control or {CONTROL_VARIABLE}", _FLEET) as channel:
        yield _stubs(channel)


@contextmanager
def either(address: str, *, work_ns: int = 0) -> Iterator[Coordinator]:
    """Connect to whoever is there; a daemon lacks what concerns the fleet (`is_lacking`).

    Shape:  `work_ns` is what an answer may take longer.
    Errors: Failure for every gRPC error that leaves the block.
    """
    with _channel(address, f"--control or {CONTROL_VARIABLE}", _CONTROL, work_ns) as channel:
        yield _stubs(channel)


def _stubs(channel: grpc.Channel) -> Coordinator:
    return Coordinator(
        FleetControlStub(channel),  # type: ignore[no-untyped-call]  # generated
        ControlStub(channel),  # type: ignore[no-untyped-call]  # generated
    )


def is_lacking(error: grpc.RpcError) -> bool:
    """Tell whether whoever answered has no such method."""
    return error.code() is grpc.StatusCode.UNIMPLEMENTED


def identity(caller: str) -> tuple[tuple[str, str], ...]:
    """Make the metadata that names a caller; none for an empty name."""
    return ((CALLER_METADATA, caller),) if caller else ()


@contextmanager
def _channel(address: str, named_by: str, wanted: str, work_ns: int = 0) -> Iterator[grpc.Channel]:
    target = grpc_target(address)
    # A socket is guarded by its mode; what is shown to a daemon elsewhere stays at home.
    credentials = None if is_local(target) else shown().channel_credentials()
    made = (
        grpc.insecure_channel(target, options=_options(work_ns))
        if credentials is None
        else grpc.secure_channel(target, credentials, options=_options(work_ns))
    )
    with made as channel:
        try:
            yield channel
        except grpc.RpcError as error:
            if is_lacking(error):
                raise Failure(_elsewhere(channel, target, named_by, wanted)) from error
            raise _failure(
                error, target, named_by, tls=credentials is not None, wanted=wanted
            ) from error


def _options(work_ns: int) -> list[tuple[str, int | str]]:
    """Set how large an answer may be, and how late: a longer timeout of one call is ignored."""
    answer = {"name": [{}], "timeout": f"{ANSWER_S + work_ns / NS_PER_S:.3f}s"}
    return [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.service_config", json.dumps({"methodConfig": [answer]})),
    ]


def _failure(
    error: grpc.RpcError, target: str, named_by: str, *, tls: bool, wanted: str
) -> Failure:
    code, details = error.code(), error.details() or "no details given"
    if code not in _UNREACHABLE:
        exit_code = ExitCode.CONFLICT if code in _CONFLICTS else ExitCode.ERROR
        return Failure(f"{code.name}: {details}", exit_code)
    misunderstanding = None if is_local(target) else disagreement(target, details, tls=tls)
    if misunderstanding:
        return Failure(f"{target}: {misunderstanding}", ExitCode.UNREACHABLE)
    if _is_there(target, details):
        return Failure(
            f"somebody is at {target}, but cannot answer this now: {details}", ExitCode.UNREACHABLE
        )
    who, start = _whose(target, wanted)
    return Failure(
        f"no {who} answers at {target}: {_obstacle(target, details)}. Start {start}, or name "
        f"another address with {named_by}",
        ExitCode.UNREACHABLE,
    )


def _is_there(target: str, details: str) -> bool:
    """Tell whether somebody listens, who cannot answer this; an error does not say whose it is."""
    path = socket_path(target)
    return is_answered(path) if path is not None else "failed to connect" not in details


def _whose(target: str, wanted: str) -> tuple[str, str]:
    """Say who should be at an address, and how to start them."""
    daemon = "`costd serve --policy FILE --data DIR`"
    coordinator = "`costd coordinator --policy FILE --data DIR`"
    path = socket_path(target)
    if wanted == _FLEET or (path is not None and path.name == COORDINATOR_SOCKET):
        return "coordinator", f"one with {coordinator}"
    if wanted == _CONTROL and (path is None or path.name != CONTROL_SOCKET):
        return "daemon or coordinator", f"a daemon with {daemon}, a coordinator with {coordinator}"
    return "daemon", f"one with {daemon}"


def _elsewhere(channel: grpc.Channel, target: str, named_by: str, wanted: str) -> str:
    """Say who is at an address that lacks what was asked for, and who has it."""
    is_coordinator = _serves(channel, _FLEET)
    if wanted == _FLEET and not is_coordinator:
        return (
            f"{target} is a daemon's address, and only a coordinator knows the fleet; name a "
            f"coordinator's (`costd coordinator` logs where it listens) with {named_by}"
        )
    if is_coordinator and wanted != _FLEET:
        return (
            f"{target} is a coordinator, and this is asked of each daemon; name a daemon's "
            f"address with {named_by}"
        )
    if is_coordinator:
        return f"the coordinator at {target} is of an earlier version, which cannot do this"
    return (
        f"{target} does not offer this service; admission and control have addresses of their "
        f"own, name the right one with {named_by}"
    )


def _serves(channel: grpc.Channel, service: str) -> bool:
    """Ask whoever is there whether a service is served; nobody needs a role for that."""
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _obstacle(target: str, details: str) -> str:
    """Say what is in the way, as far as the file system shows it."""
    path = socket_path(target)
    if path is None:
        return details
    try:
        found = path.is_socket()
    except OSError as error:
        return f"{path} cannot be looked at ({error.strerror})"
    if not found:
        return f"there is no socket {path}"
    if "ermission denied" in details:
        return f"you may not open {path} (it belongs to {_owner(path)})"
    return f"nobody listens on {path} any more"


def _owner(path: Path) -> str:
    try:
        return f"{path.owner()}:{path.group()}"
    except (KeyError, OSError):
        return "another user"
