"""The live screen, and plain lines where there is no terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from costd.cli import render
from costd.cli.demo.story import View
from costd.cli.demo.tally import Ladder, Tally
from costd.model.grant import GrantRefusal
from costd.model.money import format_nusd
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as pb

SPARKS = "▁▂▃▄▅▆▇█"
LOW_SCREEN_LINES = 28
PLAIN_EVERY_NS = 2 * NS_PER_S
WIDE_COLUMNS = 96
BUDGETS_MAX = 7
PROGRESS_WIDTH = 20
VERDICTS = (("allow", "green"), ("degrade", "yellow"), ("deny", "red"))


@dataclass(slots=True)
class Show:
    """What the screen shows now."""

    tally: Tally
    view: View
    title: str = ""
    caption: str = ""
    place: str = ""
    """Where we are: `act 2 of 5`, or a progress bar."""
    pinned: Sequence[str] = ()
    """Budgets shown first, in this order; the fullest others follow."""
    news: list[tuple[int, str]] = field(default_factory=list)
    """(elapsed ns, what happened), the newest last."""
    elapsed_ns: int = 0
    shows_grant: bool = False
    grant_uses_count: int = 0

    def tell(self, text: str) -> None:
        """Add a line to the news."""
        self.news.append((self.elapsed_ns, text))


class Screen(Protocol):
    """Where a show is shown: `LiveScreen`, `PlainScreen` or `DarkScreen`."""

    def show(self, show: Show) -> None:
        """Show this now."""
        ...

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; what is printed next is not overwritten."""
        ...


class DarkScreen:
    """Shows nothing, for programs that read the summary."""

    def show(self, show: Show) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return


class LiveScreen(DarkScreen):
    """Redraws a terminal in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(
            console=console,
            screen=True,
            auto_refresh=False,
            vertical_overflow="crop",
            # Nothing else prints meanwhile, and rich's stand-in does not know its encoding.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def show(self, show: Show) -> None:
        """Draw one frame."""
        frame = draw(show, self._console.width, self._console.height)
        self._live.update(frame, refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()


class PlainScreen(DarkScreen):
    """Prints a line of figures every other second, and every piece of news once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed_ns = -PLAIN_EVERY_NS
        self._news_count = 0

    def show(self, show: Show) -> None:
        """Print what is new."""
        for at_ns, text in show.news[self._news_count :]:
            self._print(f"{_seconds(at_ns)}  {text}")
        self._news_count = len(show.news)
        if show.elapsed_ns - self._printed_ns >= PLAIN_EVERY_NS:
            self._printed_ns = show.elapsed_ns
            verdicts = ", ".join(
                f"{_total(show.tally, verdict):,} {verdict}" for verdict, _ in VERDICTS
            )
            self._print(
                f"{_seconds(show.elapsed_ns)}  {show.tally.calls_per_s:,} calls/s, "
                f"{verdicts}, {dollars(show.tally.spent_nusd)} spent"
            )

    def _print(self, line: str) -> None:
        self._console.print(render.plain(line), soft_wrap=True)


def draw(show: Show, width: int, height: int) -> RenderableType:
    """Lay out one frame for a terminal of this size.

    Shape:   pure.
    """
    low = height < LOW_SCREEN_LINES
    gap: list[RenderableType] = [] if low else [Text()]
    middle = Table.grid(padding=(0, 2 if width < WIDE_COLUMNS else 6))
    left, right = _verdicts(show.tally, wide=width >= WIDE_COLUMNS), _ladder(show.tally.ladder)
    middle.add_row(*([left, right] if right is not None else [left]))
    middle_lines = max(left.row_count, right.row_count if right is not None else 0) + 1
    alarms = _alarms(show, width)
    rest = height - 4 - middle_lines - len(alarms) - (2 if low else 4)
    budgets_count = max(3, min(rest - 2, BUDGETS_MAX))
    news_count = max(1, rest - budgets_count)
    return Group(
        _head(show, width),
        Text(show.caption, style="dim", no_wrap=True, overflow="ellipsis"),
        _pulse(show.tally),
        Text(),
        middle,
        Text(),
        _budgets(show, width, budgets_count),
        *gap,
        *alarms,
        *gap,
        *_news(show, news_count),
    )


def dollars(amount_nusd: int) -> str:
    """Write money to the cent, for figures that move."""
    cents = amount_nusd // 10_000_000
    return f"${cents // 100:,}.{cents % 100:02d}"


def progress(done_count: int, all_count: int) -> str:
    """Draw how far a run has come."""
    filled = PROGRESS_WIDTH * done_count // max(all_count, 1)
    bar = "━" * filled + "╌" * (PROGRESS_WIDTH - filled)
    return f"{bar} {done_count:,} of {all_count:,} calls"


def _seconds(elapsed_ns: int) -> str:
    tenths = elapsed_ns * 10 // NS_PER_S
    return f"{tenths // 10:3}.{tenths % 10} s"


def _total(tally: Tally, verdict: str) -> int:
    return sum(count for (_, its), count in tally.by_class.items() if its == verdict)


def _head(show: Show, width: int) -> RenderableType:
    head = Table.grid(expand=True)
    head.add_column(no_wrap=True, overflow="ellipsis")
    head.add_column(justify="right", no_wrap=True)
    head.width = width
    head.add_row(
        Text.assemble(
            (" costd ", "bold black on cyan"),
            "  ",
            (show.title, "bold"),
            "  ",
            (show.place, "cyan"),
        ),
        Text(_seconds(show.elapsed_ns), style="dim"),
    )
    return head


def _pulse(tally: Tally) -> Text:
    rates = tally.rates()
    top = max([*rates, 1])
    sparks = "".join(SPARKS[rate * (len(SPARKS) - 1) // top] for rate in rates)
    answer = tally.answer_us
    return Text.assemble(
        (sparks, "cyan"),
        (f" {tally.calls_per_s:>5,} calls/s", "bold"),
        (f"  answers in {answer // 1000}.{answer % 1000 // 100} ms", ""),
        (f"  {dollars(tally.spent_nusd)} spent", ""),
        no_wrap=True,
        overflow="ellipsis",
    )


def _verdicts(tally: Tally, *, wide: bool) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, min_width=16 if wide else 15)
    for verdict, _ in VERDICTS:
        least = 9 if wide else max(6, len(verdict))
        table.add_column(justify="right", no_wrap=True, min_width=least)
    table.add_row(
        Text("task class", style="bold"), *(Text(name, style="bold") for name, _ in VERDICTS)
    )
    for task_class in sorted({name for name, _ in tally.by_class}):
        cells = []
        for verdict, style in VERDICTS:
            count = tally.by_class[task_class, verdict]
            cells.append(Text(f"{count:,}" if count else "·", style=style if count else "dim"))
        table.add_row(Text(task_class), *cells)
    totals = (
        Text(f"{_total(tally, verdict):,}", style=f"bold {style}") for verdict, style in VERDICTS
    )
    table.add_row(Text("all", style="bold"), *totals)
    return table


def _ladder(ladder: Ladder | None) -> Table | None:
    if ladder is None:
        return None
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, min_width=5)
    table.add_row(
        Text(""), Text(f"ladder of {ladder.budget.name}", style="bold"), Text("calls", style="bold")
    )
    highest = max((at for at, count in enumerate(ladder.counts) if count), default=-1)
    for at, rung in enumerate(ladder.rungs):
        if at > highest:
            style = "dim"
        elif at < highest:
            style = "green"
        else:
            style = "bold red" if "deny" in rung.do else "bold yellow"
        count = ladder.counts[at]
        table.add_row(
            Text(rung.share, style=style),
            Text(rung.words, style=style),
            Text(f"{count:,}" if count else "", style=style),
        )
    return table


def _budgets(show: Show, width: int, count: int) -> Table:
    ranks = {name: rank for rank, name in enumerate(show.pinned)}
    rows = [row for row in show.view.budgets if row.HasField("limit")]
    rows.sort(key=lambda row: (ranks.get(row.budget, len(ranks)), -row.utilisation_bp, row.key))
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, min_width=24, max_width=24, overflow="ellipsis")
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, min_width=5)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for row in rows[:count]:
        share = f"{row.utilisation_bp // 100} %"
        table.add_row(
            _budget_name(row),
            render.bar(row.settled, row.reserved, row.limit, min(40, width - 52)),
            Text(share, style=render.fill_style(row.utilisation_bp)),
            Text(_used_of(row), style="dim"),
        )
    return table


def _budget_name(row: pb.BudgetStatus) -> Text:
    _, _, value = row.key.partition("=")
    return Text.assemble(render.plain(row.budget), " ", render.plain(value, "cyan"))


def _used_of(row: pb.BudgetStatus) -> str:
    used = row.settled + row.reserved
    if row.unit == "nusd":
        return f"{dollars(used)} of {format_nusd(row.limit).removesuffix('.00')}"
    return f"{used:,} of {row.limit:,} {row.unit}"


def _alarms(show: Show, width: int) -> list[RenderableType]:
    """Kill switches and the grant, a line each."""
    lines: list[RenderableType] = []
    for kill in show.view.kills[:2]:
        scope = render.mapping(kill.scope.items()) or "everything"
        state, style = (
            (" STOPPED ", "bold white on red") if kill.engaged else (" released ", "black on green")
        )
        text = Text.assemble(
            "kill switch ", (state, style), f" {scope}: ", render.plain(kill.reason),
            (f" ({kill.actor})", "dim"),
        )  # fmt: skip
        text.truncate(width, overflow="ellipsis")
        lines.append(text)
    if show.shows_grant:
        redeemed = show.tally.redeemed_count
        refused = show.tally.grant_refusals[GrantRefusal.USED_UP]
        text = Text.assemble(
            "override    ",
            (
                f" {redeemed} of {show.grant_uses_count} redeemed ",
                "black on green" if redeemed else "dim",
            ),
            " by security reviews",
            (f"; {refused} more refused, used up" if refused else "", "dim"),
        )
        text.truncate(width, overflow="ellipsis")
        lines.append(text)
    return lines


def _news(show: Show, count: int) -> list[RenderableType]:
    return [
        Text(
            f"{_seconds(at_ns)}  {render.visible(text)}",
            style="dim",
            no_wrap=True,
            overflow="ellipsis",
        )
        for at_ns, text in show.news[-count:]
    ]
