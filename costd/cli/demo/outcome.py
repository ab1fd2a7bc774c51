"""What a run came to: facts seen, sums compared, and whether all of it is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from costd.cli import render
from costd.cli.demo.recount import Recount
from costd.cli.demo.verify import Check
from costd.model.money import format_nusd

DIFFERENCES_SHOWN = 10
VERDICTS = ("allow", "degrade", "deny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run of the demo."""

    seed: int
    calls_count: int
    sums: Recount
    checks: Sequence[Check]
    facts: Sequence[tuple[str, str, bool]]
    """What had to happen on the way: in which part, what, and whether it was seen."""
    elapsed_s: float

    @property
    def passed(self) -> bool:
        """Whether everything happened and every sum is equal."""
        return all(seen for _, _, seen in self.facts) and not any(
            check.differences for check in self.checks
        )

    def verdicts(self) -> dict[str, int]:
        """Count the calls by verdict."""
        counts = dict.fromkeys(VERDICTS, 0)
        for name, count in self.sums.verdicts.items():
            counts[name.partition("/")[0]] += count
        return counts

    def document(self) -> dict[str, Any]:
        """Write it for programs."""
        return {
            "passed": self.passed,
            "seed": self.seed,
            "elapsed_s": round(self.elapsed_s, 1),
            "calls_count": self.calls_count,
            "verdicts": self.verdicts(),
            "settled_count": self.sums.settled_count,
            "drawn_count": len(self.sums.drawn),
            "total_nusd": self.sums.total_nusd,
            "facts": [
                {"part": part, "name": name, "seen": seen} for part, name, seen in self.facts
            ],
            "checks": [
                {
                    "name": check.name,
                    "compared_count": check.compared_count,
                    "differences": list(check.differences),
                }
                for check in self.checks
            ],
        }

    def print(self, console: Console) -> None:
        """Write it for people."""
        counts = self.verdicts()
        rate = round(self.calls_count / self.elapsed_s) if self.elapsed_s else 0
        console.print(
            Text(
                f"\n{self.calls_count:,} calls in {self.elapsed_s:.1f} s ({rate:,} a second): "
                + ", ".join(f"{counts[name]:,} {name}" for name in VERDICTS)
                + f"; seed {self.seed}"
            )
        )
        if drawn_count := len(self.sums.drawn):
            console.print(
                Text(
                    f"{drawn_count:,} of them were decided in the caller's own process, without "
                    "asking the daemon"
                )
            )
        console.print(Text())
        console.print(self._classes())
        console.print(Text("\nwhat had to happen", style="bold"))
        console.print(marked(self._parts()))
        console.print(Text("\nthe daemon's books against the callers' journal", style="bold"))
        console.print(marked([line_of(check) for check in self.checks]))
        for check in self.checks:
            for difference in check.differences[:DIFFERENCES_SHOWN]:
                console.print(render.plain(f"  {check.name}: {difference}", "red"))
            more = len(check.differences) - DIFFERENCES_SHOWN
            if more > 0:
                console.print(Text(f"  {check.name}: and {more:,} more", style="red"))
        console.print(self._verdict())

    def _classes(self) -> RenderableType:
        classes = sorted({name.partition("/")[2] for name in self.sums.verdicts})
        rows = [
            (name, *(f"{self.sums.verdicts[f'{verdict}/{name}']:,}" for verdict in VERDICTS))
            for name in classes
        ]
        return render.table(["task class", *(f">{verdict}" for verdict in VERDICTS)], rows)

    def _parts(self) -> list[tuple[bool, str, str]]:
        lines = []
        for part in dict.fromkeys(part for part, _, _ in self.facts):
            seen = [seen for its, _, seen in self.facts if its == part]
            lines.append((all(seen), part, f"{sum(seen)} of {len(seen)} seen"))
        return lines

    def _verdict(self) -> RenderableType:
        if self.passed:
            total = format_nusd(self.sums.total_nusd)
            return Text(
                f"\nThe ledger adds up: {self.sums.settled_count:,} settled calls, {total}, "
                "equal to the nano-dollar.",
                style="bold green",
            )
        unseen = [f"{part}: {name}" for part, name, seen in self.facts if not seen]
        wrong = [check.name for check in self.checks if check.differences]
        return Group(
            Text(),
            *(render.plain(f"It did not happen: {name}.", "bold red") for name in unseen),
            *(render.plain(f"The ledger does not add up: {name}.", "bold red") for name in wrong),
        )


def line_of(check: Check) -> tuple[bool, str, str]:
    """Say whether a check is good, its name, and what it found."""
    if check.differences:
        return False, check.name, f"{len(check.differences):,} differ"
    return True, check.name, f"{check.compared_count:,} equal"


def marked(lines: Sequence[tuple[bool, str, str]]) -> Table:
    """Write a line for each (good, name, note), with a mark."""
    table = Table.grid(padding=(0, 2))
    for good, name, note in lines:
        mark = Text("✓", style="green") if good else Text("✗", style="bold red")
        table.add_row(mark, render.plain(name), Text(note, style="dim" if good else "red"))
    return table
