"""Ids that callers choose."""

import getpass
import secrets
import socket
from uuid import UUID

from costd.cli.times import wall_ns


def uuid7() -> str:
    """Make a UUIDv7 (RFC 9562): milliseconds, then 74 random bits."""
    milliseconds = wall_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


def operator() -> str:
    """Name whoever sits at this terminal: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an id without an entry, as in many containers
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
