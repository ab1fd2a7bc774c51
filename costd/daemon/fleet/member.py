"""A daemon's stream to the coordinator: bytes in and out around its tenancy."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import grpc

from costd.daemon.fleet.tenancy import Tenancy
from costd.errors import StoreUnavailable
from costd.model.time import NS_PER_S
from costd.telemetry.logs import Log
from costd.wire.pb import fleet_pb2 as pb

TICK_S: Final = 0.02
"""How late a report, a repeated request or an ask ahead of need may be."""
WAIT_S_FIRST: Final = 0.1
WAIT_S_MAX: Final = 5.0
"""Between attempts to reach a coordinator; half of it is chance, so that a fleet does not return
as one."""
SILENT_S_MAX: Final = 5.0
"""A coordinator that says nothing for so long is not there; longer where reports are rare."""
REPORTS_MISSED_MAX: Final = 3
CLOCK_OFF_NS: Final = 2 * NS_PER_S
"""A clock that differs so much from the coordinator's is told of; by default it lends nothing to
one that is off by five seconds."""
JOIN: Final = "/costd.v1.Fleet/Join"
RECEIPTS: Final = {"receipt", "stored"}
"""What the coordinator has is true whether or not a full disk takes it here: a restart tells it
again, and nothing is stored twice. The tenure is renewed only once it could be written."""

Open = Callable[[str], grpc.aio.Channel]
Hear = Callable[[pb.ToDaemon], Awaitable[None] | None]


class Member:
    """Keeps the stream up; what comes is for the tenancy, or for whoever else is named."""

    def __init__(
        self, tenancy: Tenancy, targets: Sequence[str], open_channel: Open, log: Log
    ) -> None:
        """Join at one of `targets`: in turn, from the first, until one takes this daemon in."""
        self.tenancy = tenancy
        self._targets = targets
        self._turn = 0
        self._open_channel = open_channel
        self._log = log
        self.hears: dict[str, Hear] = {}
        """Who acts on messages that are not of leases or usage: policy, kills, drill."""
        self.problem = "not tried yet"
        """Why there is no stream; empty while there is one."""
        self._told: set[str] = set()
        """Problems that were logged since it was last joined: each once, however often it comes."""
        self._clock_is_off = False
        self._sending: asyncio.Queue[pb.ToCoordinator] | None = None

    @property
    def target(self) -> str:
        """The coordinator that it is joined to, or tries next."""
        return self._targets[self._turn % len(self._targets)]

    def push(self, message: pb.ToCoordinator) -> None:
        """Send a message, if anybody listens."""
        if self._sending is not None:
            self._sending.put_nowait(message)

    async def run(self) -> None:
        """Stay joined until cancelled."""
        wait_s = WAIT_S_FIRST
        while True:
            enrolled = await self._stay()
            self._turn += 1
            # Others may be there though one is not: it waits longer only once all were tried.
            if enrolled:
                wait_s = WAIT_S_FIRST
            elif self._turn % len(self._targets) == 0:
                wait_s = min(2 * wait_s, WAIT_S_MAX)
            await asyncio.sleep(wait_s * (0.5 + random.random() / 2))  # noqa: S311  only spreads

    async def _stay(self) -> bool:
        """Join once and stay as long as it lasts; whether the coordinator took this daemon in."""
        async with self._open_channel(self.target) as channel:
            join = channel.stream_stream(
                JOIN,
                request_serializer=pb.ToCoordinator.SerializeToString,
                response_deserializer=pb.ToDaemon.FromString,
            )
            call = join()
            self._sending = asyncio.Queue()
            self.tenancy.connected(self.push)
            work = [
                asyncio.create_task(self._write(call)),
                asyncio.create_task(self._tick()),
                asyncio.create_task(self._read(call)),
            ]
            enrolled = False
            try:
                done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
                enrolled = self.tenancy.is_enrolled
                self._tell([one.exception() for one in done], enrolled=enrolled)
            finally:
                self._sending = None
                self.tenancy.disconnected()
                call.cancel()
                for one in work:
                    one.cancel()
                await asyncio.gather(*work, return_exceptions=True)
            return enrolled

    async def _write(self, call: Any) -> None:
        assert self._sending is not None
        while True:
            await call.write(await self._sending.get())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tenancy.tick()

    async def _read(self, call: Any) -> None:
        while True:
            silent_s = self._silent_s_max
            try:
                async with asyncio.timeout(silent_s):
                    message = await call.read()
            except TimeoutError:
                raise ConnectionError(f"nothing was said for {silent_s:g} s") from None
            if message is grpc.aio.EOF:
                await call.code()
                raise ConnectionError(await call.details() or "the stream ended")
            if message.HasField("late"):
                self._log.error(
                    "books_are_old",
                    problem="the coordinator has heard later news of this daemon than its books "
                    "have; what they do not know of stays taken",
                    epoch=message.late.epoch,
                )
            hear = self.hears.get(message.WhichOneof("message"))
            if hear is None:
                self._receive(message)
                self._look_at_clock()
            elif (waits := hear(message)) is not None:
                await waits

    def _receive(self, message: pb.ToDaemon) -> None:
        """Have the tenancy act on a message, and say once that it was taken in.

        Errors:  StoreUnavailable for what the books must have; what is granted without that would
                 be lost, so the stream ends, and the next one tells the whole truth.
        """
        kind = message.WhichOneof("message")
        try:
            self.tenancy.receive(message)
        except StoreUnavailable:
            if kind not in RECEIPTS:
                raise
        if kind == "welcome" and self.problem:
            self.problem = ""
            self._told.clear()
            self._log.info(
                "coordinator_joined", coordinator=self.target, epoch=message.welcome.epoch
            )

    def _look_at_clock(self) -> None:
        """Say once that this host's clock is off, and once that it is right again."""
        offset_ns = self.tenancy.clock_offset_ns
        is_off = abs(offset_ns) > CLOCK_OFF_NS
        if is_off and not self._clock_is_off:
            self._log.error(
                "clock_off",
                offset_s=-offset_ns / NS_PER_S,
                problem="this host's clock differs from the coordinator's, which lends nothing to "
                "daemons whose clock is off by more than its skew_max_s; set the clock",
            )
        elif self._clock_is_off and not is_off:
            self._log.info("clock_right")
        self._clock_is_off = is_off

    @property
    def _silent_s_max(self) -> float:
        report_s = self.tenancy.report_every_ns / NS_PER_S
        return max(SILENT_S_MAX, REPORTS_MISSED_MAX * report_s)

    def _tell(self, errors: list[BaseException | None], *, enrolled: bool) -> None:
        error = next((one for one in errors if one is not None), None)
        problem = f"{self.target}: {_describe(error)}"
        if problem not in self._told:
            self._log.warning("coordinator_lost", problem=problem, was_enrolled=enrolled)
            self._told.add(problem)
        self.problem = problem


def _describe(error: BaseException | None) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
