"""The fleet, live: a line for each daemon, one for the coordinator, one for the budget."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from costd.cli import render
from costd.cli.demo.fleet.books import Counted, Tally, View
from costd.cli.demo.fleet.stage import Stage
from costd.cli.demo.screen import PLAIN_EVERY_NS, dollars
from costd.model.money import format_nusd
from costd.model.time import NS_PER_S

LOW_LINES: Final = 26
FIGURES_WIDTH: Final = 54
"""All columns of a daemon's line but its bar."""
BAR_MAX: Final = 40
DAEMONS_MAX: Final = 12


@dataclass(slots=True)
class Show:
    """What the screen shows now."""

    stage: Stage
    tally: Tally
    view: View
    title: str = ""
    caption: str = ""
    place: str = ""
    news: list[tuple[int, str, str]] = field(default_factory=list)
    """(elapsed ns, what, style), the newest last."""
    elapsed_ns: int = 0

    def tell(self, text: str, style: str = "dim") -> None:
        """Add a line to the news."""
        self.news.append((self.elapsed_ns, text, style))


class Screen(Protocol):
    """Where it is shown: `LiveScreen`, `PlainScreen` or `DarkScreen`."""

    def show(self, show: Show) -> None:
        """Show this now."""
        ...

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, *_: object) -> None:
        """End; what is printed next is not overwritten."""
        ...


class DarkScreen:
    """Shows nothing, for programs that read the summary."""

    def show(self, show: Show) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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

    def __exit__(self, *_: object) -> None:
        self._live.stop()


class PlainScreen(DarkScreen):
    """Prints a line of figures every other second, and every piece of news once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed_ns = -PLAIN_EVERY_NS
        self._news_count = 0

    def show(self, show: Show) -> None:
        """Print what is new."""
        for at_ns, text, _ in show.news[self._news_count :]:
            self._print(f"{_seconds(at_ns)}  {text}")
        self._news_count = len(show.news)
        if show.elapsed_ns - self._printed_ns >= PLAIN_EVERY_NS:
            self._printed_ns = show.elapsed_ns
            counted = show.tally.by_daemon.values()
            settled = sum(each.settled_count for each in counted)
            refused = sum(each.refused.total() for each in counted)
            up = sum(state(show, name)[0] == "spending" for name in show.stage.names)
            self._print(
                f"{_seconds(show.elapsed_ns)}  {up} of {len(show.stage.names)} daemons spend, "
                f"{show.tally.calls_per_s:,} calls/s, {settled:,} paid, {refused:,} refused, "
                f"{dollars(show.tally.spent_nusd)} of {_limit(show)} spent"
            )

    def _print(self, line: str) -> None:
        self._console.print(render.plain(line), soft_wrap=True)


def screen(console: Console, *, redraws: bool, dark: bool) -> Screen:
    """Choose where to show it."""
    if dark:
        return DarkScreen()
    return LiveScreen(console) if redraws else PlainScreen(console)


def draw(show: Show, width: int, height: int) -> RenderableType:
    """Lay out one frame for a terminal of this size.

    Shape:   pure, but for looking whether processes run.
    """
    gap: list[RenderableType] = [] if height < LOW_LINES else [Text()]
    daemons_count = min(len(show.stage.names), DAEMONS_MAX, height - 12)
    used = 9 + daemons_count + 2 * len(gap)
    return Group(
        _head(show, width),
        Text(show.caption, style="dim", no_wrap=True, overflow="ellipsis"),
        *gap,
        _budget(show, width),
        Text(),
        _daemons(show, width, daemons_count),
        *gap,
        *_news(show, max(2, height - used)),
    )


def state(show: Show, name: str) -> tuple[str, str]:
    """Say how a daemon is, and how loud that is."""
    process, view = show.stage.daemons[name], show.view
    daemon = view.daemons.get(name)
    if not process.runs:
        return ("killed -9", "bold white on red") if process.starts_count else ("", "dim")
    if show.stage.links.is_cut(name):
        presumed = daemon is not None and view.answers and not daemon.attached
        return ("presumed spent" if presumed else "cut off", "black on yellow")
    if daemon is None:
        return "starting", "yellow"
    if not show.stage.coordinator.runs or not view.answers:
        return "on its own", "yellow"
    if not daemon.attached:
        return "starting", "yellow"
    return "spending", "green"


def _head(show: Show, width: int) -> RenderableType:
    head = Table.grid(expand=True)
    head.add_column(no_wrap=True, overflow="ellipsis")
    head.add_column(justify="right", no_wrap=True)
    head.width = width
    head.add_row(
        Text.assemble(
            (" costd fleet ", "bold black on cyan"),
            "  ",
            (show.title, "bold"),
            "  ",
            (show.place, "cyan"),
        ),
        Text(_seconds(show.elapsed_ns), style="dim"),
    )
    return head


def _budget(show: Show, width: int) -> RenderableType:
    """The one budget: spent is solid, lent out and not spent is shaded."""
    limit = show.view.pool.limit
    spent = show.tally.spent_nusd
    lent = sum(lease.unused for lease in show.view.leases.values())
    lent = max(0, min(lent, limit - spent))
    wide = max(20, width - 2)
    share_bp = spent * 10_000 // limit if limit else 0
    figures = Text.assemble(
        ("one budget  ", "bold"),
        (f"{dollars(spent)} of {_limit(show)} spent", render.fill_style(share_bp)),
        (f", {dollars(lent)} lent out", "dim"),
        (f"   {show.tally.calls_per_s:,} calls/s", "bold"),
        no_wrap=True,
        overflow="ellipsis",
    )
    return Group(render.bar(spent, lent, limit, wide), figures)


def _daemons(show: Show, width: int, count: int) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    for at, least in enumerate((11, 14, 6, 7, 8, 8)):
        right = at > 1
        table.add_column(justify="right" if right else "left", no_wrap=True, min_width=least)
    table.add_column(no_wrap=True)
    titles = ("", "", "paid", "refused", "spent", "may spend", "")
    table.add_row(*(Text(title, style="bold") for title in titles))
    table.add_row(*_coordinator(show))
    lines = [_Line(show, name) for name in show.stage.names]
    most = max(1, *(line.counted.cost_nusd + line.unused for line in lines))
    bar_width = max(6, min(BAR_MAX, width - FIGURES_WIDTH - 8))
    for line in lines[:count]:
        word, style = state(show, line.name)
        table.add_row(
            Text(line.name, style="bold"),
            Text(f" {word} " if " on " in style else word, style=style),
            f"{line.counted.settled_count:,}",
            Text(f"{line.refused_count:,}" if line.refused_count else "·", style="dim"),
            dollars(line.counted.cost_nusd),
            Text(dollars(line.unused), style="red" if word == "presumed spent" else ""),
            _bar(line.counted.cost_nusd, line.unused, most, bar_width),
        )
    return table


class _Line:
    """What the line of one daemon says: what its agents counted, and what it may still spend."""

    def __init__(self, show: Show, name: str) -> None:
        self.name = name
        self.counted: Counted = show.tally.by_daemon[name]
        self.refused_count = self.counted.refused.total()
        lease = show.view.leases.get(name)
        self.unused = lease.unused if lease is not None else 0


def _coordinator(show: Show) -> Iterator[RenderableType]:
    process = show.stage.coordinator
    if not process.runs:
        word = Text(" killed -9 ", style="bold white on red") if process.starts_count else Text("")
    elif show.view.answers:
        word = Text("lending", style="green")
    else:
        word = Text("starting", style="yellow")
    yield Text("coordinator", style="bold")
    yield word
    yield from (Text("") for _ in range(5))


def _bar(spent: int, unused: int, most: int, width: int) -> Text:
    full, shaded, _ = render.marks()
    solid = spent * width // most
    light = (spent + unused) * width // most - solid
    return Text.assemble((full * solid, "cyan"), (shaded * light, "cyan"))


def _limit(show: Show) -> str:
    return format_nusd(show.view.pool.limit).removesuffix(".00")


def _news(show: Show, count: int) -> list[RenderableType]:
    return [
        Text(
            f"{_seconds(at_ns)}  {render.visible(text)}",
            style=style,
            no_wrap=True,
            overflow="ellipsis",
        )
        for at_ns, text, style in show.news[-count:]
    ]


def _seconds(elapsed_ns: int) -> str:
    tenths = elapsed_ns * 10 // NS_PER_S
    return f"{tenths // 10:3}.{tenths % 10} s"
