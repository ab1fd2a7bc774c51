"""`make soak`: millions of asks through short windows; the store must stay bounded.

In one process, on a fake clock: the production ledger, sweeper and RocksDB store.
"""

import argparse
import gc
import os
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from bench.daemon import rss_mib
from costd.daemon.books.ledger import Ledger
from costd.daemon.sweeper import Retention, Sweeper
from costd.engine.changes import Family
from costd.engine.invariants import books_problems
from costd.model.ask import Ask
from costd.model.reservation import ReservationState
from costd.policy import parse_policy
from costd.store.rocks import RocksStore
from costd.store.rocks_options import WAL_BYTES_MAX
from costd.testing import FakeClock

ASKS_COUNT: Final = 10_000_000
WINDOW_ASKS_COUNT: Final = 100
"""Asks in each window of a minute: ten million make 100,000 windows."""
WINDOW_S: Final = 60
USERS_COUNT: Final = 2_000
ABANDONED: Final = 0.03
VOIDED: Final = 0.05
SWEEP_EVERY_ASKS: Final = 50
OPEN_COUNT: Final = 10
"""How many calls are out at once."""
KEEP_S: Final = 1_800
"""How long anything is kept once it is over: so short that it is let go hundreds of times."""
SAMPLES_COUNT_MAX: Final = 100
SAMPLE_ASKS_COUNT_MIN: Final = 400
TOLD_EVERY: Final = 5

GROWTH_MAX: Final = 1.25
"""The highest of the last half over the highest of the second quarter. What is kept depends on
time only, so anything that grows is a leak; the margin is for compaction's sawtooth."""
SLACK_BYTES: Final = WAL_BYTES_MAX
"""RocksDB lets its log grow to this before it starts over."""
SLACK_RECORDS: Final = 100

POLICY: Final = """\
version: 1
task_classes: {draft: {}}
default_task_class: draft
budgets:
  - {id: everything, window: total}
  - id: user-minute
    per: user
    window: minute
    limit: $0.30
    steps:
      - {at: 50%, do: [alert]}
  - {id: team-hour, match: {team: "*"}, per: team, window: hour, limit: $1000}
  - {id: run, match: {run: "*"}, per: run, window: run, limit: $100}
rates:
  - {id: calls, per: user, limit: 600 requests per minute}
expiry: {ttl: 2m, late_settle: 30m}
"""

_KEPT: Final = (
    *(Family.COUNTERS, Family.RATES, Family.RESERVATIONS, Family.DUE),
    *(Family.USAGE, Family.ALERTS, Family.AUDIT),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How things stood after so many asks; `peak_bytes` is the most since the sample before."""

    asks_count: int
    peak_bytes: int
    records: dict[Family, int]
    rss_mib: float
    elapsed_s: float


@dataclass(slots=True)
class Outcome:
    """What a run showed."""

    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Soak:
    """One store, its ledger and its sweeper on a fake clock."""

    def __init__(self, path: Path, seed: int, *, keep_s: int = KEEP_S) -> None:
        """Open an empty store; `keep_s` is how long what is over is kept."""
        self._random = random.Random(seed)
        self._clock = FakeClock()
        self._store = RocksStore(path)
        policy = parse_policy(POLICY, "soak policy")
        self._ledger = Ledger(self._store, policy, self._clock, closed_keep_s=keep_s)
        retention = Retention(
            counters_s=keep_s,
            usage_s=keep_s,
            alerts_s=keep_s,
            audit_s=keep_s,
            runs_idle_s=keep_s,
            slice_count=SWEEP_EVERY_ASKS * 4,
        )
        self._sweeper = Sweeper(self._ledger, retention)
        self._open: deque[tuple[bytes, int]] = deque()
        self._asked_count = 0
        self._peak_bytes = 0
        self._started = time.monotonic()
        self.settled_nusd = 0
        """What was settled, and the holds of what was abandoned, which expire at their hold."""
        gc.collect()
        gc.freeze()

    def run(self, asks_count: int, *, advance: Callable[[Sample], None]) -> Outcome:
        """Ask so many times, then let everything that is open come to its end."""
        outcome = Outcome()
        every = max(SAMPLE_ASKS_COUNT_MIN, asks_count // SAMPLES_COUNT_MAX)
        for number in range(1, asks_count + 1):
            self._ask_and_close()
            if number % SWEEP_EVERY_ASKS == 0:
                self._sweeper.sweep()
                self._ledger.recent_alerts = []  # as the daemon does, which logs them
            if number % WINDOW_ASKS_COUNT == 0:
                self._peak_bytes = max(self._peak_bytes, self._store.size_bytes())
            if number % every == 0:
                sample = self._sample()
                outcome.samples.append(sample)
                advance(sample)
        outcome.problems = [*growth_problems(outcome.samples), *self._end()]
        return outcome

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    def _ask_and_close(self) -> None:
        """Ask once; close what was asked ten asks ago."""
        chance = self._random
        self._asked_count += 1
        number = self._asked_count
        ask = Ask(
            ask_id=f"soak-{number:015d}",
            task_class="draft",
            labels={
                "user": f"user-{chance.randrange(USERS_COUNT)}",
                "team": f"team-{number % 7}",
                "run": f"run-{number // 250}",
            },
            estimated_cost_nusd=chance.randrange(1, 200_000_000),
        )
        decision = self._ledger.admit(ask, caller="soak").decision
        if decision.reservation_id:
            self._open.append((decision.reservation_id, decision.hold_nusd))
        if len(self._open) > OPEN_COUNT:
            self._close(*self._open.popleft())
        self._clock.advance(WINDOW_S / WINDOW_ASKS_COUNT)

    def _close(self, reservation_id: bytes, hold_nusd: int) -> None:
        drawn = self._random.random()
        if drawn < ABANDONED:
            self.settled_nusd += hold_nusd
        elif drawn < ABANDONED + VOIDED:
            self._ledger.void(reservation_id)
        else:
            cost_nusd = hold_nusd * self._random.randrange(101) // 100
            self._ledger.settle(reservation_id, cost_nusd=cost_nusd)
            self.settled_nusd += cost_nusd

    def _sample(self) -> Sample:
        sample = Sample(
            asks_count=self._asked_count,
            peak_bytes=max(self._peak_bytes, self._store.size_bytes()),
            records={family: sum(1 for _ in self._store.scan(family)) for family in _KEPT},
            rss_mib=rss_mib(os.getpid()),
            elapsed_s=time.monotonic() - self._started,
        )
        self._peak_bytes = 0
        return sample

    def _end(self) -> list[str]:
        """Close what is open, expire what was abandoned, and hold the books to our own sum."""
        while self._open:
            self._close(*self._open.popleft())
        self._clock.advance(121)
        while self._sweeper.sweep():
            pass
        store = self._store
        reservations = [held for _, held in store.scan(Family.RESERVATIONS)]
        problems = books_problems(store.scan(Family.COUNTERS), reservations)
        open_count = sum(held.state is ReservationState.HELD for held in reservations)
        if open_count or self._ledger.totals.open_count:
            problems.append(f"{open_count} reservations are open after every one's expiry")
        everything = next(
            rule for rule in self._ledger.rules.budgets.values() if not rule.budget.per
        )
        counter = store.get(Family.COUNTERS, everything.counter_key({}, self._clock.wall_ns))
        booked_nusd = counter.settled if counter else 0
        if booked_nusd != self.settled_nusd:
            problems.append(f"settled {self.settled_nusd}, the books say {booked_nusd}")
        return problems


def growth_problems(samples: Sequence[Sample]) -> list[str]:
    """Compare the last half with the second quarter: disk, and records of each family."""
    quarter = len(samples) // 4
    before, after = samples[quarter : 2 * quarter], samples[2 * quarter :]
    problems = []
    before_bytes, after_bytes = (max(s.peak_bytes for s in half) for half in (before, after))
    if after_bytes > GROWTH_MAX * before_bytes + SLACK_BYTES:
        problems.append(f"the store grew from {before_bytes:,} to {after_bytes:,} bytes")
    for family in _KEPT:
        few, many = (max(s.records[family] for s in half) for half in (before, after))
        if many > GROWTH_MAX * few + SLACK_RECORDS:
            problems.append(f"{family} grew from {few:,} to {many:,} records")
    return problems


def sparkline(values: Sequence[float]) -> str:
    """Draw values as bars from zero to the highest."""
    bars, top = " ▁▂▃▄▅▆▇█", max(values) or 1
    return "".join(bars[round(value / top * (len(bars) - 1))] for value in values)


def table_of(samples: Sequence[Sample]) -> Table:
    """Show about ten of the samples."""
    table = Table(title="what the store holds")
    for name in ("asks", "windows", "disk MiB", *_KEPT, "RSS MiB", "asks/s"):
        table.add_column(str(name), justify="right")
    shown = samples[len(samples) // 10 - 1 :: max(1, len(samples) // 10)]
    for sample in shown:
        table.add_row(
            f"{sample.asks_count:,}",
            f"{sample.asks_count // WINDOW_ASKS_COUNT:,}",
            f"{sample.peak_bytes / 2**20:.1f}",
            *(f"{sample.records[family]:,}" for family in _KEPT),
            f"{sample.rss_mib:.0f}",
            f"{sample.asks_count / sample.elapsed_s:,.0f}",
        )
    return table


def _teller(progress: Progress, task: TaskID) -> Callable[[Sample], None]:
    """Show how far it is: on a terminal as a bar, elsewhere as a line now and then."""
    told: list[int] = []

    def tell(sample: Sample) -> None:
        line = f"{sample.peak_bytes / 2**20:.0f} MiB on disk, {sample.rss_mib:.0f} MiB in memory"
        progress.update(task, completed=sample.asks_count, description=line)
        told.append(sample.asks_count)
        if not progress.console.is_terminal and len(told) % TOLD_EVERY == 0:
            progress.console.print(
                f"{sample.asks_count:,} asks: {line}, {sum_of(sample):,} records"
            )

    return tell


def sum_of(sample: Sample) -> int:
    """Count the records of all families together."""
    return sum(sample.records.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and report; exit 1 if something grew or the books differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--asks", type=int, default=ASKS_COUNT, help="at least 16,000")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 130)
    windows_count = chosen.asks // WINDOW_ASKS_COUNT
    console.print(f"{chosen.asks:,} asks over {windows_count:,} windows of a minute")
    columns = (TextColumn("{task.description}"), BarColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with (
        tempfile.TemporaryDirectory(prefix="costd-soak-") as directory,
        Progress(*columns, *times, console=console) as progress,
    ):
        task = progress.add_task("asks", total=chosen.asks)
        soak = Soak(Path(directory) / "store", chosen.seed)
        try:
            outcome = soak.run(chosen.asks, advance=_teller(progress, task))
        finally:
            soak.close()
    console.print(table_of(outcome.samples))
    console.print(f"disk over time: {sparkline([s.peak_bytes for s in outcome.samples])}")
    for problem in outcome.problems:
        console.print(problem, markup=False, style="red")
    if outcome.problems:
        return 1
    console.print(
        f"bounded: the last half is within {GROWTH_MAX:g} × the second quarter, and the books "
        "add up",
        style="green",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
