"""How much of a fleet's budget is used when the first call is refused for good."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import grpc

from bench.daemon import admission_stub
from bench.figures import Figure
from bench.fleet.processes import Coordinator, Server, fleet_daemons
from costd.wire.pb import admission_pb2 as pb

CALLERS_COUNT: Final = 2
"""Of each daemon."""
CALLS_IN_LIMIT: Final = 10_000
"""A call is a ten-thousandth of the limit."""
HOLD_NUSD: Final = 7_000_000
LARGE_PROMPT_TOKENS: Final = 100_000
"""Of the calls before, at each daemon in turn, which use most of the limit: so that a round takes
seconds."""
PROMPT_TOKENS: Final = 1_200
OUTPUT_TOKENS: Final = 400
PAUSE_S: Final = 0.002
NO_LEASE_MAX: Final = 1_000
POLICY: Final = f"""\
version: 1
tiers:
  premium: {{models: [openai/gpt-4o]}}
task_classes:
  draft: {{max_output_tokens: 1000}}
default_task_class: draft
default_tier: premium
budgets:
  - {{id: project-month, per: project, window: month, limit: "${HOLD_NUSD * CALLS_IN_LIMIT / 1e9}"}}
"""


class Utilisation:
    """One round: a fresh budget is used up by daemons of unequal demand, until the first refusal.

    Shape:   daemon n asks half as often as daemon n - 1. What counts as used is what clients were
             told is admitted by the time that the refusal arrives; every second call is settled at
             once, at what was held for it, the others stay in flight.
    """

    def __init__(
        self,
        directory: Path,
        stack: ExitStack,
        server: Server,
        *,
        daemons_count: int,
        used_before: float,
    ) -> None:
        directory = directory / "used"
        coordinator = Coordinator(directory / "coordinator", stack, server, POLICY)
        names = [f"d{n}" for n in range(daemons_count)]
        self._daemons = fleet_daemons(directory, stack, coordinator, names)
        self._used_before = used_before
        self._addresses = [daemon.address for daemon in self._daemons]
        self.used: list[float] = []
        self.no_lease_counts: list[float] = []

    def round(self) -> None:
        """Measure once."""
        race = _Race(f"round-{len(self.used)}", self._used_before)
        asyncio.run(race.run(self._addresses))
        self.used.append(race.used_nusd / (HOLD_NUSD * CALLS_IN_LIMIT))
        self.no_lease_counts.append(race.no_lease_count)

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        return [
            Figure(
                key="fleet_utilisation",
                what="settled and in flight ÷ limit at the first final refusal, "
                f"{len(self._daemons)} daemons of unequal demand, calls of 0.01 % of the limit",
                unit="",
                samples=tuple(self.used),
                target=0.995,
                more_is_better=True,
                decimals=4,
            ),
            Figure(
                key="fleet_utilisation_no_lease",
                what="calls refused on the way because no answer came in time; asked again",
                unit="calls",
                samples=tuple(self.no_lease_counts),
                decimals=0,
            ),
        ]


class _Race:
    def __init__(self, project: str, used_before: float) -> None:
        self._project = project
        self._used_before = used_before
        self._serial = 0
        self._refused = False
        self.used_nusd = 0
        self.no_lease_count = 0

    async def run(self, addresses: list[str]) -> None:
        """Ask everywhere until the first refusal."""
        channels = [grpc.aio.insecure_channel(address) for address in addresses]
        stubs = [admission_stub(channel) for channel in channels]
        while self.used_nusd < self._used_before * CALLS_IN_LIMIT * HOLD_NUSD:
            stub = stubs[self._serial % len(stubs)]
            await self._call(stub, LARGE_PROMPT_TOKENS, settles=True)
            assert not self._refused, "the larger calls fit"
        await asyncio.gather(
            *(
                self._caller(stub, pause_s=PAUSE_S * 2**number)
                for number, stub in enumerate(stubs)
                for _ in range(CALLERS_COUNT)
            )
        )
        await asyncio.gather(*(channel.close() for channel in channels))

    async def _caller(self, stub: Any, *, pause_s: float) -> None:
        settles = False
        while not self._refused:
            await self._call(stub, PROMPT_TOKENS, settles=settles)
            settles = not settles
            await asyncio.sleep(pause_s)

    async def _call(self, stub: Any, prompt_tokens: int, *, settles: bool) -> None:
        self._serial += 1
        decision: pb.Decision = await stub.Admit(
            pb.AdmitRequest(
                ask_id=f"bench-{self._project}-{self._serial:09d}",
                task_class="draft",
                labels={"project": self._project},
                provider="openai",
                model="gpt-4o",
                prompt_tokens=prompt_tokens,
                max_output_tokens=OUTPUT_TOKENS,
            )
        )
        if self._refused:
            return  # it was decided after the refusal, as far as anybody can tell
        if decision.reservation_id:
            self.used_nusd += decision.hold_nusd
            if settles:
                await stub.Settle(
                    pb.SettleRequest(
                        reservation_id=decision.reservation_id, cost_nusd=decision.hold_nusd
                    )
                )
        elif decision.reason == pb.REASON_NO_LEASE:
            self.no_lease_count += 1
            assert self.no_lease_count < NO_LEASE_MAX, "the coordinator answers"
        else:
            assert decision.reason == pb.REASON_BUDGET_EXHAUSTED, decision
            self._refused = True
