"""`make sim`: a daemon and its clients, and a fleet of daemons and its coordinators, through thousands
of orders of events over a network that loses."""

import argparse
import logging
import os
import secrets
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from typing import NamedTuple

import fleet_events
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sim_events import STEPS_COUNT, Outcome, run_order

ORDERS_COUNT = 3_000
LONG_COUNT = 1_000
"""Orders in which everything must happen at least once."""
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


def attempt(seed: int, steps_count: int, run=run_order) -> Outcome:
    """Run one order; whatever it raises is what was wrong with it."""
    logging.disable(logging.CRITICAL)  # clients complain of what is done to them on purpose
    try:
        return run(seed, steps_count)
    except Exception:  # noqa: BLE001  a bug is a finding like any other
        return Outcome(seed=seed, problems=[traceback.format_exc()], seen={})
    finally:
        logging.disable(logging.NOTSET)


def simulate(
    seeds: Sequence[int], steps_count: int, *, jobs_count: int, advance, run=run_order
) -> list[Outcome]:
    """Run one order for each seed; orders share nothing, so that any number may run at once."""
    if jobs_count == 1:
        outcomes = []
        for seed in seeds:
            outcomes.append(attempt(seed, steps_count, run))
            advance(outcomes[-1])
        return outcomes
    outcomes, left = [], iter(seeds)
    with ProcessPoolExecutor(jobs_count) as pool:
        waiting = {
            pool.submit(attempt, seed, steps_count, run)
            for seed in islice(left, jobs_count * UNDER_WAY_PER_JOB)
        }
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                outcomes.append(future.result())
                advance(outcomes[-1])
            waiting |= {
                pool.submit(attempt, seed, steps_count, run) for seed in islice(left, len(done))
            }
    return outcomes


def table_of(outcomes: Sequence[Outcome], took_s: float, of: str) -> Table:
    """Lay out what happened in all orders together."""
    seen = Counter()
    for outcome in outcomes:
        seen.update(outcome.seen)
    table = Table(title=f"{len(outcomes):,} orders of {of} in {took_s:.0f} s", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, count in sorted(seen.items()):
        table.add_row(name, f"{count:,}")
    return table


def never_seen(outcomes: Sequence[Outcome], must_happen=MUST_HAPPEN) -> list[str]:
    """Name what did not happen at all."""
    return [name for name in must_happen if not any(one.seen.get(name) for one in outcomes)]


class Simulation(NamedTuple):
    """One of the worlds that are run."""

    name: str
    of: str
    run: Callable[[int, int], Outcome]
    steps_count: int
    must_happen: Sequence[str]


SIMULATIONS = (
    Simulation("clients", "a daemon's clients", run_order, STEPS_COUNT, MUST_HAPPEN),
    Simulation(
        "fleet",
        "a fleet",
        fleet_events.run_fleet_order,
        fleet_events.STEPS_COUNT,
        fleet_events.MUST_HAPPEN,
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and report; exit 1 if an order broke a rule, or a long run left something out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=ORDERS_COUNT)
    parser.add_argument("--seed", type=int, help="replay this one order")
    parser.add_argument("--first", type=int, help="the first of the seeds; drawn without")
    parser.add_argument("--steps", type=int, help="events in each order")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", choices=[each.name for each in SIMULATIONS], help="one of both")
    chosen = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100)
    if chosen.seed is None and chosen.first is None:
        chosen.first = secrets.randbelow(2**31)
    wanted = [each for each in SIMULATIONS if chosen.only in {None, each.name}]
    return max([run_one(each, chosen, console) for each in wanted])


def run_one(simulation: Simulation, chosen: argparse.Namespace, console: Console) -> int:
    """Run one simulation and report."""
    seeds = (
        range(chosen.first, chosen.first + chosen.orders) if chosen.seed is None else [chosen.seed]
    )
    steps_count = chosen.steps or simulation.steps_count
    console.print(
        f"{len(seeds):,} orders of {simulation.of}, {steps_count} events each, seeds from {seeds[0]}"
    )
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
                for line in outcome.trace if len(seeds) == 1 else ():
                    console.print(line, markup=False, highlight=False, soft_wrap=True)
                steps = "" if steps_count == simulation.steps_count else f" --steps {steps_count}"
                how = f"make sim SIM_ARGS='--only {simulation.name} --seed {outcome.seed}{steps}'"
                console.print(f"seed {outcome.seed} fails; replay it by {how}", style="red")
                for problem in outcome.problems[:SHOWN_MAX]:
                    console.print(f"  {problem}", markup=False, highlight=False)

        outcomes = simulate(
            seeds,
            steps_count,
            jobs_count=min(chosen.jobs, len(seeds)),
            advance=advance,
            run=simulation.run,
        )
    console.print(table_of(outcomes, time.monotonic() - started, simulation.of))
    if failed:
        console.print(f"{len(failed)} of {len(outcomes):,} orders break a rule", style="red")
        return 1
    missing = never_seen(outcomes, simulation.must_happen)
    if missing and len(outcomes) >= LONG_COUNT:
        console.print(f"never happened: {', '.join(missing)}; this proves too little", style="red")
        return 1
    console.print("the books add up in every order", style="green")
    return 0


if __name__ == "__main__":
    sys.exit(main())
