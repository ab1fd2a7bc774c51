"""The daemon over its Unix socket, beside servers that do nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import grpc

from bench.daemon import admission_stub, asking, measured_daemon
from bench.echo import KINDS, METHOD, echo_server, echoes
from bench.figures import Figure, p50_us, p99_us, ratios, timed
from bench.workload import Asks
from costd.wire.pb import admission_pb2 as pb

CALLERS: Final = (1, 8, 32)
ECHOED: Final = "uvloop"
"""The kind of server the daemon is, so that the rest is what costd adds."""


class AdmitAndEcho:
    """One round: the empty call to each server, then Admit and Settle to the daemon.

    One client process, one call at a time, requests made before the clock starts; parsing and
    writing them is part of the call, as it is for every caller.
    """

    def __init__(self, directory: Path, stack: ExitStack, *, asks_count: int) -> None:
        self._count = asks_count
        daemon = stack.enter_context(measured_daemon(directory / "rpc"))
        self._stub = stack.enter_context(asking(daemon))
        self._echoes = stack.enter_context(echoes(directory))
        self._asks = Asks(3)
        self.echo_p50: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.admit_p50: list[float] = []
        self.admit_p99: list[float] = []
        self.settle_p50: list[float] = []
        self.settle_p99: list[float] = []
        timed(self._stub.Admit, self._asks.wire(asks_count))
        for call in self._echoes.values():
            timed(call, [b""] * asks_count)

    def round(self) -> None:
        """Measure once, beginning with another one each round."""
        kinds = [*KINDS, "admit"]
        first = len(self.admit_p50) % len(kinds)
        for kind in kinds[first:] + kinds[:first]:
            if kind == "admit":
                self._admit_and_settle()
            else:
                durations = timed(self._echoes[kind], [b""] * self._count)
                self.echo_p50[kind].append(p50_us(durations))

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        medians = {kind: sorted(p50)[len(p50) // 2] for kind, p50 in self.echo_p50.items()}
        fastest = min(medians, key=medians.__getitem__)
        return [
            Figure(
                key="rpc_over_echo",
                what=f"durable Admit over the socket ÷ empty echo ({fastest}, the fastest), p50",
                unit="×",
                samples=ratios(self.admit_p50, self.echo_p50[fastest]),
                target=1.25,
            ),
            _told("admit_rpc_us_p50", "Admit over the socket, p50", self.admit_p50),
            _told("admit_rpc_us_p99", "Admit over the socket, p99", self.admit_p99),
            _told("settle_rpc_us_p50", "Settle over the socket, p50", self.settle_p50),
            _told("settle_rpc_us_p99", "Settle over the socket, p99", self.settle_p99),
            *(
                _told(f"echo_{kind}_us_p50", f"empty echo, {kind} server, p50", p50)
                for kind, p50 in self.echo_p50.items()
            ),
        ]

    def _admit_and_settle(self) -> None:
        decisions: list[pb.Decision] = []

        def admit(request: pb.AdmitRequest) -> None:
            decisions.append(self._stub.Admit(request))

        admits = timed(admit, self._asks.wire(self._count))
        settles = timed(self._stub.Settle, [settle_request(decision) for decision in decisions])
        self.admit_p50.append(p50_us(admits))
        self.admit_p99.append(p99_us(admits))
        self.settle_p50.append(p50_us(settles))
        self.settle_p99.append(p99_us(settles))


class Throughput:
    """One round: so many callers at once, each asking again as soon as it is answered."""

    def __init__(self, directory: Path, stack: ExitStack, *, for_s: float) -> None:
        self._for_s = for_s
        self._daemon = stack.enter_context(measured_daemon(directory / "many"))
        self._echo_address = stack.enter_context(echo_server(directory, ECHOED))
        self._asks = Asks(4)
        self.admits: dict[int, list[float]] = {callers: [] for callers in CALLERS}
        self.echoes: dict[int, list[float]] = {callers: [] for callers in CALLERS}

    def round(self) -> None:
        """Measure once."""
        for callers in CALLERS:
            self.admits[callers].append(asyncio.run(self._admits_per_s(callers)))
            self.echoes[callers].append(asyncio.run(self._echoes_per_s(callers)))

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        return [
            Figure(
                key=f"{name}_per_s_{callers}",
                what=f"{what} at {callers} caller{'s' * (callers > 1)}",
                unit="/s",
                samples=tuple(measured[callers]),
                decimals=0,
            )
            for name, what, measured in (
                ("admits", "Admits a second", self.admits),
                ("echoes", f"empty echoes a second, {ECHOED} server,", self.echoes),
            )
            for callers in CALLERS
        ]

    async def _admits_per_s(self, callers: int) -> float:
        async with grpc.aio.insecure_channel(self._daemon.address) as channel:
            admit = admission_stub(channel).Admit
            return await self._per_s(callers, lambda: admit(self._asks.wire(1)[0]))

    async def _echoes_per_s(self, callers: int) -> float:
        async with grpc.aio.insecure_channel(self._echo_address) as channel:
            echo: Any = channel.unary_unary(METHOD)
            return await self._per_s(callers, lambda: echo(b""))

    async def _per_s(self, callers: int, call: Callable[[], Awaitable[object]]) -> float:
        await call()  # connect first
        answered_count = 0
        started = time.perf_counter()
        end = started + self._for_s

        async def caller() -> None:
            nonlocal answered_count
            while time.perf_counter() < end:
                await call()
                answered_count += 1

        await asyncio.gather(*(caller() for _ in range(callers)))
        return answered_count / (time.perf_counter() - started)


def settle_request(decision: pb.Decision) -> pb.SettleRequest:
    """Settle a call as most of them end."""
    usage = pb.Usage(prompt_tokens=1_150, cached_tokens=600, output_tokens=180)
    return pb.SettleRequest(
        reservation_id=decision.reservation_id, usage=usage, outcome=pb.OUTCOME_OK
    )


def _told(key: str, what: str, samples: list[float]) -> Figure:
    return Figure(key=key, what=what, unit="µs", samples=tuple(samples), decimals=1)
