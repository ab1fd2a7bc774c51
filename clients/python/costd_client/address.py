"""Where the daemon is when nobody says."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

SYSTEM = Path("/run/costd")
"""Where a daemon that root started has its sockets."""


def named_address() -> str:
    """Read where the daemon is from the environment; empty where it does not say.

    Shape:  COSTD_ADDRESS is any gRPC target; COSTD_SOCKET a path, as the daemon's own setting is.
    """
    socket = os.environ.get("COSTD_SOCKET", "")
    return os.environ.get("COSTD_ADDRESS", "") or (socket and f"unix:{socket}")


def default_address() -> str:
    """Name the socket of this user's own daemon if there is one, else that of the host's.

    Ensures: a directory that somebody else made for this user is not believed.
    """
    for folder in _own_folders():
        socket = folder / "costd.sock"
        try:
            if folder.stat().st_uid == os.geteuid() and socket.is_socket():
                return f"unix:{socket}"
        except OSError:
            continue
    return f"unix:{SYSTEM / 'costd.sock'}"


def _own_folders() -> list[Path]:
    """List where `costd serve` puts the sockets of a user who is not root."""
    if os.geteuid() == 0:
        return []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime:
        return [Path(runtime) / "costd"]
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError:  # a container whose file system is read-only
        return []
    return [Path(temporary) / f"costd-{os.geteuid()}"]
