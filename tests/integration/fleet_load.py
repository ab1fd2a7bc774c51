"""Callers of every daemon of a fleet, and what they were told, held against all books."""

import asyncio
from collections import Counter as Tally
from contextlib import asynccontextmanager

from bench.callers import Crew
from costd.model.reservation import ReservationState
from costd.testing.fleet import operators_channel
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.control_pb2_grpc import ControlStub

POLICY = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes: {draft: {}}
budgets:
  - {id: all, window: total}
  - {id: calls, per: user, window: total, limit: "100,000,000 calls"}
  - {id: project, match: {project: [api, web]}, per: project, window: total, limit: $1000000}
  - {id: tight, match: {project: tight}, window: total, limit: $0.40}
  - {id: today, window: day, limit: $1000000}
default_task_class: draft
default_tier: premium
expiry: {ttl: 12h}
"""
CALLERS_COUNT = 4
"""Of each daemon."""


class Load:
    """Crews of all daemons of a fleet; their journals are kept over tests, as the books are."""

    def __init__(self, fleet):
        self.fleet = fleet
        self.journals = {id(daemon): [] for daemon in fleet.daemons}
        self._seed = 0
        self.crews = []

    @asynccontextmanager
    async def running(self):
        """Have callers ask for as long as this lasts; each then gets its last answer."""
        self._seed += 1_000
        self.crews = []
        for number, daemon in enumerate(self.fleet.daemons):
            crew = Crew(
                daemon.address,
                self._seed + 100 * number,
                callers_count=CALLERS_COUNT,
                channels_count=1,
            )
            self.journals[id(daemon)].append(crew.journal)
            self.crews.append(crew)
        try:
            await self.progress()
            yield self
            for crew in self.crews:
                crew.check()
            await asyncio.gather(*(crew.finish() for crew in self.crews))
        except BaseException as error:
            for daemon in self.fleet.daemons:
                error.add_note(daemon.log_text()[-4_000:])
            raise
        finally:
            for crew in self.crews:
                await crew.close()

    async def progress(self, answers_count=20):
        """Wait until every crew was given so many more answers."""
        for crew in self.crews:
            for _ in range(answers_count):
                crew.answered.clear()
                async with asyncio.timeout(30):
                    await crew.answered.wait()
                crew.check()

    async def admitted(self, answers_count=5):
        """Wait until every crew was lent something again: so many more asks that hold money."""
        for crew in self.crews:
            before = sum(entry.is_held for entry in crew.journal.entries)
            async with asyncio.timeout(30):
                while sum(e.is_held for e in crew.journal.entries) < before + answers_count:
                    crew.answered.clear()
                    await crew.answered.wait()

    def problems(self):
        """List in what callers, daemons and coordinator differ; nobody may be asking."""
        found = []
        for number, daemon in enumerate(self.fleet.daemons, 1):
            problems = _daemon_problems(daemon, self.journals[id(daemon)])
            found += [f"daemon {number}: {problem}" for problem in problems]
        return found + self.fleet.problems()


def _daemon_problems(daemon, journals):
    entries = [entry for journal in journals for entry in journal.entries]
    for journal in journals:
        yield from journal.complaints
    unanswered_count = sum(not entry.verdict for entry in entries)
    if unanswered_count:
        yield f"{unanswered_count} asks were never answered"
    with operators_channel(daemon.control_address) as channel:
        stub = ControlStub(channel)
        status = stub.GetStatus(cpb.GetStatusRequest(), wait_for_ready=True)
        events = stub.ListUsage(cpb.ListUsageRequest(limit_count=1_000_000)).events
    held = [e for e in entries if e.is_held and e.state is ReservationState.HELD]
    told = (len(held), sum(entry.hold_nusd for entry in held))
    booked = (status.open_reservations_count, status.reserved_nusd)
    if told != booked:
        yield f"callers hold (count, nano-USD) {told}; the daemon says {booked}"
    settled = Tally(
        (e.reservation_id, e.cost_nusd) for e in entries if e.state is ReservationState.SETTLED
    )
    stored = Tally((event.reservation_id, event.cost_nusd) for event in events)
    if settled != stored:
        yield (
            f"{sum((settled - stored).values())} settlements have no usage event, "
            f"{sum((stored - settled).values())} usage events no settlement"
        )
