"""The streams daemons join by: bytes in and out around the reception, batch by batch."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from google.protobuf.message import DecodeError

from costd.coordinator.lease_spans import LeaseSpans
from costd.coordinator.reception import Connection, Received, Reception, check_order
from costd.errors import CoordinatorUnavailable, CostdError, InvalidAsk, Overloaded
from costd.telemetry.logs import Log
from costd.wire.pb import fleet_pb2 as pb

BATCH_COUNT_MAX: Final = 200
"""Messages in one transaction: whoever waits for the first waits for all of them."""
WAITING_COUNT_MAX: Final = 10_000
"""Of one daemon that does not read what it is told."""

PATIENT_S: Final = 0.05
"""So long what nobody waits for waits for others when nothing else does: a tenure is two hundred
times as long, and one transaction for many costs little more than for one."""
EVENTS_COUNT_MAX: Final = 5_000
"""Usage events in one transaction."""
BACKLOG_COUNT: Final = 500
"""Usage events in one message where a daemon has more of them than that."""

_Waiting = tuple[Received, asyncio.Future[None]]
PeerOf = Callable[[Any], str]


class Join:
    """Serves `Fleet.Join`: one stream a daemon, its messages in order.

    Shape:   messages that wait while a transaction runs become the next one together, so that a
             busy coordinator does fewer and larger transactions.
    """

    def __init__(
        self,
        reception: Reception,
        log: Log,
        *,
        peer_of: PeerOf = lambda _: "",
        spans: LeaseSpans | None = None,
    ) -> None:
        self._spans = spans
        self._reception = reception
        self._log = log
        self._peer_of = peer_of
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._usage: asyncio.Queue[_Waiting] = asyncio.Queue()
        self.transactions_count = 0
        self.messages_count = 0

    async def __call__(self, raws: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Serve one daemon until its stream ends.

        Errors:  what ended it: StaleEpoch, InvalidAsk, CoordinatorUnavailable, Overloaded.
        """
        out = _Out()
        connection = Connection(out.put, out.fail, self._peer_of(context))
        reading = asyncio.create_task(self._read(raws, connection, out))
        try:
            while (message := await out.get()) is not None:
                yield message.SerializeToString()
        finally:
            self._reception.lost(connection)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, CostdError):
                await reading

    async def run(self) -> None:
        """Make transactions of what waits, until cancelled; usage apart, since it takes longer."""
        await asyncio.gather(self._work(self._waiting), self._work(self._usage))

    async def _work(self, waiting: asyncio.Queue[_Waiting]) -> None:
        while True:
            batch = [await waiting.get()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENT_S):
                    while _has_room(batch) and self._may_wait(batch):
                        batch.append(await waiting.get())
            while _has_room(batch) and not waiting.empty():
                batch.append(waiting.get_nowait())
            await self._transact(batch)

    def _may_wait(self, batch: list[_Waiting]) -> bool:
        """Tell whether nobody waits for the last of a batch, nor for those before it."""
        last = batch[-1][0].message
        if last.HasField("usage"):
            return len(last.usage.events) < BACKLOG_COUNT
        is_patient = last.HasField("report") or last.request.ahead
        return is_patient and not self._reception.awaits_reports

    async def _transact(self, batch: list[_Waiting]) -> None:
        self.transactions_count += 1
        self.messages_count += len(batch)
        spans = [received.span for received, _ in batch if received.span is not None]
        for span in spans:
            span.begun(len(batch))
        failed = True
        try:
            await self._reception.receive([received for received, _ in batch])
            failed = False
        except CoordinatorUnavailable as error:
            # Nobody knows what was written: each daemon enrols anew, and tells.
            self._log.warning("database_unavailable", problem=str(error), messages=len(batch))
            for received, _ in batch:
                received.connection.close(error)
        except Exception as error:  # noqa: BLE001  a bug must not stop the others
            self._log.error("transaction_failed", exc_info=error, messages=len(batch))
            for received, _ in batch:
                received.connection.close(InvalidAsk("a bug in costd; the coordinator's log tells"))
        finally:
            for span in spans:
                span.over(failed=failed)
            for _, done in batch:
                if not done.done():
                    done.set_result(None)

    async def _read(self, raws: AsyncIterator[bytes], connection: Connection, out: "_Out") -> None:
        """Queue every message; the first one is waited for, since others need its answer.

        A drill needs no answer: it is heard of, as of switches, while the database is away.
        """
        enrolling: asyncio.Future[None] | None = None
        try:
            async for raw in raws:
                message = pb.ToCoordinator.FromString(raw)
                if enrolling is not None and message.HasField("drilled"):
                    self._reception.drilled(connection, message.drilled)
                    continue
                if enrolling is not None:
                    await enrolling
                check_order(connection, message)
                done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                waiting = self._usage if message.HasField("usage") else self._waiting
                if enrolling is None:
                    enrolling = done
                    self._reception.arrive(connection, message.enrol)
                span = None if self._spans is None else self._spans.of(message, connection.name)
                waiting.put_nowait((Received(connection, message, span), done))
            if enrolling is not None:
                await enrolling
        except CostdError as error:
            out.fail(error)
        except DecodeError as error:
            out.fail(InvalidAsk(f"the message is none of a daemon: {error}"))
        finally:
            out.end()


def _has_room(batch: list[_Waiting]) -> bool:
    events_count = sum(len(received.message.usage.events) for received, _ in batch)
    return len(batch) < BATCH_COUNT_MAX and events_count < EVENTS_COUNT_MAX


class _Out:
    """What one daemon is told, in order; it ends with an error, or without."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[pb.ToDaemon | None] = asyncio.Queue()
        self._error: CostdError | None = None

    def put(self, message: pb.ToDaemon) -> None:
        """Add a message; a daemon that does not read loses its stream."""
        if self._error is not None:
            return
        if self._queue.qsize() >= WAITING_COUNT_MAX:
            self.fail(Overloaded(f"{WAITING_COUNT_MAX} messages were not read; join anew"))
            return
        self._queue.put_nowait(message)

    def fail(self, error: CostdError) -> None:
        """End with an error."""
        if self._error is None:
            self._error = error
            self.end()

    def end(self) -> None:
        """End."""
        self._queue.put_nowait(None)

    async def get(self) -> pb.ToDaemon | None:
        """Take the next; None at the end.

        Errors:  what the stream failed with.
        """
        message = await self._queue.get()
        if message is None and self._error is not None:
            raise self._error
        return message
