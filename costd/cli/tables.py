"""Tables that fit the terminal: whole where there is room, folded at words, else a block a row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

WORD_WIDTH_MAX = 40
"""Longer words (paths, addresses) may be broken; ids and model names are shorter."""
CELL_LINES_MAX = 4
"""A cell that would fold into more lines makes its row a block."""
HEAD_COLUMNS = 2
"""So many cells of a row are the first line of its block."""
INDENT = 2
WIDE_GAP, GAP = 3, 2
"""Spaces between columns; one of them is the box's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column; figures stand at the right, and `whole` ones are never folded."""

    name: str
    right: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class FittedTable:
    """Rows of cells that choose their layout when the width is known.

    Shape:   where room is short, columns that are empty in every row are left out, and those
             named in `spare`; then gaps shrink, then cells fold at words. Where even words do
             not fit, each row becomes a block: its first cells, then the others by name.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Text]]
    spare: frozenset[str] = frozenset()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Lay the rows out for this width."""
        width, every = options.max_width, range(len(self.columns))
        used = [at for at in every if any(row[at].plain for row in self.rows)]
        kept = [at for at in used if self.columns[at].name not in self.spare]
        for shown, gap in ((every, WIDE_GAP), (used, WIDE_GAP), (used, GAP), (kept, GAP)):
            natural = [self._natural(at) for at in shown]
            if _line_width(natural, gap) <= width:
                yield self._table(shown, natural, gap)
                return
        floors = [self._floor(at) for at in kept]
        room = width - _line_width([0] * len(kept), GAP)
        if sum(floors) <= room:
            natural = [self._natural(at) for at in kept]
            yield self._table(kept, spread(floors, natural, room), GAP)
            return
        for row in self.rows:
            yield from self._block(row, kept, width)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Say how wide it would like to be."""
        widest = _line_width(list(map(self._natural, range(len(self.columns)))), WIDE_GAP)
        return Measurement(1, widest).clamp(max_width=options.max_width)

    def _natural(self, at: int) -> int:
        return max(map(_width, self._cells(at)))

    def _floor(self, at: int) -> int:
        """Say how narrow a column may become and still be read."""
        natural = self._natural(at)
        if self.columns[at].whole or self.columns[at].right:
            return natural
        words = (word for cell in self._cells(at) for word in cell.plain.split())
        longest = max((Text(word).cell_len for word in words), default=0)
        return max(min(longest, WORD_WIDTH_MAX), -(-natural // CELL_LINES_MAX))

    def _cells(self, at: int) -> list[Text]:
        return [Text(self.columns[at].name), *(row[at] for row in self.rows)]

    def _table(self, shown: Sequence[int], widths: Sequence[int], gap: int) -> Table:
        made = Table(
            box=box.SIMPLE_HEAD,
            header_style="bold",
            pad_edge=False,
            show_edge=False,
            padding=(0, 1) if gap == WIDE_GAP else (0, 1, 0, 0),
        )
        for at, width in zip(shown, widths, strict=True):
            column = self.columns[at]
            made.add_column(
                Text(column.name),
                justify="right" if column.right else "left",
                overflow="fold",
                width=width,
            )
        for row in self.rows:
            made.add_row(*(row[at] for at in shown))
        return made

    def _block(
        self, row: Sequence[Text], shown: Sequence[int], width: int
    ) -> Iterator[RenderableType]:
        """Yield a row's first cells, then the others by name, as many on a line as fit."""
        head = [cell for cell in row[:HEAD_COLUMNS] if cell.plain]
        yield _beside(head)
        line: list[Text] = []
        for at in shown:
            if at < HEAD_COLUMNS or not row[at].plain:
                continue
            name = self.columns[at].name
            item = Text.assemble((f"{name} " if name else "", "dim"), row[at])
            if line and INDENT + _beside([*line, item]).cell_len > width:
                yield Padding(_beside(line), (0, 0, 0, INDENT))
                line = []
            line.append(item)
        if line:
            yield Padding(_beside(line), (0, 0, 0, INDENT))


def spread(floors: Sequence[int], naturals: Sequence[int], room: int) -> list[int]:
    """Give each column its floor, then what is left in turn to those that want more.

    Ensures: no column is wider than its natural width; the sum is at most `room`.
    """
    widths = list(floors)
    left = room - sum(widths)
    while left > 0:
        wanting = [at for at, width in enumerate(widths) if width < naturals[at]]
        if not wanting:
            break
        for at in wanting[:left]:
            widths[at] += 1
            left -= 1
    return widths


def _beside(items: Sequence[Text]) -> Text:
    return Text(" " * GAP).join(items)


def _width(cell: Text) -> int:
    return max((line.cell_len for line in cell.split(allow_blank=True)), default=0)


def _line_width(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * max(0, len(widths) - 1)
