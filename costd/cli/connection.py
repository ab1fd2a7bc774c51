"""Talk to a daemon's two services, and say in one line why it did not answer."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

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
from costd.wire.pb.admission_pb2_grpc import AdmissionStub
from costd.wire.pb.control_pb2_grpc import ControlStub

ANSWER_S = 10
"""A daemon on the same host answers in milliseconds; later than this it hangs."""
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""A list of every counter of a large host; gRPC's own 4 MiB would cut it off."""
CALLER_METADATA = "costd-caller"
"""The metadata key under which a caller says who it is."""

_CONFLICTS = {
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
}
_UNREACHABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


@contextmanager
def admission(address: str) -> Iterator[AdmissionStub]:
    """Connect to the service that agents ask.

    Errors: Failure for every gRPC error inside the block.
    """
    with _channel(address, f"--address or {ADDRESS_VARIABLE}") as channel:
        yield AdmissionStub(channel)  # type: ignore[no-untyped-call]  # generated


@contextmanager
def control(address: str, *, work_ns: int = 0) -> Iterator[ControlStub]:
    """Connect to the service that operators ask; `work_ns` is what an answer may take longer.

    Errors: Failure for every gRPC error inside the block.
    """
    with _channel(address, f"--control or {CONTROL_VARIABLE}", work_ns) as channel:
        yield ControlStub(channel)  # type: ignore[no-untyped-call]  # generated


def identity(caller: str) -> tuple[tuple[str, str], ...]:
    """Make the metadata that names a caller; none for an empty name."""
    return ((CALLER_METADATA, caller),) if caller else ()


@contextmanager
def _channel(address: str, named_by: str, work_ns: int = 0) -> Iterator[grpc.Channel]:
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
            raise _failure(error, target, named_by, tls=credentials is not None) from error


def _options(work_ns: int) -> list[tuple[str, int | str]]:
    """Set how large an answer may be, and how late: a longer timeout of one call is ignored."""
    answer = {"name": [{}], "timeout": f"{ANSWER_S + work_ns / NS_PER_S:.3f}s"}
    return [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.service_config", json.dumps({"methodConfig": [answer]})),
    ]


def _failure(error: grpc.RpcError, target: str, named_by: str, *, tls: bool) -> Failure:
    code, details = error.code(), error.details() or "no details given"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Failure(
            f"{target} does not offer this service ({details}); admission and control have "
            f"addresses of their own, name the right one with {named_by}"
        )
    if code in _UNREACHABLE:
        misunderstanding = None if is_local(target) else disagreement(target, details, tls=tls)
        if misunderstanding:
            return Failure(f"{target}: {misunderstanding}", ExitCode.UNREACHABLE)
        return Failure(
            f"no daemon answers at {target}: {_obstacle(target, details)}. Start one with "
            f"`costd serve --policy FILE --data DIR`, or name another address with {named_by}",
            ExitCode.UNREACHABLE,
        )
    exit_code = ExitCode.CONFLICT if code in _CONFLICTS else ExitCode.ERROR
    return Failure(f"{code.name}: {details}", exit_code)


def _obstacle(target: str, details: str) -> str:
    """Say what is in the way, as far as the file system shows it."""
    path = socket_path(target)
    if path is None or "onnect" not in details:
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
