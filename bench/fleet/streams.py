"""A daemon's stream to the coordinator without the daemon: as light as a stream can be."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final, Self

import grpc

from costd.daemon.fleet.member import JOIN
from costd.wire.pb import fleet_pb2 as pb

ENROLLED_S_MAX: Final = 60.0


class Held:
    """What a stream holds of one counter, all of it used: its next want is for more."""

    __slots__ = ("amount", "key", "version")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.amount = 0
        self.version = 0

    def stand(self) -> pb.Stand:
        """Say how it stands."""
        return pb.Stand(
            counter_key=self.key, amount=self.amount, settled=self.amount, version=self.version
        )

    def want(self, more: int) -> pb.Want:
        """Ask for so much more."""
        amount = self.amount + more
        return pb.Want(stand=self.stand(), amount_min=amount, amount_wanted=amount)


class Stream:
    """One stream: enrols, and sends what it is told to.

    Shape:   numbers are kept as the protocol wants them; `sent_bytes` and `heard_bytes` count
             messages without their frames.
    """

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self.name = name
        join = channel.stream_stream(JOIN)
        self._call: Any = join()
        self.epoch = 0
        self._sequence = 0
        self._usage_sequence = 0
        self.sent_bytes = 0
        self.heard_bytes = 0

    async def enrol(self) -> Self:
        """Enrol as a daemon that was never seen, and hear of policy and kill switches."""
        enrol = pb.Enrol(daemon_id=self.name, name=self.name, boot_id="b", now_ns=time.time_ns())
        await self._write(pb.ToCoordinator(enrol=enrol))
        async with asyncio.timeout(ENROLLED_S_MAX):
            self.epoch = (await self.read("welcome")).epoch
            await self.read("kills")
        return self

    async def read(self, kind: str) -> Any:
        """Return the next message of one kind; drop those before it."""
        while True:
            raw = await self._call.read()
            if raw is grpc.aio.EOF:
                raise ConnectionError(await self._call.details() or "the stream ended")
            self.heard_bytes += len(raw)
            message = pb.ToDaemon.FromString(raw)
            if message.WhichOneof("message") == kind:
                return getattr(message, kind)

    async def request(self, wants: Sequence[pb.Want]) -> pb.LeaseReply:
        """Ask for room, and wait for the reply."""
        self._sequence += 1
        request = pb.LeaseRequest(
            request_id=str(self._sequence),
            epoch=self.epoch,
            sequence=self._sequence,
            wants=wants,
        )
        await self._write(pb.ToCoordinator(request=request))
        reply: pb.LeaseReply = await self.read("reply")
        return reply

    async def lease(self, held: Sequence[Held], more: int) -> int:
        """Ask for more of these counters; returns how many leases were granted."""
        reply = await self.request([each.want(more) for each in held])
        granted_count = 0
        for each, grant in zip(held, reply.grants, strict=True):
            if grant.outcome == pb.LEASE_OUTCOME_GRANTED:
                each.amount, each.version = grant.amount, grant.version
                granted_count += 1
        return granted_count

    async def report(self, stands: Sequence[pb.Stand] = ()) -> None:
        """Report, without waiting for the receipt."""
        self._sequence += 1
        report = pb.LeaseReport(
            epoch=self.epoch,
            sequence=self._sequence,
            stands=stands,
            policy_number=1,
            now_ns=time.time_ns(),
            clients_count=8,
        )
        await self._write(pb.ToCoordinator(report=report))

    async def usage(self, raw_events: bytes) -> None:
        """Send a batch whose events are written already, without waiting for the receipt."""
        batch = pb.UsageBatch(epoch=self.epoch)
        await self._write_raw(_in_usage(batch.SerializeToString() + raw_events))

    def close(self) -> None:
        """Hang up."""
        self._call.cancel()

    async def _write(self, message: pb.ToCoordinator) -> None:
        await self._write_raw(message.SerializeToString())

    async def _write_raw(self, raw: bytes) -> None:
        self.sent_bytes += len(raw)
        await self._call.write(raw)


def open_channel(address: str) -> grpc.aio.Channel:
    """Open a connection of its own, as each daemon has one."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    return grpc.aio.insecure_channel(address, options=options)


def _in_usage(batch: bytes) -> bytes:
    """Write a ToCoordinator around the bytes of a UsageBatch."""
    field = pb.ToCoordinator.DESCRIPTOR.fields_by_name["usage"].number
    length, size = bytearray(), len(batch)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([field << 3 | 2]) + bytes(length) + batch
