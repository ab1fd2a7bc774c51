"""Drills of the fleet's kill switch: how long until every daemon and client has heard.

The replica that is asked tells its own daemons, and the other replicas, as of a kill switch. These
tell theirs, say who that is, and pass on what each confirms.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Final, Protocol, assert_never

from costd.clock import Clock
from costd.coordinator.drill_words import (
    DrillCall,
    DrillHeard,
    DrillRoll,
    DrillWord,
    confirmation_of,
    heard_from,
    roll_of,
)
from costd.coordinator.drilling import Drilling
from costd.coordinator.reception import Connection, Reception
from costd.coordinator.store import Instance
from costd.errors import CostdError
from costd.model.time import NS_PER_S
from costd.wire import fleet as wire
from costd.wire.pb import fleet_control_pb2 as cpb
from costd.wire.pb import fleet_pb2 as pb

TIMEOUT_NS: Final = 5 * NS_PER_S
TIMEOUT_NS_MAX: Final = 60 * NS_PER_S
DATABASE_S: Final = 1.0
"""How long a drill waits for the database to tell which other replicas there are."""
AFTER_NS: Final = NS_PER_S
"""Daemons wait for their clients as long as the timeout; their word may take so long behind it."""


class DrillStore(Protocol):
    """Carries word to other replicas; implemented by the coordinator's stores."""

    def tell_drill(self, words: Sequence[DrillWord]) -> Awaitable[bool]:
        """Tell every replica; False where they poll. Errors: CoordinatorUnavailable."""
        ...

    def list_instances(self) -> Awaitable[list[Instance]]:
        """List the replicas. Errors: CoordinatorUnavailable."""
        ...


class Drills:
    """The drills under way at this replica, its own and those that others ask of it."""

    def __init__(
        self, store: DrillStore, reception: Reception, clock: Clock, instance_id: str
    ) -> None:
        """Hear of what the daemons of `reception` confirm; `instance_id` names this replica."""
        self._store = store
        self._reception = reception
        self._clock = clock
        self._instance_id = instance_id
        self._running: dict[str, Drilling] = {}
        self._foreign: dict[str, tuple[DrillCall, int]] = {}
        """What another replica asked for, and until when it waits, by the drill's id."""
        self._words: asyncio.Queue[tuple[DrillWord, int]] = asyncio.Queue()
        """What is to be told, and until when somebody wants to know."""
        reception.drill_heard = self.confirmed

    async def run(self, timeout_ns: int) -> cpb.FleetDrillReport:
        """Tell every daemon, and report who heard when; nobody is stopped.

        Units:   times are nanoseconds since this call, on the steady clock.
        Ensures: the daemons of this replica are told at once, whatever the database does.
        """
        listening = self._reception.listening
        names = {daemon_id: connection.name for daemon_id, connection in listening.items()}
        drill = Drilling(f"drill-{uuid.uuid4().hex[:12]}", names, self._now_ns)
        self._running[drill.drill_id] = drill
        call = DrillCall(drill_id=drill.drill_id, from_id=self._instance_id, timeout_ns=timeout_ns)
        _push(listening, call)
        calling = asyncio.create_task(self._call(drill, call))
        try:
            await drill.wait((timeout_ns + AFTER_NS) / NS_PER_S)
        finally:
            calling.cancel()
            del self._running[drill.drill_id]
        return drill.report()

    def confirmed(self, connection: Connection, message: pb.DrillConfirmation) -> None:
        """Hear from a daemon of this replica."""
        daemon_id = connection.daemon_id or connection.claimed_id
        drill = self._running.get(message.drill_id)
        if drill is not None:
            drill.confirm(daemon_id, message)
        elif message.drill_id in self._foreign:
            call, until_ns = self._foreign[message.drill_id]
            self._words.put_nowait((heard_from(daemon_id, message, call.from_id), until_ns))

    def heard(self, word: DrillWord) -> None:
        """Hear from a replica, or from this one."""
        match word:
            case DrillCall():
                self._called(word)
            case DrillRoll() | DrillHeard():
                drill = self._running.get(word.drill_id)
                if drill is None or word.to_id != self._instance_id:
                    return
                if isinstance(word, DrillRoll):
                    drill.roll(word)
                else:
                    drill.confirm(word.daemon_id, confirmation_of(word))
            case _:
                assert_never(word)

    async def tell(self) -> None:
        """Tell other replicas what they wait for, until cancelled.

        Shape:   what gathers while some is on its way goes together: at its commit, whoever
                 notifies holds a lock that the whole server has one of.
        Ensures: what cannot be told is dropped; the drill reports whom it did not hear of.
        """
        while True:
            waiting = [await self._words.get()]
            while not self._words.empty():
                waiting.append(self._words.get_nowait())
            now_ns = self._now_ns()
            words = [word for word, until_ns in waiting if now_ns < until_ns]
            if words:
                with contextlib.suppress(CostdError):
                    await self._store.tell_drill(words)

    # ---- inside ------------------------------------------------------------------------------

    async def _call(self, drill: Drilling, call: DrillCall) -> None:
        """Have the other replicas drill as well, and expect what they will say."""
        calling = asyncio.create_task(self._call_others(call))
        try:
            # A database that stands still answers no cancellation either: it is left behind.
            await asyncio.wait({calling}, timeout=DATABASE_S)
            drill.expect(calling.result() if calling.done() else ())
        finally:
            calling.cancel()

    async def _call_others(self, call: DrillCall) -> Collection[str]:
        """Tell the other replicas, and return who they are; nobody where that cannot be known."""
        try:
            if not await self._store.tell_drill([call]):
                return ()
            instances = await self._store.list_instances()
        except CostdError:
            return ()
        return {each.instance_id for each in instances} - {self._instance_id}

    def _called(self, call: DrillCall) -> None:
        """Drill the daemons of this replica for another."""
        now_ns = self._now_ns()
        self._foreign = {
            drill_id: known for drill_id, known in self._foreign.items() if now_ns < known[1]
        }
        if call.from_id == self._instance_id or call.drill_id in self._foreign:
            return
        until_ns = now_ns + call.timeout_ns + AFTER_NS
        self._foreign[call.drill_id] = call, until_ns
        listening = self._reception.listening
        _push(listening, call)
        names = {daemon_id: connection.name for daemon_id, connection in listening.items()}
        for roll in roll_of(names, call, self._instance_id):
            self._words.put_nowait((roll, until_ns))

    def _now_ns(self) -> int:
        return self._clock.now().steady_ns


def _push(listening: Mapping[str, Connection], call: DrillCall) -> None:
    message = pb.ToDaemon(
        drill=pb.FleetDrill(drill_id=call.drill_id, timeout=wire.duration(call.timeout_ns))
    )
    for connection in list(listening.values()):
        connection.push(message)
