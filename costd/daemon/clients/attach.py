"""The stream that client processes attach by: bytes in and out around the desk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from costd.daemon.books.durable import GroupSync
from costd.daemon.clients.desk import Connection, Desk
from costd.errors import Overloaded
from costd.serving.calls import Context, caller_of
from costd.wire.pb import admission_pb2 as pb

READ_AHEAD_COUNT: Final = 64
"""A client's messages are not read while so many for it wait to be sent."""
WAITING_COUNT_MAX: Final = 4_096
"""Of one client that does not read what it is told; with more its stream is over."""


class Attach:
    """Serves `Admission.Attach`.

    `streams_count_max` leaves room beside the streams, which stay, for calls, which come and go.
    """

    def __init__(
        self, desk: Desk, durable: GroupSync | None = None, *, streams_count_max: int = 3_072
    ) -> None:
        self._desk = desk
        self._durable = durable
        self._streams_count_max = streams_count_max
        self._streams_count = 0

    async def __call__(self, raws: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Serve one client process until its stream ends.

        Errors:  those of `Connection.receive`, which end the stream; Overloaded where too many
                 are attached, or this client does not read what it is told.
        """
        if self._streams_count >= self._streams_count_max:
            raise Overloaded(
                f"{self._streams_count} client processes are attached, the most this daemon "
                "serves; ask call by call, or raise `rpcs_count_max` in its settings"
            )
        self._streams_count += 1
        waiting = _Waiting()
        reading: asyncio.Task[None] | None = None
        try:
            connection = self._desk.attach(caller_of(context), waiting.put)
            reading = asyncio.create_task(_read(raws, connection, waiting))
            try:
                while (message := await waiting.get()) is not None:
                    if self._durable is not None:
                        await self._durable.wait()
                    yield message.SerializeToString()
                waiting.check()
                await reading  # raises what ended it
            finally:
                connection.close()
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await reading
        finally:
            self._streams_count -= 1


class _Waiting:
    """Messages for one client, in order; they end where the stream does, or where they are many."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[pb.DaemonMessage | None] = asyncio.Queue()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.is_over = False
        """Whether something could not be kept: what follows would make no sense without it."""

    def put(self, message: pb.DaemonMessage) -> None:
        """Add a message; where there are too many, they end."""
        if self.is_over:
            return
        if self._queue.qsize() < WAITING_COUNT_MAX:
            self._queue.put_nowait(message)
        else:
            self.is_over = True
            self._has_room.set()
            self.end()

    def end(self) -> None:
        """Add the end."""
        self._queue.put_nowait(None)

    async def get(self) -> pb.DaemonMessage | None:
        """Take the next; None at the end."""
        message = await self._queue.get()
        if self._queue.qsize() < READ_AHEAD_COUNT:
            self._has_room.set()
        return message

    async def room(self) -> None:
        """Return once the client has read most of what it was told.

        Errors:  as `check`.
        """
        if self._queue.qsize() >= READ_AHEAD_COUNT:
            self._has_room.clear()
            await self._has_room.wait()
        self.check()

    def check(self) -> None:
        """Do nothing where all was kept.

        Errors:  Overloaded where it was not.
        """
        if self.is_over:
            raise Overloaded(
                f"{WAITING_COUNT_MAX} messages were not read; attach anew, and read what comes"
            )


async def _read(raws: AsyncIterator[bytes], connection: Connection, waiting: _Waiting) -> None:
    """Hand every message to the desk; the end, or an error, ends the stream."""
    try:
        async for raw in raws:
            await waiting.room()
            connection.receive(pb.ClientMessage.FromString(raw))
    finally:
        waiting.end()
