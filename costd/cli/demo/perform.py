"""`make demo`: plays the acts, watches, and checks the books at the end."""

from collections.abc import Sequence
from pathlib import Path

from costd import grants
from costd.cli.demo import story
from costd.cli.demo.crew import Assignment
from costd.cli.demo.journal import Entry
from costd.cli.demo.outcome import Outcome
from costd.cli.demo.recount import recount
from costd.cli.demo.rulebook import Rulebook, read_rulebook
from costd.cli.demo.screen import Screen, Show
from costd.cli.demo.stage import Stage, running
from costd.cli.demo.story import Act, View
from costd.cli.demo.tally import Ladder, Tally
from costd.cli.demo.verify import read_books, verify
from costd.cli.demo.workers import Workers, at_work
from costd.cli.times import wall_ns
from costd.clock import ticks_ns
from costd.model.time import NS_PER_S

FRAME_S = 0.15
VIEW_EVERY_NS = NS_PER_S // 3
ACT_S_MAX = 30
"""An act takes a few seconds; a busy machine may need longer to see everything."""
LINGER_NS = NS_PER_S
LADDER_BUDGET = "launch-day"
HALT_BUDGET = "lab-day"
GRANT_KEY = "demo"


class Player:
    """One performance: workers, tally, view and screen together."""

    def __init__(self, stage: Stage, workers: Workers, rulebook: Rulebook, screen: Screen) -> None:
        budget = next(each for each in rulebook.budgets if each.name == LADDER_BUDGET)
        self._stage = stage
        self._workers = workers
        self._screen = screen
        self.journal: list[Entry] = []
        self.tally = Tally(Ladder(budget, rulebook))
        self.show = Show(
            tally=self.tally,
            view=View(),
            pinned=(LADDER_BUDGET, HALT_BUDGET),
            grant_uses_count=story.GRANT_USES,
        )
        self._started_ns = self._read_ns = ticks_ns()

    def play(self, acts: Sequence[Act], grant: str) -> None:
        """Play every act until all was seen and its time is over, or no hope is left."""
        for number, act in enumerate(acts, 1):
            self.show.title, self.show.caption = act.title, act.caption
            self.show.place = f"act {number} of {len(acts)}"
            self.show.shows_grant = self.show.shows_grant or act.shows_grant
            self.show.tell(f"{act.title}: {act.caption}")
            self.tally.begin_act(wall_ns())
            act.begin(self._stage.control)
            self._workers.cue(act.cue(grant))
            self._watch(act)

    def _watch(self, act: Act) -> None:
        """Follow an act until all was seen and people could look at it, or no hope is left."""
        began_ns = ticks_ns()
        until_ns = began_ns + ACT_S_MAX * NS_PER_S
        while ticks_ns() < until_ns:
            was_complete = act.complete
            self._follow(act)
            if act.complete and not was_complete:
                until_ns = max(began_ns + round(act.lasts_s * NS_PER_S), ticks_ns() + LINGER_NS)

    def finish(self) -> None:
        """Let the calls under way end, and read the rest of the journals."""
        self.show.title, self.show.place = "Curtain", "calls under way are settled"
        self.show.caption = "Everyone finishes; then the daemon's books are checked, call by call."
        self._workers.dismiss()
        while self._workers.check():
            self._follow(None)
        self._follow(None)

    def _follow(self, act: Act | None) -> None:
        """Wait for one frame's time, read what is new, and show it."""
        self._stage.pass_time(FRAME_S)
        self._workers.check()
        now_ns = ticks_ns()
        self.journal += self.tally.take(self._workers.reader.new(), now_ns)
        if now_ns - self._read_ns >= VIEW_EVERY_NS:
            self._read_ns = now_ns
            self.show.view.read(self._stage.control)
        self.show.elapsed_ns = now_ns - self._started_ns
        if act is not None:
            for fact in act.look(self.tally, self.show.view):
                self.show.tell(fact.name)
        self._screen.show(self.show)


def perform(
    folder: Path, policy: Path, screen: Screen, *, seed: int, workers_count: int
) -> Outcome:
    """Run the whole demo in this directory.

    Errors:  DemoFailed if the daemon or a worker fails; what did not happen is in the outcome.
    """
    pair = grants.keygen()
    text = story.with_grant_key(policy.read_text(), pair, GRANT_KEY)
    part = Assignment(seed=seed)
    with running(folder, text) as stage, at_work(stage, [part] * workers_count) as workers:
        rulebook = read_rulebook(folder / "policy.yaml")
        player = Player(stage, workers, rulebook, screen)
        acts = story.acts(player.tally)
        with screen:
            player.play(acts, story.make_grant(pair, GRANT_KEY))
            player.finish()
        sums = recount(player.journal, rulebook)
        return Outcome(
            seed=seed,
            calls_count=len(player.journal),
            sums=sums,
            checks=verify(sums, read_books(stage.control)),
            facts=[(act.title, fact.name, fact.seen) for act in acts for fact in act.facts],
            elapsed_s=player.show.elapsed_ns / NS_PER_S,
        )
