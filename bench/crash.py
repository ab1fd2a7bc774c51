"""`make crash`: kill -9 the daemon again and again under load, then audit the books."""

import argparse
import asyncio
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.audit import discrepancies
from bench.callers import Crew, mark
from bench.daemon import measured_daemon
from bench.journal import Journal
from costd.model.decision import Verdict
from costd.model.reservation import ReservationState
from costd.policy import parse_policy
from costd.store.rocks import STORE_FOLDER, RocksStore
from costd.testing import DaemonProcess
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb import control_pb2_grpc

ROUNDS_COUNT: Final = 50
CALLERS_COUNT: Final = 24
CHANNELS_COUNT: Final = 6
LIFE_S_MAX: Final = 0.8
"""How long a daemon lives at most, from its first answer on."""
STILLBORN: Final = 0.1
"""The share of daemons that are killed while they start."""
START_S: Final = 1.0
PROBLEMS_SHOWN_MAX: Final = 20

POLICY: Final = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes: {draft: {}}
budgets:
  - {id: all, window: total}
  - {id: calls, per: user, window: total, limit: "100,000,000 calls"}
  - id: project
    match: {project: [api, web]}
    per: project
    window: total
    limit: $1,000,000
  - id: tight
    match: {project: tight}
    window: total
    limit: $0.40
    steps:
      - {at: 30%, do: [tier_down]}
rates:
  - {id: flow, per: user, limit: "1,000,000 requests per second"}
default_task_class: draft
default_tier: premium
expiry: {ttl: 12h}
"""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a run showed."""

    journal: Journal
    kills_count: int
    asks_hit: dict[int, int]
    problems: list[str]
    took_s: float

    @property
    def kills_that_hit_count(self) -> int:
        """How many kills cost some caller the answer to an ask."""
        return len(self.asks_hit)

    @property
    def hits_enough(self) -> bool:
        """Whether at least half of the kills did."""
        return 2 * self.kills_that_hit_count >= self.kills_count


async def crash(
    directory: Path, seed: int, rounds_count: int, *, advance: Callable[[], None] = lambda: None
) -> Outcome:
    """Kill the daemon so many times while callers ask; then audit what is left.

    Errors: DaemonFailed if it does not come back; AioRpcError if it answers with an error.
    """
    started = time.monotonic()
    chance = random.Random(seed)
    daemon = measured_daemon(directory, POLICY)
    crew = Crew(daemon.address, seed, callers_count=CALLERS_COUNT, channels_count=CHANNELS_COUNT)
    try:
        for number in range(1, rounds_count + 1):
            await _one_life(daemon, crew, chance, number)
            advance()
        await asyncio.to_thread(daemon.start)
        await crew.finish()
        # Once more, so that the last answers, too, stand only on what was answered.
        await asyncio.to_thread(daemon.kill)
        status = await asyncio.to_thread(_status_after_restart, daemon)
    finally:
        await crew.close()
        daemon.close()
    return Outcome(
        journal=crew.journal,
        kills_count=rounds_count,
        asks_hit=crew.asks_hit,
        problems=_problems(daemon.data / STORE_FOLDER, crew.journal, status),
        took_s=time.monotonic() - started,
    )


async def _one_life(daemon: DaemonProcess, crew: Crew, chance: random.Random, number: int) -> None:
    """Start the daemon, let it answer for a while, kill it."""
    if chance.random() < STILLBORN:
        daemon.launch()
        await asyncio.sleep(chance.uniform(0, START_S))
    else:
        await asyncio.to_thread(daemon.start)
        crew.answered.clear()
        await crew.answered.wait()
        await asyncio.sleep(chance.uniform(0, LIFE_S_MAX))
    crew.check()
    mark(crew.flights, number)
    daemon.signal(signal.SIGKILL)
    await asyncio.to_thread(daemon.ended)


def _status_after_restart(daemon: DaemonProcess) -> cpb.Status:
    """Ask the daemon itself how it stands, and stop it."""
    daemon.start()
    with grpc.insecure_channel(daemon.control_address) as channel:
        stub: Any = control_pb2_grpc.ControlStub(channel)  # type: ignore[no-untyped-call]
        status: cpb.Status = stub.GetStatus(cpb.GetStatusRequest())
    daemon.stop()
    return status


def _problems(path: Path, journal: Journal, status: cpb.Status) -> list[str]:
    """Audit the store itself, and what the daemon said of it."""
    store = RocksStore(path)
    try:
        problems = discrepancies(store, parse_policy(POLICY, "crash policy"), journal)
    finally:
        store.close()
    held = [e for e in journal.answered if e.is_held and e.state is ReservationState.HELD]
    told = (status.open_reservations_count, status.reserved_nusd)
    seen = (len(held), sum(entry.hold_nusd for entry in held))
    if told != seen:
        problems.append(f"the daemon reports (open, reserved) {told}; callers saw {seen}")
    unanswered_count = len(journal.entries) - len(journal.answered)
    if unanswered_count:
        problems.append(f"{unanswered_count} asks were never answered")
    return problems


def table_of(outcome: Outcome) -> Table:
    """Lay out what happened."""
    journal = outcome.journal
    verdicts = [entry.verdict for entry in journal.answered]
    states = [entry.state for entry in journal.entries if entry.is_held]
    cost_nusd = sum(entry.cost_nusd for entry in journal.entries)
    table = Table(show_header=False)
    for what, count in (
        ("kills (-9)", f"{outcome.kills_count}"),
        ("… that hit asks in flight", f"{outcome.kills_that_hit_count}"),
        ("asks they hit", f"{sum(outcome.asks_hit.values()):,}"),
        ("decided, but the answer was lost: replayed", f"{journal.replayed_asks_count:,}"),
        ("closed, but the answer was lost: replayed", f"{journal.replayed_closings_count:,}"),
        ("decisions answered", f"{len(verdicts):,}"),
        *((f"… {verdict.name.lower()}", f"{verdicts.count(verdict):,}") for verdict in Verdict),
        *(
            (f"reservations {state.name.lower()}", f"{states.count(state):,}")
            for state in (ReservationState.SETTLED, ReservationState.VOIDED, ReservationState.HELD)
        ),
        ("settled, nano-USD", f"{cost_nusd:,}"),
        ("differences between books and callers", f"{len(outcome.problems)}"),
        ("took", f"{outcome.took_s:.0f} s"),
    ):
        table.add_row(what, count)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, report; exit 1 if the books differ or too few kills hit anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS_COUNT)
    parser.add_argument("--seed", type=int, default=None)
    chosen = parser.parse_args(arguments)
    seed = secrets.randbelow(2**32) if chosen.seed is None else chosen.seed
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(f"seed {seed}: draws what is asked and when kills come (--seed {seed})")
    columns = (TextColumn("kills"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="costd-", dir="/tmp") as directory,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task("kills", total=chosen.rounds)
        outcome = asyncio.run(
            crash(Path(directory), seed, chosen.rounds, advance=lambda: progress.advance(task))
        )
    console.print(table_of(outcome))
    for problem in outcome.problems[:PROBLEMS_SHOWN_MAX]:
        console.print(problem, markup=False, style="red")
    if outcome.problems:
        console.print(f"the books differ from what callers saw; seed {seed}", style="red")
        return 1
    if not outcome.hits_enough:
        console.print("fewer than half of the kills hit asks in flight; this proves too little")
        return 1
    console.print("every answer is in the books, none twice", style="green")
    return 0


if __name__ == "__main__":
    sys.exit(main())
