"""`make bench`: measure everything side by side and write build/bench.json."""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.figures import ROUNDS_MIN, Figure
from bench.inproc import AdmitAndBatch, UnmatchedBudgets
from bench.rpc import AdmitAndEcho, Throughput
from bench.scale import BigDaemon, ManyKeys, fill

OUTPUT: Final = Path("build/bench.json")
PACKAGES: Final = ("grpcio", "protobuf", "rocksdict", "msgspec", "uvloop")
VERDICT_STYLES: Final = {"met": "green", "missed": "red", "inconclusive": "yellow", "told": "dim"}


class Scenario(Protocol):
    """A few figures that are measured side by side, a round at a time."""

    def round(self) -> None:
        """Measure once."""
        ...

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        ...


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


QUICK: Final = Scale(
    rounds_count=2,
    slow_rounds_count=2,
    asks_count=50,
    counters_count=2_000,
    unmatched_count=50,
    uniform_asks_count=200,
    rss_asks_count=200,
    callers_for_s=0.05,
)


def measure(scale: Scale, progress: Progress) -> list[Figure]:
    """Run every scenario, one after the other, each in rounds."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="costd-bench-") as name:
        base = Path(name)
        filled = base / "filled"
        task = progress.add_task("fill the big store", total=scale.counters_count)
        fill(filled, scale.counters_count, advance=lambda count: progress.advance(task, count))
        for what, rounds_count, make in _scenarios(scale, base, filled):
            task = progress.add_task(what, total=rounds_count)
            with ExitStack() as stack:
                scenario = make(stack)
                for _ in range(rounds_count):
                    scenario.round()
                    progress.advance(task)
                figures += scenario.figures()
    return figures


def _scenarios(
    scale: Scale, base: Path, filled: Path
) -> list[tuple[str, int, Callable[[ExitStack], Scenario]]]:
    """List what is measured: title, rounds, and how to set it up."""
    asks, slow = scale.asks_count, scale.slow_rounds_count
    big: dict[str, Any] = {"filled": filled, "users_count": scale.counters_count}
    return [
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
    table = Table(title="median (first … third quartile) over the rounds")
    table.add_column("figure")
    for name in ("key", "measured", "to reach", "verdict"):
        table.add_column(name, justify="right" if name == "measured" else "left", no_wrap=True)
    for figure in sorted(figures, key=lambda figure: figure.target is None):
        low, middle, high = figure.quartiles
        places = figure.decimals
        table.add_row(
            figure.what,
            figure.key,
            f"{middle:,.{places}f} ({low:,.{places}f} … {high:,.{places}f}) {figure.unit}",
            "" if figure.target is None else f"≤ {figure.target:g} {figure.unit}",
            f"[{VERDICT_STYLES[figure.verdict]}]{figure.verdict}[/]",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit code says only whether it ran."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument(
        "--quick", action="store_true", help="see that everything runs; the figures mean nothing"
    )
    chosen = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 150)
    facts, started = machine(), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        figures = measure(QUICK if chosen.quick else Scale(), progress)
    console.print(table_of(figures))
    took_s = round(time.monotonic() - started, 1)
    report = {figure.key: figure.as_json() for figure in figures}
    report["machine"] = facts | {"took_s": took_s, "quick": chosen.quick}
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    console.print(f"{chosen.output} written; took {took_s:.0f} s on {facts['cores']} cores")
    return 0


if __name__ == "__main__":
    sys.exit(main())
