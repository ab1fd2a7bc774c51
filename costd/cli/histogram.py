"""How lengths of time are distributed: percentiles, and bars over bounds people can read."""

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from costd.cli import render
from costd.cli.times import milliseconds

BAR_WIDTH: Final = 32
ROWS_MAX: Final = 8
_STEPS: Final = (10, 20, 50)
"""Bounds are 1, 2 and 5 times a power of ten, as people would draw them."""
_LEAST_NS: Final = 100_000


def percentile(sorted_ns: Sequence[int], hundredth: int) -> int:
    """Return the value that at least so many hundredths do not pass: the nearest rank."""
    return sorted_ns[-(-len(sorted_ns) * hundredth // 100) - 1]


def buckets(values_ns: Sequence[int]) -> list[tuple[int, int]]:
    """Count the values up to each bound, from the bound of the least to that of the largest.

    Shape:   (bound, how many are at most that and more than the bound before); ROWS_MAX at most,
             the first of which holds whatever is less.
    """
    if not values_ns:
        return []
    bounds = [_LEAST_NS]
    while bounds[-1] < max(values_ns):
        at = len(bounds)
        bounds.append(_LEAST_NS * _STEPS[at % 3] // 10 * 10 ** (at // 3))
    first = next(at for at, bound in enumerate(bounds) if min(values_ns) <= bound)
    bounds = bounds[max(first, len(bounds) - ROWS_MAX) :]
    counts, below = [], 0
    for bound in bounds:
        upto = sum(value <= bound for value in values_ns)
        counts.append((bound, upto - below))
        below = upto
    return counts


def histogram(values_ns: Sequence[int]) -> Table:
    """Draw one bar for each bound."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    counted = buckets(values_ns)
    most = max((count for _, count in counted), default=1)
    for bound, count in counted:
        table.add_row(
            Text(f"≤ {milliseconds(bound)}", style="dim"),
            _bar(count, most),
            Text(f"{count:,}" if count else ""),
        )
    return table


def _bar(count: int, most: int) -> Text:
    full, _, _ = render.marks()
    return Text(full * -(-count * BAR_WIDTH // most), style="cyan")
