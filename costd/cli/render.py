"""Tables, bars and text for people; nothing a label says can colour or move the screen."""

import os
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from costd.cli.tables import Column, FittedTable
from costd.model.money import format_nusd

PIPE_WIDTH = 160
"""Columns where output is no terminal and nobody set COLUMNS: wide enough not to fold ids."""
BAR_WIDTH = 24
BP_PER_ONE = 10_000
NEAR_BP = 8_000
"""From here on a budget is shown as nearly used up."""

Cell = str | int | Text


def console(*, stderr: bool = False) -> Console:
    """Make a console on today's standard output (or error), with colour where it has some."""
    file = sys.stderr if stderr else sys.stdout
    made = Console(file=file, markup=False, highlight=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = PIPE_WIDTH
    return made


def visible(text: str) -> str:
    """Spell out control characters, line breaks and invisible marks as escapes."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def plain(value: Cell, style: str = "") -> Text:
    """Make a cell that shows exactly this text; markup in it stays text."""
    return value if isinstance(value, Text) else Text(visible(str(value)), style=style)


def lines(text: str, style: str = "") -> Text:
    """Show a text of several lines: line breaks and tabs stay, all else as `plain`."""
    shown = "\n".join(visible(line.expandtabs(4)) for line in text.splitlines())
    return Text(shown, style=style)


WHOLE_COLUMNS = frozenset({"", "allowance", "budget", "state"})
"""Columns that would be harder to read broken than to scroll to."""


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], spare: Iterable[str] = ()
) -> FittedTable:
    """Make a table; `>name` is aligned to the right; figures, bars and ids stay on one line.

    Shape:   columns named in `spare` are left out where room is short.
    """
    named = [
        Column(
            name=visible(name.removeprefix(">")),
            right=name.startswith(">"),
            whole=name in WHOLE_COLUMNS,
        )
        for name in columns
    ]
    cells = [[plain(cell) for cell in row] for row in rows]
    return FittedTable(named, cells, frozenset(spare))


def fields(pairs: Iterable[tuple[str, Cell]]) -> Table:
    """Make a two-column list of names and values; empty values are left out."""
    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        cell = plain(value)
        if cell.plain:
            made.add_row(Text(name), cell)
    return made


def listing(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    nothing: str,
    truncated: bool = False,
    spare: Iterable[str] = (),
) -> RenderableType:
    """Make a table, or say that there is nothing, or that there is more."""
    if not rows:
        return Text(nothing, style="dim")
    made = table(columns, rows, spare)
    if not truncated:
        return made
    return Group(made, Text("there is more; raise --limit to see it", style="yellow"))


def mapping(labels: Iterable[tuple[str, str]]) -> str:
    """Write labels as `a=1, b=2`, sorted."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels))


def amount(value: int, unit: str) -> str:
    """Write an amount in a budget's unit: `$1.50`, `1,200 tokens`."""
    return format_nusd(value) if unit == "nusd" else f"{value:,} {unit}".strip()


def percent(share_bp: int) -> str:
    """Write basis points as a percentage, exactly: `63.25 %`."""
    whole, rest = divmod(abs(share_bp), 100)
    sign = "-" if share_bp < 0 else ""
    return f"{sign}{whole}.{rest:02d} %"


def fill_style(share_bp: int) -> str:
    """Pick a colour for a utilisation."""
    if share_bp >= BP_PER_ONE:
        return "red"
    return "yellow" if share_bp >= NEAR_BP else "green"


def bar_width() -> int:
    """Choose a bar's width so that the figures beside it fit."""
    return max(6, min(BAR_WIDTH, console().width // 7 - 4))


def bar(settled: int, reserved: int, limit: int, width: int = BAR_WIDTH) -> Text:
    """Draw what is settled (solid), reserved (shaded) and left of a limit.

    Ensures: anything used shows at least one mark, and only a full budget a full bar.
    """
    full, shaded, empty = marks()
    used = settled + reserved
    share_bp = used * BP_PER_ONE // limit if limit > 0 else (BP_PER_ONE if used else 0)
    style = fill_style(share_bp)
    filled = width if share_bp >= BP_PER_ONE else min(width - 1, -(-used * width // max(limit, 1)))
    solid = min(filled, settled * filled // used) if used else 0
    return Text.assemble(
        (full * solid, style),
        (shaded * (filled - solid), style),
        (empty * (width - filled), "dim"),
    )


def marks() -> tuple[str, str, str]:
    """Full, shaded and empty; plain ASCII where the output cannot show blocks."""
    marks = ("█", "▒", "░")
    try:
        "".join(marks).encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return ("#", "+", ".")
    return marks
