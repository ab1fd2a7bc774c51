"""Who gets in: connections are bounded, and whoever has the most of them makes room.

Anybody in the cluster reaches the webhook's port, and opening connections costs nothing. A bound
that turns away whoever comes last would let one pod keep the API server out, and every new agent
with it.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final

from costd.injector.connection import Connection

SHUTDOWN_S: Final = 1.0
"""How long a caller may take to hear that its connection is over."""
FULL_S: Final = 0.1
"""Before the next try, where the system lets nobody in: it has no more files."""


class Guest:
    """One connection, from its first byte to its last."""

    __slots__ = ("address", "connection", "task")

    def __init__(self, address: str, connection: Connection) -> None:
        self.address, self.connection = address, connection
        self.task: asyncio.Task[None] | None = None


class Gate:
    """Accepts connections, and counts them from before their handshake on."""

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        make: Callable[[], Connection],
        *,
        count_max: int,
        handshake_s: float,
        tell: Callable[[], None],
    ) -> None:
        """Stand at `listener`; `tell` hears of each connection that had to make room."""
        listener.setblocking(False)
        self._listener, self._context, self._make, self._tell = listener, context, make, tell
        self._count_max, self._handshake_s = count_max, handshake_s
        self._guests: dict[Guest, None] = {}

    async def run(self) -> None:
        """Let connections in, until cancelled."""
        loop = asyncio.get_running_loop()
        with contextlib.closing(self._listener):
            while True:
                try:
                    connected, address = await loop.sock_accept(self._listener)
                except OSError:
                    await asyncio.sleep(FULL_S)
                    continue
                self._let_in(connected, address[0])
                # Who connects faster than others are served must not have the loop to himself.
                await asyncio.sleep(0)

    async def end(self) -> None:
        """End the connections that are left."""
        tasks = [each.task for each in self._guests if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _let_in(self, connected: socket.socket, address: str) -> None:
        if len(self._guests) >= self._count_max:
            self._make_room(address)
        guest = Guest(address, self._make())
        self._guests[guest] = None
        guest.task = asyncio.create_task(self._serve(guest, connected))

    def _make_room(self, address: str) -> None:
        """End a connection of the address that has the most.

        The oldest that is kept for later, which its owner opens anew; else the oldest.
        """
        counts = Counter(each.address for each in self._guests)
        most = max(counts, key=lambda each: counts[each] + (each == address))
        theirs = [each for each in self._guests if each.address == most]
        victim = next((each for each in theirs if each.connection.is_waiting), theirs[0])
        del self._guests[victim]
        if victim.task is not None:
            victim.task.cancel()
        self._tell()

    async def _serve(self, guest: Guest, connected: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: guest.connection,
                connected,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
            await guest.connection.ended.wait()
        except OSError:
            pass  # whoever called did not speak TLS, or not in time
        finally:
            guest.connection.abort()
            connected.close()
            self._guests.pop(guest, None)
