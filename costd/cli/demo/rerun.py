"""`make demo TRACE=FILE.csv`: replays a trace, every total checked; `--serial`: every verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from costd.cli.demo.crew import Assignment
from costd.cli.demo.foretell import Foreteller
from costd.cli.demo.journal import Entry
from costd.cli.demo.outcome import Outcome
from costd.cli.demo.recount import recount
from costd.cli.demo.rulebook import read_rulebook
from costd.cli.demo.screen import Screen, Show, progress
from costd.cli.demo.stage import DemoFailed, Stage, running
from costd.cli.demo.story import View
from costd.cli.demo.tally import Ladder, Tally
from costd.cli.demo.trace import Row
from costd.cli.demo.verify import ROWS_MAX, Check, read_books, verify
from costd.cli.demo.workers import Workers, at_work
from costd.clock import ticks_ns
from costd.model.time import NS_PER_S

FRAME_S = 0.15
VIEW_EVERY_NS = NS_PER_S // 2
VERDICTS = ("allow", "degrade", "deny")
ENOUGH_TOKENS = 3_000_000
"""Of prompts: what empties the smallest budget of the trace's policy several times over."""
LADDER_BUDGET = "project-total"
PINNED = ("sandbox-total", "project-total")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which trace is replayed, and how."""

    trace: Path
    rows: Sequence[Row]
    limit_count: int
    seed: int
    seconds: float
    """The trace is compressed to about this long."""
    serial: bool
    workers_count: int

    @property
    def speed(self) -> float:
        """Seconds of the trace that pass in one."""
        return max(self.rows[-1].offset_s / self.seconds, 1.0)

    def parts(self) -> list[Assignment]:
        """Share it among the workers; a serial one has only one."""
        part = Assignment(
            seed=self.seed,
            trace=str(self.trace.absolute()),
            limit_count=self.limit_count,
            speed=0.0 if self.serial else self.speed,
            serial=self.serial,
        )
        return [part] if self.serial else [part] * self.workers_count


class Watcher:
    """Follows a replay on the screen; foretells verdicts as they come, if it is told how."""

    def __init__(
        self, stage: Stage, workers: Workers, plan: Plan, screen: Screen, ladder: Ladder
    ) -> None:
        self._stage = stage
        self._workers = workers
        self._plan = plan
        self._screen = screen
        self.journal: list[Entry] = []
        self.tally = Tally(ladder)
        self.show = Show(
            tally=self.tally,
            view=View(),
            title="Trace, one call at a time" if plan.serial else "Trace",
            caption=_caption(plan),
            pinned=PINNED,
        )
        self._alerts_told = 0
        self._started_ns = self._read_ns = ticks_ns()

    def watch(self, foreteller: Foreteller | None) -> list[str]:
        """Follow until every call was made; returns the verdicts that were not as foretold."""
        surprises: list[str] = []
        going = True
        while going:
            self._stage.pass_time(FRAME_S)
            going = self._workers.check()
            new = self.tally.take(self._workers.reader.new(), ticks_ns())
            self.journal += new
            if foreteller is not None:
                surprises += _surprises(foreteller, new)
            self._draw()
        return surprises

    def _draw(self) -> None:
        now_ns = ticks_ns()
        if now_ns - self._read_ns >= VIEW_EVERY_NS:
            self._read_ns = now_ns
            self.show.view.read(self._stage.control)
            self._tell_alerts()
        self.show.elapsed_ns = now_ns - self._started_ns
        self.show.place = progress(self.tally.calls_count, len(self._plan.rows))
        self._screen.show(self.show)

    def _tell_alerts(self) -> None:
        """Tell which budgets crossed a step; every overrun has an alert too, which is too many."""
        for alert in reversed(self.show.view.alerts):
            if alert.sequence > self._alerts_told:
                self._alerts_told = alert.sequence
                if alert.kind == "threshold":
                    self.show.tell(alert.message)


def rerun(folder: Path, policy: Path, screen: Screen, plan: Plan) -> Outcome:
    """Replay a trace in this directory and check every total, or every verdict too.

    Errors:  DemoFailed if the daemon or a worker fails.
    """
    if len(plan.rows) > ROWS_MAX:
        raise DemoFailed(f"{plan.trace} has more than {ROWS_MAX:,} calls; give --limit {ROWS_MAX}")
    with (
        running(folder, policy.read_text()) as stage,
        at_work(stage, plan.parts()) as workers,
    ):
        rulebook = read_rulebook(folder / "policy.yaml")
        budget = next(each for each in rulebook.budgets if each.name == LADDER_BUDGET)
        watcher = Watcher(stage, workers, plan, screen, Ladder(budget, rulebook))
        with screen:
            surprises = watcher.watch(Foreteller(rulebook) if plan.serial else None)
        journal = watcher.journal
        sums = recount(journal, rulebook)
        checks = verify(sums, read_books(stage.control))
        if plan.serial:
            checks.append(Check("verdicts foretold", len(journal), tuple(surprises)))
        seen = {entry.verdict for entry in journal}
        indexes = {entry.index for entry in journal}
        whole = len(indexes) == len(journal) == len(plan.rows)
        return Outcome(
            seed=plan.seed,
            calls_count=len(journal),
            sums=sums,
            checks=checks,
            facts=[
                ("calls", f"each of the trace's {len(plan.rows):,} was made once", whole),
                *(("verdicts", f"there was a {name}", name in seen) for name in _expected(plan)),
            ],
            elapsed_s=watcher.show.elapsed_ns / NS_PER_S,
        )


def _expected(plan: Plan) -> tuple[str, ...]:
    """Short traces spend too little to meet every limit."""
    return VERDICTS if sum(row.prompt_tokens for row in plan.rows) >= ENOUGH_TOKENS else ("allow",)


def _surprises(foreteller: Foreteller, entries: Sequence[Entry]) -> list[str]:
    found = []
    for entry in entries:
        difference = foreteller.foretell(entry).differs(entry)
        if difference:
            found.append(f"row {entry.index + 1}: {difference}")
        foreteller.follow(entry)
    return found


def _caption(plan: Plan) -> str:
    if plan.serial:
        return f"{plan.trace.name}: each call is settled before the next is asked."
    return f"{plan.trace.name}: {plan.speed:.0f} seconds of the trace pass in one."
