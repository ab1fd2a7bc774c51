"""A worker process: the agents of every daemon. It never gives up on a call.

Told what to do by lines of JSON on standard input, the first of which is a Crew; its end means that
everyone finishes the call under way. Each call becomes a line of the journal once it is closed.
"""

import asyncio
import contextlib
import random
import signal
import sys
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec

from costd.cli.demo.calls import drawn
from costd.cli.demo.journal import JournalWriter
from costd.clock import ticks_ns
from costd.model.decision import Reason
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb.admission_pb2_grpc import AdmissionStub

ANSWER_S: Final = 10.0
AGAIN_S: Final = 0.1
"""Between two attempts at a daemon that is not there."""
PAUSE_S: Final = (0.2, 0.5)
BACK_OFF: Final = 3
"""A refused agent waits so many times as long before it asks again."""
LASTS_S: Final = (0.02, 0.1)
COST_NUSD: Final = (10_000_000, 30_000_000)
LEAST_SHARE: Final = 40
"""A call costs at least so many hundredths of what was held for it."""
_ABSENT: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
_CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
    ("grpc.use_local_subchannel_pool", 1),
)


class Crew(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the agents of which daemon ask, and where their journal is."""

    seed: int
    addresses: dict[str, str]
    agents_count: int
    journal: str


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Whether agents work from now on, and how many times as dear their calls are."""

    at_work: bool
    times: int = 1


class Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call as its agent saw it: refused, or paid."""

    daemon: str
    verdict: str
    reason: str
    reservation_id: str = ""
    cost_nusd: int = 0
    asking_ns: int = 0
    attempts_count: int = 2
    """How often ask and settle were sent; two where nobody was killed."""


class Agents:
    """All agents of this process, and what they are told."""

    def __init__(self, crew: Crew) -> None:
        self.order = Order(at_work=False)
        self.at_work = asyncio.Event()
        self.over = asyncio.Event()
        self._journal = JournalWriter(Path(crew.journal))
        self._crew = crew

    async def work(self, orders: asyncio.StreamReader) -> None:
        """Let every agent live until the orders end."""
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._journal)
            lives = []
            for daemon, address in self._crew.addresses.items():
                channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
                await stack.enter_async_context(channel)
                stub = AdmissionStub(channel)  # type: ignore[no-untyped-call]  # generated
                for number in range(self._crew.agents_count):
                    agent = Agent(self, stub, daemon, f"{daemon}-{number:02}", self._crew.seed)
                    lives.append(asyncio.create_task(agent.live()))
            while line := await orders.readline():
                self.order = msgspec.json.decode(line, type=Order)
                (self.at_work.set if self.order.at_work else self.at_work.clear)()
            self.over.set()
            self.at_work.set()
            await asyncio.gather(*lives)

    def write(self, call: Call) -> None:
        """Append one call to the journal."""
        self._journal.write(call)
        self._journal.flush()


class Agent:
    """One agent: asks, works, settles, at one daemon."""

    def __init__(self, agents: Agents, stub: Any, daemon: str, name: str, seed: int) -> None:
        self._agents = agents
        self._stub = stub
        self._daemon = daemon
        self._name = name
        self._draw = drawn(seed, "agent", name)
        self._attempts_count = 0

    async def live(self) -> None:
        """Call after call, until it is over."""
        pauses = 1
        while True:
            await self._agents.at_work.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pauses * self._draw.uniform(*PAUSE_S)):
                    await self._agents.over.wait()
            if self._agents.over.is_set():
                return
            if self._agents.at_work.is_set():
                call = await self._call(self._draw)
                self._agents.write(call)
                pauses = 1 if call.reservation_id else BACK_OFF

    async def _call(self, draw: random.Random) -> Call:
        self._attempts_count = 0
        estimate_nusd = draw.randint(*COST_NUSD) * self._agents.order.times
        ask = pb.AdmitRequest(
            ask_id=f"{self._name}-{draw.getrandbits(96):024x}",
            task_class="agent",
            labels={"agent": self._name, "host": self._daemon},
            estimated_cost_nusd=estimate_nusd,
        )
        asked_ns = ticks_ns()
        decision: pb.Decision = await self._patiently(self._stub.Admit, ask)
        asking_ns = ticks_ns() - asked_ns
        told = {
            "daemon": self._daemon,
            "verdict": pb.Verdict.Name(decision.verdict).removeprefix("VERDICT_").lower(),
            "reason": Reason(decision.reason).name,
            "asking_ns": asking_ns,
        }
        if not decision.reservation_id:
            return Call(**told, attempts_count=1 + self._attempts_count)  # type: ignore[arg-type]
        await asyncio.sleep(draw.uniform(*LASTS_S))
        cost_nusd = estimate_nusd * draw.randint(LEAST_SHARE, 100) // 100
        settle = pb.SettleRequest(reservation_id=decision.reservation_id, cost_nusd=cost_nusd)
        settlement = await self._patiently(self._stub.Settle, settle)
        return Call(
            **told,  # type: ignore[arg-type]  # each is its field's type
            reservation_id=decision.reservation_id,
            cost_nusd=settlement.cost_nusd,
            attempts_count=self._attempts_count,
        )

    async def _patiently(self, method: Any, request: Any) -> Any:
        """Send until it is answered: by ask id and reservation, a repeat is the same call."""
        while True:
            self._attempts_count += 1
            try:
                return await method(request, timeout=ANSWER_S)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _ABSENT:
                    raise
            await asyncio.sleep(AGAIN_S)


async def _main() -> None:
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    crew = msgspec.json.decode(await orders.readline(), type=Crew)
    await Agents(crew).work(orders)


if __name__ == "__main__":
    # Ctrl-C at the terminal is for the demo, which ends its workers by closing their input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_main())
