"""A worker process: some of the agents, or a share of a trace's rows.

Told what to do by lines of JSON on standard input, the first of which is an Assignment; its end
means that nobody waits for this worker any more. Everything it sees goes into its journal.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
from costd_client import AsyncClient, Client

from costd.cli.demo import trace
from costd.cli.demo.calls import TIMEOUT_S, make, make_at_once
from costd.cli.demo.cast import Agent, agents
from costd.cli.demo.journal import JournalWriter
from costd.cli.demo.loop import spin
from costd.clock import ticks_ns
from costd.model.time import NS_PER_S

FLUSH_S = 0.1
BACK_OFF = 3
"""A refused agent waits so many times as long before it asks again."""
IN_FLIGHT_MAX = 250
"""More calls at once than this only wait for each other."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """Which part a worker plays: agents (no trace), a trace at its pace, or one call at a time."""

    seed: int
    address: str = ""
    journal: str = ""
    worker: int = 0
    workers_count: int = 1
    trace: str = ""
    limit_count: int = 0
    speed: float = 0.0
    """Seconds of the trace that pass in one."""
    serial: bool = False


class Cue(msgspec.Struct, frozen=True, kw_only=True):
    """Which groups are at work from now on, and the override grant some of them hold."""

    groups: list[str] = []
    grant: str = ""
    spins: bool = False
    """Whether the first worker spins a loop."""


class Troupe:
    """The agents of one worker."""

    def __init__(self, client: AsyncClient, journal: JournalWriter, part: Assignment) -> None:
        self._client = client
        self._journal = journal
        self._part = part
        members = agents(part.seed)[part.worker :: part.workers_count]
        self._members = members
        self._loops: list[asyncio.Task[None]] = []
        self._at_work = {agent.group.name: asyncio.Event() for agent in members}
        self._grant = ""

    def take(self, cue: Cue) -> None:
        """Start and stop groups."""
        self._grant = cue.grant
        if cue.spins and self._part.worker == 0:
            self._loops.append(asyncio.create_task(self._spin()))
        for name, at_work in self._at_work.items():
            if name in cue.groups:
                at_work.set()
            else:
                at_work.clear()

    async def perform(self, cues: asyncio.StreamReader) -> None:
        """Let every agent live until the cues end; calls under way are finished."""
        over = asyncio.Event()
        lives = [asyncio.create_task(self._live(agent, over)) for agent in self._members]
        while line := await cues.readline():
            self.take(msgspec.json.decode(line, type=Cue))
        over.set()
        for at_work in self._at_work.values():
            at_work.set()
        await asyncio.gather(*lives, *self._loops)

    async def _spin(self) -> None:
        for entry in await asyncio.to_thread(spin, self._part.address):
            self._journal.write(entry)

    async def _live(self, agent: Agent, over: asyncio.Event) -> None:
        at_work = self._at_work[agent.group.name]
        pauses = 1
        while True:
            await at_work.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pauses * agent.pause_s()):
                    await over.wait()
            if over.is_set():
                return
            if not at_work.is_set():
                continue
            entry = await make(self._client, agent.next_call(self._grant))
            self._journal.write(entry)
            pauses = BACK_OFF if entry.ending == "denied" else 1


async def replay(client: AsyncClient, journal: JournalWriter, part: Assignment) -> None:
    """Make every call of this worker's share when the compressed trace says so, or soon after."""
    room = asyncio.Semaphore(IN_FLIGHT_MAX)
    started_ns = ticks_ns()

    async def one(row: trace.Row) -> None:
        try:
            journal.write(await make(client, trace.plan(row, part.seed, speed=part.speed)))
        finally:
            room.release()

    async with asyncio.TaskGroup() as calls:
        for row in _share(part):
            late_s = (ticks_ns() - started_ns) / NS_PER_S - row.offset_s / part.speed
            if late_s < 0:
                await asyncio.sleep(-late_s)
            await room.acquire()
            calls.create_task(one(row))


def replay_in_turn(part: Assignment) -> None:
    """Make one call after the other, each settled before the next is asked."""
    with (
        JournalWriter(Path(part.journal)) as journal,
        Client(part.address, caller="demo", timeout_s=TIMEOUT_S) as client,
    ):
        for count, row in enumerate(_share(part)):
            journal.write(make_at_once(client, trace.plan(row, part.seed)))
            if count % 50 == 0:
                journal.flush()


def _share(part: Assignment) -> list[trace.Row]:
    rows = trace.read_trace(Path(part.trace), part.limit_count)
    return rows[part.worker :: part.workers_count]


async def _work(part: Assignment) -> None:
    cues = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(cues), sys.stdin
    )
    async with AsyncClient(part.address, caller="demo", timeout_s=TIMEOUT_S) as client:
        with JournalWriter(Path(part.journal)) as journal:
            async with asyncio.TaskGroup() as work:
                flushing = work.create_task(_flush(journal))
                await (
                    replay(client, journal, part)
                    if part.trace
                    else Troupe(client, journal, part).perform(cues)
                )
                flushing.cancel()


async def _flush(journal: JournalWriter) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        journal.flush()


def _runner() -> asyncio.Runner:
    try:
        import uvloop  # noqa: PLC0415  absent where it has no wheel
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def main() -> None:
    """Do what standard input says."""
    # Ctrl-C is for the demo, which then closes our standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    part = msgspec.json.decode(_first_line(), type=Assignment)
    if part.serial:
        replay_in_turn(part)
        return
    work: Coroutine[Any, Any, None] = _work(part)
    with _runner() as runner:
        runner.run(work)


def _first_line() -> bytes:
    """Read the assignment byte by byte, so that no cue behind it is swallowed."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            break
        line += byte
    return line


if __name__ == "__main__":
    main()
