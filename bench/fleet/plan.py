"""What is measured of a fleet, and how much of it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bench.figures import ROUNDS_MIN, Figure
from bench.fleet.admits import AdmitInFleet
from bench.fleet.attached import Attached
from bench.fleet.leases import Leases
from bench.fleet.processes import Server
from bench.fleet.queries import NamedQueries
from bench.fleet.usage import UsageEvents
from bench.fleet.utilisation import Utilisation


class Scenario(Protocol):
    """A few figures that are measured side by side, a round at a time."""

    def round(self) -> None:
        """Measure once."""
        ...

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        ...


Planned = tuple[str, int, Callable[[ExitStack], Scenario]]
"""Title, rounds, and how to set it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetScale:
    """How much is measured."""

    rounds_count: int = ROUNDS_MIN
    kill_rounds_count: int = 15
    asks_count: int = 500
    busy_s: float = 4.0
    requests_count: int = 200
    leases_s: float = 2.0
    budgets_count: int = 1_000
    batches_count: int = 5
    streams_count: int = 500
    watched_s: float = 1.5
    daemons_count: int = 8
    used_before: float = 0.8
    events_count: int = 1_000_000
    query_times_count: int = 3


QUICK: Final = FleetScale(
    rounds_count=2,
    kill_rounds_count=2,
    asks_count=20,
    busy_s=0.3,
    requests_count=10,
    leases_s=0.2,
    budgets_count=20,
    batches_count=1,
    streams_count=8,
    watched_s=0.2,
    daemons_count=2,
    used_before=0.99,
    events_count=2_000,
    query_times_count=1,
)


def fleet_scenarios(scale: FleetScale, base: Path, server: Server) -> list[Planned]:
    """List what is measured, each with a database of its own on one server."""
    rounds_count = scale.rounds_count
    return [
        (
            "leases",
            rounds_count,
            lambda stack: Leases(
                base,
                stack,
                server,
                requests_count=scale.requests_count,
                for_s=scale.leases_s,
                budgets_count=scale.budgets_count,
            ),
        ),
        (
            "usage events",
            rounds_count,
            lambda stack: UsageEvents(base, stack, server, batches_count=scale.batches_count),
        ),
        (
            "attached daemons, and a kill",
            scale.kill_rounds_count,
            lambda stack: Attached(
                base,
                stack,
                server,
                streams_count=scale.streams_count,
                watched_s=scale.watched_s,
            ),
        ),
        (
            "Admit with a coordinator ÷ without",
            rounds_count,
            lambda stack: AdmitInFleet(
                base, stack, server, asks_count=scale.asks_count, for_s=scale.busy_s
            ),
        ),
        (
            "a budget used up",
            rounds_count,
            lambda stack: Utilisation(
                base,
                stack,
                server,
                daemons_count=scale.daemons_count,
                used_before=scale.used_before,
            ),
        ),
        (
            "queries at a million events",
            rounds_count,
            lambda stack: NamedQueries(
                base,
                stack,
                server,
                events_count=scale.events_count,
                times_count=scale.query_times_count,
            ),
        ),
    ]
