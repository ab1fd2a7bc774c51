"""Drills of the kill switch under way: who has confirmed, and of whom that is yet to come."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator

from costd.clock import Clock
from costd.model.time import NS_PER_S
from costd.wire.pb import admission_pb2 as pb

Push = Callable[[pb.DaemonMessage], None]


class Drill:
    """One drill under way: who has confirmed, and of whom that is yet to be heard."""

    def __init__(self, message: pb.DaemonMessage, session_ids: Iterable[str]) -> None:
        self.message = message
        """What each process is told."""
        self.awaited = set(session_ids)
        self._gone: set[str] = set()
        """Who left with nothing to draw from; who comes back is awaited again."""
        self.confirmed: dict[str, int] = {}
        """When, on the steady clock, by session."""
        self._nobody_awaited = asyncio.Event()

    def confirm(self, session_id: str, steady_ns: int) -> None:
        """Note that a process has confirmed; only the first time counts."""
        if session_id in self.awaited:
            self.confirmed[session_id] = steady_ns
            self._await_no_longer(session_id)

    def give_up(self, session_id: str) -> None:
        """Wait for a process no longer, unless it comes back."""
        if session_id in self.awaited:
            self._gone.add(session_id)
            self._await_no_longer(session_id)

    def asks(self, session_id: str) -> bool:
        """Tell whether a process that has come back is to confirm; it is awaited then."""
        if session_id in self._gone:
            self._gone.discard(session_id)
            self.awaited.add(session_id)
        return session_id in self.awaited

    def _await_no_longer(self, session_id: str) -> None:
        self.awaited.discard(session_id)
        if not self.awaited:
            self._nobody_awaited.set()

    async def wait(self, timeout_ns: int) -> None:
        """Return once nobody is awaited any more, at the latest after so long."""
        if not self.awaited:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_ns / NS_PER_S):
                while self.awaited:  # somebody may have come back since nobody was
                    self._nobody_awaited.clear()
                    await self._nobody_awaited.wait()


class Drills:
    """The drills under way; the desk tells them what it hears of client processes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: list[Drill] = []

    @contextlib.contextmanager
    def running(self, drill: Drill) -> Iterator[None]:
        """Have a drill hear of what happens."""
        self._running.append(drill)
        try:
            yield
        finally:
            self._running.remove(drill)

    def confirmed(self, session_id: str, generation: int) -> None:
        """Hear what a process's draws look at; 0 says nothing of it."""
        for drill in self._running:
            if generation >= drill.message.generation.generation:
                drill.confirm(session_id, self._clock.now().steady_ns)

    def ask_again(self, session_id: str, push: Push, welcome: pb.Welcome) -> None:
        """Ask a process that has come back on another stream, by what it was just told.

        Not by what the drill told the others: generations may have changed since, and a client
        that took an old one for new would draw what was revoked meanwhile.
        """
        asking = [drill for drill in self._running if drill.asks(session_id)]
        if asking:
            generation = pb.Generation(
                generation=welcome.generation, scope_labels=welcome.scope_labels, confirm=True
            )
            push(pb.DaemonMessage(generation=generation))

    def detached(self, session_id: str, *, holds: bool) -> None:
        """Hear that a stream has ended; who holds nothing has to ask, and so hears."""
        for drill in self._running:
            if not holds:
                drill.give_up(session_id)
