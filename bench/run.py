"""`make bench`: measure everything side by side and write build/bench.json."""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.allowance import AllowanceAndRivals
from bench.envoy import EnvoyAndAdmit
from bench.figures import ROUNDS_MIN, Figure
from bench.fleet import plan
from bench.fleet.plan import FleetScale, Planned, fleet_scenarios
from bench.fleet.processes import Server
from bench.inproc import AdmitAndBatch, UnmatchedBudgets
from bench.kill import KillCameLate, KillToDeny
from bench.packages import EXTRAS, Installed
from bench.rpc import AdmitAndEcho, Throughput
from bench.scale import BigDaemon, ManyKeys, fill
from bench.sustained import SustainedAdmits, SustainedCalls
from bench.tally import BooksDiffer
from bench.tracing import TracingOff, TracingOn
from bench.typescript import TypeScriptAllowance

OUTPUT: Final = Path("build/bench.json")
PACKAGES: Final = ("grpcio", "protobuf", "rocksdict", "msgspec", "uvloop")
VERDICT_STYLES: Final = {
    "met": "green",
    "missed": "red",
    "inconclusive": "yellow",
    "told": "dim",
    "skipped": "yellow",
}
PARTS: Final = ("packages", "engine", "rpc", "scale", "allowance", "fleet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured."""

    rounds_count: int = 15
    slow_rounds_count: int = ROUNDS_MIN
    """For scenarios whose rounds take seconds."""
    asks_count: int = 1_500
    counters_count: int = 1_000_000
    unmatched_count: int = 1_000
    uniform_asks_count: int = 10_000
    rss_asks_count: int = 20_000
    callers_for_s: float = 0.6
    drawn_count: int = 10_000
    sustained_s: float = 3.0
    agents_count: int = 32
    kill_rounds_count: int = 15
    """So many that the 99th percentile over processes and rounds is not the slowest of them."""
    idle_rounds_count: int = ROUNDS_MIN
    links_packages: bool = False
    """Link what is installed here, and install nothing."""
    fleet: FleetScale = field(default_factory=FleetScale)


QUICK: Final = Scale(
    rounds_count=2,
    slow_rounds_count=2,
    asks_count=50,
    counters_count=2_000,
    unmatched_count=50,
    uniform_asks_count=200,
    rss_asks_count=200,
    callers_for_s=0.05,
    drawn_count=200,
    sustained_s=0.1,
    agents_count=3,
    kill_rounds_count=2,
    idle_rounds_count=1,
    links_packages=True,
    fleet=plan.QUICK,
)


def measure(scale: Scale, progress: Progress, parts: Sequence[str] = PARTS) -> list[Figure]:
    """Run every scenario of these parts, one after the other, each in rounds."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="costd-bench-") as name, ExitStack() as shared:
        base = Path(name)
        filled = base / "filled"
        if "scale" in parts:
            task = progress.add_task("fill the big store", total=scale.counters_count)
            fill(filled, scale.counters_count, advance=lambda count: progress.advance(task, count))
        planned = _daemon_scenarios(scale, base, filled) | _allowance_scenarios(scale, base)
        planned["packages"] = _installations(scale, base)
        if "fleet" in parts:
            server = Server(base / "postgres", shared)
            planned["fleet"] = fleet_scenarios(scale.fleet, base, server)
        for what, rounds_count, make in [one for part in parts for one in planned[part]]:
            task = progress.add_task(what, total=rounds_count)
            with ExitStack() as stack:
                scenario = make(stack)
                for _ in range(rounds_count):
                    scenario.round()
                    progress.advance(task)
                figures += scenario.figures()
    return figures


def _daemon_scenarios(scale: Scale, base: Path, filled: Path) -> dict[str, list[Planned]]:
    """List, by part, what is measured of the daemon."""
    asks, slow = scale.asks_count, scale.slow_rounds_count
    big: dict[str, Any] = {"filled": filled, "users_count": scale.counters_count}
    engine: list[Planned] = [
        (
            "engine and commit ÷ bare batch",
            scale.rounds_count,
            lambda stack: AdmitAndBatch(base, stack, asks_count=asks),
        ),
        (
            "budgets that do not match ÷ none",
            scale.rounds_count,
            lambda stack: UnmatchedBudgets(
                base, stack, asks_count=asks, unmatched_count=scale.unmatched_count
            ),
        ),
    ]
    rpc: list[Planned] = [
        (
            "Admit over the socket ÷ echo",
            scale.rounds_count,
            lambda stack: AdmitAndEcho(base, stack, asks_count=asks),
        ),
        (
            "calls a second",
            slow,
            lambda stack: Throughput(base, stack, for_s=scale.callers_for_s),
        ),
        (
            "ShouldRateLimit ÷ Admit",
            scale.rounds_count,
            lambda stack: EnvoyAndAdmit(base, stack, asks_count=asks),
        ),
        (
            "tracing off ÷ no tracing",
            scale.rounds_count,
            lambda stack: TracingOff(base, stack, asks_count=asks),
        ),
        (
            "tracing on ÷ off",
            scale.rounds_count,
            lambda stack: TracingOn(base, stack, asks_count=asks),
        ),
    ]
    large: list[Planned] = [
        (
            "a million keys ÷ a hundred",
            slow,
            lambda _: ManyKeys(base, **big, asks_count=scale.uniform_asks_count),
        ),
        (
            "start and memory with a million keys",
            slow,
            lambda stack: BigDaemon(base, stack, **big, asks_count=scale.rss_asks_count),
        ),
    ]
    return {"engine": engine, "rpc": rpc, "scale": large}


def _installations(scale: Scale, base: Path) -> list[Planned]:
    """List what is measured of an installation of each program."""

    def planned(name: str, extras: Sequence[str]) -> Planned:
        return (
            f"the {name}, installed and idle",
            scale.idle_rounds_count,
            lambda stack: Installed(base, stack, name, extras, quick=scale.links_packages),
        )

    return [planned(name, extras) for name, extras in EXTRAS.items()]


def _allowance_scenarios(scale: Scale, base: Path) -> dict[str, list[Planned]]:
    """List what is measured of allowances."""
    slow = scale.slow_rounds_count

    def kill(what: str, rounds_count: int, **how: Any) -> Planned:
        count = scale.agents_count
        return (
            what,
            rounds_count,
            lambda stack: KillToDeny(base, stack, agents_count=count, **how),
        )

    return {
        "allowance": [
            (
                "admits in the process, Redis, limits",
                scale.rounds_count,
                lambda stack: AllowanceAndRivals(base, stack, calls_count=scale.drawn_count),
            ),
            (
                "admits in a Node process",
                scale.rounds_count,
                lambda stack: TypeScriptAllowance(base, stack, calls_count=scale.drawn_count),
            ),
            (
                "admits for seconds on end",
                slow,
                lambda stack: SustainedAdmits(base, stack, for_s=scale.sustained_s),
            ),
            (
                "whole calls for seconds on end",
                slow,
                lambda stack: SustainedCalls(base, stack, for_s=scale.sustained_s),
            ),
            kill("kill to deny", scale.kill_rounds_count, with_pages=True),
            kill("kill to deny, without pages", slow, with_pages=False),
            kill("kill to deny, all spinning", slow, with_pages=True, pace_ms=0.0),
        ]
    }


def machine() -> dict[str, Any]:
    """Say on what this was measured."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def table_of(figures: Sequence[Figure]) -> Table:
    """Lay the figures out for people, those with targets first."""
    title = "median (first … third quartile) over the rounds; alone where all rounds make one"
    table = Table(title=title)
    table.add_column("figure")
    for name in ("key", "measured", "to reach", "verdict"):
        table.add_column(name, justify="right" if name == "measured" else "left", no_wrap=True)
    for figure in sorted(figures, key=lambda figure: figure.target is None):
        table.add_row(
            figure.what,
            figure.key,
            measured_text(figure),
            target_text(figure),
            f"[{VERDICT_STYLES[figure.verdict]}]{figure.verdict}[/]",
        )
    return table


def measured_text(figure: Figure) -> str:
    """Write the median with its quartiles; a single sample stands alone."""
    if figure.skipped:
        return "–"
    low, middle, high = (f"{value:,.{figure.decimals}f}" for value in figure.quartiles)
    spread = f" ({low} … {high})" if len(figure.samples) > 1 else ""
    return f"{middle}{spread} {figure.unit}"


def target_text(figure: Figure) -> str:
    """Write what is to be reached."""
    if figure.target is None:
        return ""
    sign = "≥" if figure.more_is_better else "≤"
    return f"{sign} {figure.target:,g} {figure.unit}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit code says whether it ran and the books were right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument(
        "--quick", action="store_true", help="see that everything runs; the figures mean nothing"
    )
    parser.add_argument(
        "--only", choices=PARTS, nargs="+", default=PARTS, help="measure only these parts"
    )
    chosen = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 150)
    facts, started = machine(), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console) as progress:
            figures = measure(QUICK if chosen.quick else Scale(), progress, chosen.only)
    except (BooksDiffer, KillCameLate) as error:
        console.print(f"the figures mean nothing: {error}", markup=False, style="red")
        return 1
    console.print(table_of(figures))
    for figure in figures:
        if figure.skipped:
            line = f"{figure.key} was skipped: {figure.skipped}"
            console.print(line, markup=False, style="yellow", soft_wrap=True)
    took_s = round(time.monotonic() - started, 1)
    report = {figure.key: figure.as_json() for figure in figures}
    report["machine"] = facts | {"took_s": took_s, "quick": chosen.quick, "parts": [*chosen.only]}
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    console.print(f"{chosen.output} written; took {took_s:.0f} s on {facts['cores']} cores")
    return 0


if __name__ == "__main__":
    sys.exit(main())
