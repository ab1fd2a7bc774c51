"""`make demo FLEET=N`: plays the acts, watches, and checks the books at the end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.text import Text

from costd.cli import render
from costd.cli.demo.fleet.books import BUDGET, Tally, View, verify
from costd.cli.demo.fleet.crew import Crew
from costd.cli.demo.fleet.screen import Screen, Show
from costd.cli.demo.fleet.stage import Agents, Stage, fleet_on
from costd.cli.demo.fleet.story import Act, acts
from costd.cli.demo.outcome import DIFFERENCES_SHOWN, line_of, marked
from costd.cli.demo.stage import DemoFailed
from costd.cli.demo.verify import Check
from costd.clock import ticks_ns
from costd.model.money import format_nusd
from costd.model.time import NS_PER_S

FRAME_S: Final = 0.15
VIEW_EVERY_NS: Final = NS_PER_S // 3
START_S_MAX: Final = 120
"""A fleet starts within ten seconds; a busy machine may need much longer."""
ACT_S_MAX: Final = 45
CURTAIN_S_MAX: Final = 30
AGENTS_COUNT: Final = 5
LIMIT_PER_DAEMON: Final = 8
"""Dollars: more than all acts but the last can spend."""

POLICY: Final = """\
version: 1
task_classes: {{agent: {{}}}}
budgets:
  - id: {budget}
    window: total
    limit: ${limit}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to."""

    seed: int
    daemons_count: int
    calls_count: int
    refused_count: int
    repeated_count: int
    total_nusd: int
    limit_nusd: int
    checks: Sequence[Check]
    facts: Sequence[tuple[str, str, bool]]
    elapsed_s: float

    @property
    def passed(self) -> bool:
        """Whether everything happened and every sum is equal."""
        return all(seen for _, _, seen in self.facts) and not any(
            check.differences for check in self.checks
        )

    def document(self) -> dict[str, Any]:
        """Write it for programs."""
        return {
            "passed": self.passed,
            "seed": self.seed,
            "elapsed_s": round(self.elapsed_s, 1),
            "daemons_count": self.daemons_count,
            "settled_count": self.calls_count,
            "refused_count": self.refused_count,
            "repeated_count": self.repeated_count,
            "total_nusd": self.total_nusd,
            "limit_nusd": self.limit_nusd,
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
        console.print(
            Text(
                f"\n{self.calls_count:,} calls paid and {self.refused_count:,} refused at "
                f"{self.daemons_count} daemons in {self.elapsed_s:.1f} s, {self.repeated_count:,} "
                f"sent again because nobody answered; seed {self.seed}"
            )
        )
        console.print(Text("\nwhat had to happen", style="bold"))
        console.print(marked([(seen, name, part) for part, name, seen in self.facts]))
        console.print(Text("\nthe fleet's books against what the agents counted", style="bold"))
        console.print(marked([line_of(check) for check in self.checks]))
        for check in self.checks:
            for difference in check.differences[:DIFFERENCES_SHOWN]:
                console.print(render.plain(f"  {check.name}: {difference}", "red"))
        console.print(self._verdict())

    def _verdict(self) -> RenderableType:
        if self.passed:
            return Text(
                f"\nThe ledger adds up: {self.calls_count:,} settled calls, "
                f"{format_nusd(self.total_nusd)} of {format_nusd(self.limit_nusd)}, equal to the "
                "nano-dollar at the agents, the daemons and the coordinator; every event is stored "
                "exactly once.",
                style="bold green",
            )
        unseen = [f"{part}: {name}" for part, name, seen in self.facts if not seen]
        wrong = [check.name for check in self.checks if check.differences]
        return Group(
            Text(),
            *(render.plain(f"It did not happen: {name}.", "bold red") for name in unseen),
            *(render.plain(f"The ledger does not add up: {name}.", "bold red") for name in wrong),
        )


class Player:
    """One performance."""

    def __init__(self, stage: Stage, agents: Agents, tally: Tally, screen: Screen) -> None:
        self._stage = stage
        self._agents = agents
        self._screen = screen
        self.tally = tally
        self.view = View()
        self.show = Show(stage, tally, self.view)
        self._started_ns = ticks_ns()
        self._read_ns = 0

    def start(self) -> None:
        """Start everybody, and wait until all have joined.

        Errors:  DemoFailed if they do not.
        """
        self.show.title = "The fleet starts"
        self.show.caption = "A coordinator with a PostgreSQL of its own, and daemons that join it."
        for process in self._stage.processes:
            process.start()
        ends_ns = ticks_ns() + START_S_MAX * NS_PER_S
        while not all(map(self.view.is_back, self._stage.names)):
            self._follow(None)
            if ticks_ns() > ends_ns:
                raise DemoFailed(f"the fleet has not joined after {START_S_MAX} s")
        self.show.tell("the fleet is complete", "green")

    def play(self, play: Sequence[Act]) -> None:
        """Play every act until all was seen and its time is over, or no hope is left."""
        for number, act in enumerate(play, 1):
            self.show.title, self.show.caption = act.title, act.caption
            self.show.place = f"act {number} of {len(play)}"
            self.show.tell(f"{act.title}: {act.caption}", "")
            self._agents.order(act.order)
            began_ns = ticks_ns()
            while True:
                lasted_s = (ticks_ns() - began_ns) / NS_PER_S
                if lasted_s > (act.lasts_s if act.complete else ACT_S_MAX):
                    break
                for step in act.steps:
                    if not step.done and lasted_s >= step.at_s and step.when():
                        step.what()
                        step.done = True
                        self.show.tell(step.news, "red")
                    if not step.done:
                        break
                self._follow(act)

    def finish(self) -> None:
        """Let the calls under way end, and what they cost arrive."""
        self.show.title, self.show.place = "Curtain", "calls under way are settled"
        self.show.caption = "Everyone finishes; then all books are compared, call by call."
        self._agents.dismiss()
        while self._agents.check():
            self._follow(None)
        ends_ns = ticks_ns() + CURTAIN_S_MAX * NS_PER_S
        self._follow(None)
        while not self.view.agrees(self.tally) and ticks_ns() < ends_ns:
            self._follow(None)

    def _follow(self, act: Act | None) -> None:
        """Wait for one frame's time, read what is new, and show it."""
        time.sleep(FRAME_S)
        self._stage.check()
        self._agents.check()
        now_ns = ticks_ns()
        self.show.elapsed_ns = now_ns - self._started_ns
        self.tally.read(now_ns)
        if now_ns - self._read_ns >= VIEW_EVERY_NS:
            self._read_ns = now_ns
            if self._stage.coordinator.runs:
                self.view.read(self._stage)
            else:
                self.view.gone()
        if act is not None:
            for fact in act.look(self.tally, self.view):
                self.show.tell(fact.name, "green")
        self._screen.show(self.show)


def perform(folder: Path, screen: Screen, *, seed: int, daemons_count: int) -> Outcome:
    """Run the whole demo in this directory.

    Errors:  DemoFailed if somebody fails who was not killed.
    """
    policy = folder / "policy.yaml"
    policy.write_text(POLICY.format(budget=BUDGET, limit=LIMIT_PER_DAEMON * daemons_count))
    journal = folder / "journal.jsonl"
    with fleet_on(folder, policy, daemons_count) as stage:
        crew = Crew(
            seed=seed,
            addresses={name: stage.address(name) for name in stage.names},
            agents_count=AGENTS_COUNT,
            journal=str(journal),
        )
        tally, agents = Tally(journal, stage.names), Agents(folder, crew)
        try:
            player = Player(stage, agents, tally, screen)
            play = acts(stage, tally)
            with screen:
                player.start()
                player.play(play)
                player.finish()
            checks = verify(tally, stage, player.view)
        finally:
            tally.close()
            agents.close()
        counted = tally.by_daemon.values()
        return Outcome(
            seed=seed,
            daemons_count=daemons_count,
            calls_count=sum(each.settled_count for each in counted),
            refused_count=sum(each.refused.total() for each in counted),
            repeated_count=tally.repeated_count,
            total_nusd=tally.spent_nusd,
            limit_nusd=player.view.pool.limit,
            checks=checks,
            facts=[(act.title, fact.name, fact.seen) for act in play for fact in act.facts],
            elapsed_s=player.show.elapsed_ns / NS_PER_S,
        )
