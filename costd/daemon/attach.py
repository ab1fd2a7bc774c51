"""The stream that client processes attach by: bytes in and out around the desk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from costd.daemon.calls import Context, caller_of
from costd.daemon.desk import Connection, Desk
from costd.daemon.durable import GroupSync
from costd.wire.pb import admission_pb2 as pb


class Attach:
    """Serves `Admission.Attach`."""

    def __init__(self, desk: Desk, durable: GroupSync | None = None) -> None:
        self._desk = desk
        self._durable = durable

    async def __call__(self, raws: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Serve one client process until its stream ends.

        Errors:  those of `Connection.receive`, which end the stream.
        """
        waiting: asyncio.Queue[pb.DaemonMessage | None] = asyncio.Queue()
        connection = self._desk.attach(caller_of(context), waiting.put_nowait)
        reading = asyncio.create_task(_read(raws, connection, waiting))
        try:
            while (message := await waiting.get()) is not None:
                if self._durable is not None:
                    await self._durable.wait()
                yield message.SerializeToString()
            await reading  # raises what ended it
        finally:
            connection.close()
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reading


async def _read(
    raws: AsyncIterator[bytes],
    connection: Connection,
    waiting: asyncio.Queue[pb.DaemonMessage | None],
) -> None:
    """Hand every message to the desk; the end, or an error, ends the stream."""
    try:
        async for raw in raws:
            connection.receive(pb.ClientMessage.FromString(raw))
    finally:
        waiting.put_nowait(None)
