"""How operators name a daemon; where it is when nobody says is `costd.address`."""

import os
import socket
from pathlib import Path

from costd import address

ADDRESS_VARIABLE = "COSTD_ADDRESS"
SOCKET_VARIABLE = "COSTD_SOCKET"
CONTROL_VARIABLE = "COSTD_CONTROL_ADDRESS"

_SCHEMES = ("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:")


def default_address() -> str:
    """Where agents ask: at the socket that the daemon's own setting names, if it is set here."""
    return f"unix:{os.environ.get(SOCKET_VARIABLE) or address.default_socket()}"


def default_control_address() -> str:
    """Where operators ask."""
    return f"unix:{address.default_control_socket()}"


def default_coordinator_address() -> str:
    """Where operators ask the coordinator on this host."""
    return f"unix:{address.default_coordinator_socket()}"


def grpc_target(text: str) -> str:
    """Turn what people write into a gRPC target: a path becomes `unix:`, `host:port` stays."""
    if text.startswith(_SCHEMES):
        return text
    if "/" in text:
        return f"unix:{Path(text).expanduser().absolute()}"
    return text


def is_local(target: str) -> bool:
    """Tell whether a target is a Unix socket."""
    return target.startswith(("unix:", "unix-abstract:"))


def socket_path(target: str) -> Path | None:
    """Return the file of a `unix:` target, None for any other."""
    if not target.startswith("unix:"):
        return None
    return Path(target.removeprefix("unix:").removeprefix("//"))


def default_daemon_name() -> str:
    """What a daemon on this host is called in the audience of override grants."""
    return socket.gethostname()
