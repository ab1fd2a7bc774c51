"""What a host tells whoever started it, by the protocol of systemd's `sd_notify`."""

import contextlib
import os
import socket
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def tell_supervisor(state: str) -> None:
    """Say how it stands, where the environment names somebody who wants to know.

    Ensures: never raises: a supervisor that does not listen is no reason not to serve.
    Source:  sd_notify(3): one datagram to `NOTIFY_SOCKET`, where `@` begins an abstract name.
    """
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.setblocking(False)
        wire.sendto(state.encode(), f"\0{name[1:]}" if name.startswith("@") else name)
