"""`make sim`: a daemon and its clients over a network that loses, through thousands of orders."""

import argparse
import logging
import os
import secrets
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sim_events import STEPS_COUNT, Outcome, run_order

ORDERS_COUNT = 3_000
SHOWN_MAX = 5
UNDER_WAY_PER_JOB = 4

MUST_HAPPEN = (
    "calls drawn",
    "calls asked one by one",
    "calls settled",
    "calls voided",
    "calls abandoned",
    "holds extended",
    "denied",
    "reports booked",
    "reports that came again",
    "reports out of order",
    "streams cut",
    "clients killed -9",
    "calls in flight in killed clients",
    "settlements lost with clients",
    "daemon killed -9",
    "daemon stopped for a minute",
    "commits refused",
    "clock steps",
    "forks",
    "limit lowered",
    "limit raised",
    "policy reloaded",
    "kill switches engaged",
    "kill switches released",
    "allowances revoked by hand",
    "clients that draw more than they hold",
    "pages scribbled over",
    "orders of 64 clients",
)
"""A long run in which one of these never happened proves too little."""


def attempt(seed: int, steps_count: int) -> Outcome:
    """Run one order; whatever it raises is what was wrong with it."""
    logging.disable(logging.CRITICAL)  # clients complain of what is done to them on purpose
    try:
        return run_order(seed, steps_count)
    except Exception:  # noqa: BLE001  a bug is a finding like any other
        return Outcome(seed=seed, problems=[traceback.format_exc()], seen={})


def simulate(seeds: Sequence[int], steps_count: int, *, jobs_count: int, advance) -> list[Outcome]:
    """Run one order for each seed; orders share nothing, so that any number may run at once."""
    if jobs_count == 1:
        outcomes = []
        for seed in seeds:
            outcomes.append(attempt(seed, steps_count))
            advance(outcomes[-1])
        return outcomes
    outcomes, left = [], iter(seeds)
    with ProcessPoolExecutor(jobs_count) as pool:
        waiting = {
            pool.submit(attempt, seed, steps_count)
            for seed in islice(left, jobs_count * UNDER_WAY_PER_JOB)
        }
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                outcomes.append(future.result())
                advance(outcomes[-1])
            waiting |= {pool.submit(attempt, seed, steps_count) for seed in islice(left, len(done))}
    return outcomes


def table_of(outcomes: Sequence[Outcome], took_s: float) -> Table:
    """Lay out what happened in all orders together."""
    seen = Counter()
    for outcome in outcomes:
        seen.update(outcome.seen)
    table = Table(title=f"{len(outcomes):,} orders in {took_s:.0f} s", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, count in sorted(seen.items()):
        table.add_row(name, f"{count:,}")
    return table


def never_seen(outcomes: Sequence[Outcome]) -> list[str]:
    """Name what did not happen at all."""
    return [name for name in MUST_HAPPEN if not any(one.seen.get(name) for one in outcomes)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and report; exit 1 if an order broke a rule, or a long run left something out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=ORDERS_COUNT)
    parser.add_argument("--seed", type=int, help="replay this one order")
    parser.add_argument("--first", type=int, help="the first of the seeds; drawn without")
    parser.add_argument("--steps", type=int, default=STEPS_COUNT, help="events in each order")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    chosen = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100)
    first = secrets.randbelow(2**31) if chosen.first is None else chosen.first
    seeds = range(first, first + chosen.orders) if chosen.seed is None else [chosen.seed]
    console.print(f"{len(seeds):,} orders of {chosen.steps} events, seeds from {seeds[0]}")
    started = time.monotonic()
    columns = (TextColumn("orders"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    failed: list[Outcome] = []
    with Progress(*columns, console=console, disable=len(seeds) == 1) as progress:
        task = progress.add_task("orders", total=len(seeds))

        def advance(outcome: Outcome) -> None:
            progress.advance(task)
            if not outcome.problems:
                return
            failed.append(outcome)
            if len(failed) <= SHOWN_MAX:
                steps = "" if chosen.steps == STEPS_COUNT else f" --steps {chosen.steps}"
                how = f"make sim SIM_ARGS='--seed {outcome.seed}{steps}'"
                console.print(f"seed {outcome.seed} fails; replay it by {how}", style="red")
                for problem in outcome.problems[:SHOWN_MAX]:
                    console.print(f"  {problem}", markup=False, highlight=False)

        outcomes = simulate(
            seeds, chosen.steps, jobs_count=min(chosen.jobs, len(seeds)), advance=advance
        )
    console.print(table_of(outcomes, time.monotonic() - started))
    if failed:
        console.print(f"{len(failed)} of {len(outcomes):,} orders break a rule", style="red")
        return 1
    missing = never_seen(outcomes)
    if missing and len(outcomes) >= ORDERS_COUNT:
        console.print(f"never happened: {', '.join(missing)}; this proves too little", style="red")
        return 1
    console.print("the books add up in every order", style="green")
    return 0


if __name__ == "__main__":
    sys.exit(main())
