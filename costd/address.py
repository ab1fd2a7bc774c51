"""Where a daemon and those who talk to it find each other when nobody says."""

import os
import tempfile
from pathlib import Path


def default_directory() -> Path:
    """Name the directory of a daemon's sockets for this user.

    Ensures: `/run/costd` for root; else `$XDG_RUNTIME_DIR/costd`; else `costd-UID` in the
             directory for temporary files.
    """
    if os.geteuid() == 0:
        return Path("/run/costd")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime:
        return Path(runtime) / "costd"
    return _temporary() / f"costd-{os.geteuid()}"


def _temporary() -> Path:
    """Name the directory for temporary files, though nothing can be written there."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # a container whose file system is read-only
        return Path("/tmp")  # noqa: S108  only named; whoever makes something there checks whose it is


def default_socket() -> Path:
    """Name the socket agents ask at."""
    return default_directory() / "costd.sock"


def default_control_socket() -> Path:
    """Name the socket operators use."""
    return default_directory() / "control.sock"


def default_coordinator_socket() -> Path:
    """Name the socket operators use at a coordinator."""
    return default_directory() / "coordinator.sock"


def default_data() -> Path:
    """Name the directory of a daemon's books for this user."""
    if os.geteuid() == 0:
        return Path("/var/lib/costd")
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state else Path.home() / ".local" / "state") / "costd"
