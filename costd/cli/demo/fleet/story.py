"""The acts of the fleet's demo: what goes wrong, and what must be seen of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from costd.cli.demo.fleet.books import Tally, View
from costd.cli.demo.fleet.crew import Order
from costd.cli.demo.fleet.stage import Stage
from costd.model.time import NS_PER_S

DEAD_S: Final = 2.0
"""How long a killed process stays dead."""
LAST_DOLLARS: Final = 20
"""So many times as dear are the calls of the last act, which ends the budget."""
LENT_NOTHING: Final = ("NO_LEASE", "BUDGET_EXHAUSTED")
FAR_NS: Final = 3_600 * NS_PER_S

Seen = Callable[[Tally, View], bool]


@dataclass(slots=True)
class Fact:
    """Something that must be seen; once seen it stays so."""

    name: str
    look: Seen
    seen: bool = False


@dataclass(slots=True)
class Step:
    """Something that is done so many seconds into an act, and what is told of it."""

    at_s: float
    what: Callable[[], None]
    news: str
    when: Callable[[], bool] = lambda: True
    """Not before this holds."""
    done: bool = False


@dataclass(slots=True)
class Act:
    """One act."""

    title: str
    caption: str
    order: Order
    lasts_s: float
    steps: list[Step] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything was done and seen."""
        return all(step.done for step in self.steps) and all(fact.seen for fact in self.facts)

    def look(self, tally: Tally, view: View) -> list[Fact]:
        """Return what is seen for the first time, in order: a fact waits for those before it."""
        new = []
        for fact in self.facts:
            if not fact.seen:
                if not fact.look(tally, view):
                    break
                fact.seen = True
                new.append(fact)
        return new


class Mark:
    """What the agents had counted at some moment, to see what came after."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._settled: dict[str, int] | None = None
        self._refused: dict[str, int] = {}

    def set(self) -> None:
        """Remember now."""
        counted = self._tally.by_daemon.items()
        self._settled = {name: each.settled_count for name, each in counted}
        self._refused = {name: _lent_nothing(self._tally, name) for name, _ in counted}

    def settled_since(self, name: str, count: int = 1) -> bool:
        """Tell whether a daemon's calls were settled since."""
        if self._settled is None:
            return False
        return self._tally.by_daemon[name].settled_count >= self._settled[name] + count

    def refused_since(self, name: str) -> bool:
        """Tell whether a daemon refused since for want of a lease."""
        return self._settled is not None and _lent_nothing(self._tally, name) > self._refused[name]


def acts(stage: Stage, tally: Tally) -> list[Act]:
    """Write the acts for this fleet."""
    names = stage.names
    return [
        _race(stage),
        _killed(stage, tally, names[1 :: max(1, len(names) // 2)][:2]),
        _cut_off(stage, tally, names[2 % len(names) :: max(1, len(names) // 2)][:2]),
        _headless(stage, tally),
        _last_dollars(stage),
    ]


def _race(stage: Stage) -> Act:
    return Act(
        "One budget for all",
        f"Agents at {len(stage.names)} daemons spend one budget; each daemon on what it was lent.",
        Order(at_work=True),
        lasts_s=4,
        facts=[
            Fact(
                "every daemon was lent a share",
                lambda _, view: all(name in view.leases for name in stage.names),
            ),
            Fact(
                "every daemon's agents were paid for",
                lambda tally, _: all(each.settled_count for each in tally.by_daemon.values()),
            ),
        ],
    )


def _killed(stage: Stage, tally: Tally, victims: list[str]) -> Act:
    alive = [name for name in stage.names if name not in victims]
    died, returned = Mark(tally), Mark(tally)
    both = " and ".join(victims)

    def kill() -> None:
        for name in victims:
            stage.daemons[name].kill()
        died.set()

    def restart() -> None:
        for name in victims:
            stage.daemons[name].start()
        returned.set()

    return Act(
        "Daemons die",
        f"{both}: kill -9 in the midst of calls; what they hold stays theirs until they tell.",
        Order(at_work=True),
        lasts_s=5,
        steps=[
            Step(0.5, kill, f"kill -9 {both}"),
            Step(0.5 + DEAD_S, restart, f"{both} started again, on their books"),
        ],
        facts=[
            Fact("the others went on", lambda *_: all(map(died.settled_since, alive))),
            Fact(
                "those that died are back and spend again",
                lambda _, view: (
                    all(map(view.is_back, victims)) and all(map(returned.settled_since, victims))
                ),
            ),
        ],
    )


def _cut_off(stage: Stage, tally: Tally, victims: list[str]) -> Act:
    cut, lone, mended = Mark(tally), Mark(tally), Mark(tally)
    both = " and ".join(victims)
    facts = [
        Fact(
            "cut off, they spent what they held",
            lambda *_: all(map(cut.settled_since, victims)),
        ),
        Fact(
            "then they refused: nobody could lend them more",
            lambda *_: all(map(lone.refused_since, victims)),
        ),
        Fact(
            "what they held was presumed spent",
            lambda _, view: all(name in view.leases and not view.is_back(name) for name in victims),
        ),
        Fact(
            "mended, the truth replaced that, and they spend again",
            lambda _, view: (
                all(map(view.is_back, victims)) and all(map(mended.settled_since, victims))
            ),
        ),
    ]

    def part() -> None:
        for name in victims:
            stage.links.cut(name)
        cut.set()
        lone.set()

    def mend() -> None:
        for name in victims:
            stage.links.mend(name)
        mended.set()

    return Act(
        "A partition",
        f"Nothing passes between {both} and the coordinator; their agents ask on.",
        Order(at_work=True),
        lasts_s=6,
        steps=[
            Step(0.5, part, f"{both} cut off from the coordinator"),
            Step(
                2.0,
                mend,
                f"the link of {both} is mended",
                when=lambda: all(fact.seen for fact in facts[:3]),
            ),
        ],
        facts=facts,
    )


def _headless(stage: Stage, tally: Tally) -> Act:
    died, returned = Mark(tally), Mark(tally)

    def kill() -> None:
        stage.coordinator.kill()
        died.set()

    def restart() -> None:
        stage.coordinator.start()
        returned.set()

    return Act(
        "The coordinator dies",
        "kill -9; daemons go on with what they hold, and its memory is in PostgreSQL.",
        Order(at_work=True),
        lasts_s=6,
        steps=[
            Step(0.5, kill, "kill -9 of the coordinator"),
            Step(0.5 + DEAD_S / 2, restart, "the coordinator is started again"),
        ],
        facts=[
            Fact(
                "without it, calls were still paid for",
                lambda *_: any(map(died.settled_since, stage.names)),
            ),
            Fact(
                "it is back, and every daemon with it",
                lambda _, view: view.answers and all(map(view.is_back, stage.names)),
            ),
            Fact(
                "all spend again",
                lambda *_: all(map(returned.settled_since, stage.names)),
            ),
        ],
    )


def _last_dollars(stage: Stage) -> Act:
    return Act(
        "The last dollars",
        "Calls become dear; leases shrink to single calls, and nobody passes the limit.",
        Order(at_work=True, times=LAST_DOLLARS),
        lasts_s=4,
        facts=[
            Fact(
                "every daemon refused in the end: the budget is used up",
                lambda tally, _: all(
                    tally.by_daemon[name].refused["BUDGET_EXHAUSTED"] for name in stage.names
                ),
            ),
            Fact(
                "less than one dear call was left over",
                lambda tally, view: view.pool.limit - tally.spent_nusd < _DEAREST_NUSD,
            ),
        ],
    )


_DEAREST_NUSD: Final = 30_000_000 * LAST_DOLLARS * 2


def _lent_nothing(tally: Tally, name: str) -> int:
    refused = tally.by_daemon[name].refused
    return sum(refused[reason] for reason in LENT_NOTHING)
