"""Callers that ask, settle, void and ask again, however often the daemon dies under them."""

import asyncio
import random
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import grpc

from bench.daemon import admission_stub
from bench.journal import Entry, Journal
from costd.model.reservation import ReservationState
from costd.wire.pb import admission_pb2 as pb

CALL_S_MAX: Final = 30.0
PAUSE_S_MAX: Final = 0.004
RETRY_S: Final = 0.02
PROJECTS: Final = ("api", "web", "tight")
USERS_COUNT: Final = 12
LEFT_OPEN: Final = 0.1
VOIDED: Final = 0.1
"""Of those that are closed; the rest is settled."""
PRICED: Final = 0.5
"""Of those that are settled: by usage, which the daemon prices; the rest by a cost."""
ASKED_AGAIN: Final = 0.05
IMPATIENT: Final = 0.1
"""Callers that hang up soon and ask again: they may have been decided, and not know."""
IMPATIENCE_S_MAX: Final = 0.03

_RETRIED: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,  # what reached a daemon as it stopped
}
_CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(slots=True, eq=False)
class Flight:
    """One attempt of one call, from sending to its answer or error."""

    is_ask: bool
    kill_number: int = 0
    """Which kill came while it was out; 0 for none."""


class Crew:
    """Many callers of one daemon, in one event loop.

    `flights` is what is out now; whoever kills the daemon marks them, and those that then fail
    were hit.
    """

    def __init__(self, address: str, seed: int, *, callers_count: int, channels_count: int) -> None:
        self.journal = Journal()
        self.flights: set[Flight] = set()
        self.asks_hit: dict[int, int] = {}
        """Asks lost to each kill, by its number."""
        self.answered = asyncio.Event()
        """Set at every decision; whoever wants to know of the next one clears it."""
        self.is_stopping = False
        self._channels = [
            grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
            for _ in range(channels_count)
        ]
        stubs = [admission_stub(channel) for channel in self._channels]
        self._tasks = []
        for number in range(callers_count):
            caller = _Caller(
                self, f"caller-{number:02d}", stubs[number % channels_count], seed + number
            )
            self._tasks.append(asyncio.create_task(caller.work()))

    def check(self) -> None:
        """Raise what ended a caller, if anything has."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def finish(self) -> None:
        """Let every caller get the answer it waits for, then end."""
        self.is_stopping = True
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in self._channels))


class _Caller:
    """One caller: asks, pauses, sometimes asks again, closes; then the next ask."""

    def __init__(self, crew: Crew, name: str, stub: Any, seed: int) -> None:
        self._crew = crew
        self._journal = crew.journal
        self._name = name
        self._stub = stub
        self._random = random.Random(seed)
        self._metadata = (("costd-caller", name),)

    async def work(self) -> None:
        """Go on until the crew stops."""
        chance = self._random
        while not self._crew.is_stopping:
            entry = Entry(
                caller=self._name,
                ask_id=str(uuid.UUID(int=chance.getrandbits(128), version=4)),
                project=chance.choice(PROJECTS),
                user=f"user-{chance.randrange(USERS_COUNT):02d}",
            )
            self._journal.entries.append(entry)
            request = _ask(entry, chance)
            await self._ask(entry, request)
            await asyncio.sleep(chance.uniform(0, PAUSE_S_MAX))
            if not entry.is_held:
                continue
            if chance.random() < ASKED_AGAIN:
                await self._ask(entry, request)
            if chance.random() >= LEFT_OPEN:
                await self._close(entry)

    async def _ask(self, entry: Entry, request: pb.AdmitRequest) -> None:
        """Ask until answered; the same ask must get the same answer."""
        again = entry.is_held
        decision: pb.Decision = await self._call(self._stub.Admit, request, is_ask=True)
        self._crew.answered.set()
        if decision.replayed and not again:
            self._journal.replayed_asks_count += 1
        seen = (decision.reservation_id, decision.hold_nusd, decision.model)
        if again and seen != (entry.reservation_id, entry.hold_nusd, entry.model):
            self._journal.complain(entry, f"asked again, it got {seen}")
        if again and not decision.replayed:
            self._journal.complain(entry, "asked again, it was decided anew")
        entry.verdict = decision.verdict
        if decision.reservation_id:
            entry.reservation_id, entry.hold_nusd, entry.model = seen

    async def _close(self, entry: Entry) -> None:
        """Settle or void, until told that it is done."""
        expected: int | None = 0
        if self._random.random() < VOIDED:
            void = pb.VoidRequest(reservation_id=entry.reservation_id)
            closed = await self._call(self._stub.Void, void)
            state = ReservationState.VOIDED
        else:
            settle, expected = _settlement(entry, self._random)
            closed = await self._call(self._stub.Settle, settle)
            state = ReservationState.SETTLED
        if closed.replayed:
            self._journal.replayed_closings_count += 1
        if expected is not None and closed.cost_nusd != expected:
            self._journal.complain(entry, f"closed at {expected}, told {closed.cost_nusd}")
        if closed.state != state:
            self._journal.complain(entry, f"closed, but told state {closed.state}")
        entry.state, entry.cost_nusd = state, closed.cost_nusd

    async def _call(self, method: Any, request: Any, *, is_ask: bool = False) -> Any:
        """Call until answered; sometimes hang up first, as if the answer had been lost.

        Errors: AioRpcError for whatever is not a daemon that cannot be reached.
        """
        timeout_s = CALL_S_MAX
        if self._random.random() < IMPATIENT:
            timeout_s = self._random.uniform(0, IMPATIENCE_S_MAX)
        while True:
            flight = Flight(is_ask)
            self._crew.flights.add(flight)
            try:
                return await method(
                    request, metadata=self._metadata, timeout=timeout_s, wait_for_ready=True
                )
            except grpc.aio.AioRpcError as error:
                if error.code() not in _RETRIED:
                    raise
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    self._note_hit(flight)
            finally:
                self._crew.flights.discard(flight)
            timeout_s = CALL_S_MAX
            await asyncio.sleep(RETRY_S)

    def _note_hit(self, flight: Flight) -> None:
        if flight.is_ask and flight.kill_number:
            hit = self._crew.asks_hit.get(flight.kill_number, 0)
            self._crew.asks_hit[flight.kill_number] = hit + 1


def mark(flights: Iterable[Flight], kill_number: int) -> None:
    """Note which calls are out at a kill."""
    for flight in flights:
        flight.kill_number = kill_number


def _ask(entry: Entry, chance: random.Random) -> pb.AdmitRequest:
    return pb.AdmitRequest(
        ask_id=entry.ask_id,
        task_class="draft",
        labels={"project": entry.project, "user": entry.user},
        provider="openai",
        model="gpt-4o",
        prompt_tokens=chance.randrange(1, 4_000),
        max_output_tokens=chance.randrange(1, 1_000),
    )


def _settlement(entry: Entry, chance: random.Random) -> tuple[pb.SettleRequest, int | None]:
    """Make a settlement and say what it must cost, where the caller says so itself."""
    if chance.random() < PRICED:
        usage = pb.Usage(
            prompt_tokens=chance.randrange(1, 4_000), output_tokens=chance.randrange(1, 1_000)
        )
        return pb.SettleRequest(reservation_id=entry.reservation_id, usage=usage), None
    cost_nusd = chance.randrange(0, 2 * entry.hold_nusd)
    return pb.SettleRequest(reservation_id=entry.reservation_id, cost_nusd=cost_nusd), cost_nusd
