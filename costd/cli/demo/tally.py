"""Counts what the journals say while they grow: what the screen shows and the acts wait for."""

from collections import Counter, deque
from collections.abc import Iterable
from itertools import pairwise

from costd.cli.demo.journal import Entry
from costd.cli.demo.rulebook import Budget, Rulebook, Rung
from costd.model.time import NS_PER_S

RATE_OVER_S = 2
HISTORY_COUNT = 24
LATENCIES_COUNT = 400
INVISIBLE = frozenset({"alert", "halt"})
"""What a step does that no decision shows."""


class Ladder:
    """Which steps of one budget decisions showed, and how often."""

    def __init__(self, budget: Budget, rulebook: Rulebook) -> None:
        self.budget = budget
        self.rungs = budget.rungs
        self.counts = [0] * len(budget.rungs)
        self._rulebook = rulebook
        self._ranks = {name: rank for rank, name in enumerate(rulebook.tiers)}

    def take(self, entry: Entry) -> None:
        """Count a decision under the highest step whose demands it shows."""
        if self._rulebook.task_classes[entry.task_class].critical:
            return
        if entry.rule != self.budget.name:
            return
        shown = [at for at, rung in enumerate(self.rungs) if self._shows(rung, entry)]
        if shown:
            self.counts[shown[-1]] += 1

    def _shows(self, rung: Rung, entry: Entry) -> bool:
        demands = {name: value for name, value in rung.do.items() if name not in INVISIBLE}
        return bool(demands) and all(
            self._obeys(name, value, entry) for name, value in demands.items()
        )

    def _obeys(self, name: str, value: int, entry: Entry) -> bool:
        if name == "deny":
            return entry.reason == "STEP_DENY"
        if entry.verdict != "degrade":
            return False
        last = len(self._ranks) - 1
        match name:
            case "max_output_tokens" | "max_retries":
                return entry.directives.get(name, value + 1) <= value
            case "tiers_down" | "economy":
                asked = self._ranks[self._rulebook.tier_of(entry.asked_provider, entry.asked_model)]
                wanted = last if name == "economy" else min(last, asked + value)
                return self._ranks[entry.tier] >= wanted
            case "switch_provider":
                return entry.provider != entry.asked_provider
            case _:
                return name in entry.directives


class Tally:
    """Everything counted so far, and since the present act began."""

    def __init__(self, ladder: Ladder | None = None) -> None:
        self.ladder = ladder
        self.calls_count = 0
        self.by_class: Counter[tuple[str, str]] = Counter()
        """(task class, verdict)."""
        self.in_act: Counter[tuple[str, str, str]] = Counter()
        """(project, task class, reason) of this act's answers; the verdict follows from them."""
        self.redeemed_count = 0
        self.grant_refusals: Counter[int] = Counter()
        self.cache_hits_count = 0
        self.drawn_count = 0
        """Calls that their own process decided; they ask nobody, so no answer took any time."""
        self.spent_nusd = 0
        self.act_started_ns = 0
        self._times: deque[tuple[int, int]] = deque()
        self._latencies_ns: deque[int] = deque(maxlen=LATENCIES_COUNT)

    def begin_act(self, now_ns: int) -> None:
        """Count anew what the acts look at."""
        self.act_started_ns = now_ns
        self.in_act.clear()

    def take(self, entries: Iterable[Entry], now_ns: int) -> list[Entry]:
        """Count some calls in; returns them."""
        taken = list(entries)
        for entry in taken:
            self.by_class[entry.task_class, entry.verdict] += 1
            self.spent_nusd += entry.cost_nusd
            self.cache_hits_count += entry.ending == "voided"
            self.grant_refusals[entry.grant_refusal] += 1
            if entry.source == "allowance":
                self.drawn_count += 1
            else:
                self._latencies_ns.append(entry.asking_ns)
            if entry.at_ns >= self.act_started_ns:
                self.in_act[entry.labels["project"], entry.task_class, entry.reason] += 1
                self.redeemed_count += bool(entry.grant_id)
            if self.ladder is not None:
                self.ladder.take(entry)
        self.calls_count += len(taken)
        self._times.append((now_ns, self.calls_count))
        while len(self._times) > HISTORY_COUNT * 8 or (
            self._times[-1][0] - self._times[0][0] > HISTORY_COUNT * NS_PER_S // 2
        ):
            self._times.popleft()
        return taken

    def answers(self, *, project: str = "", task_class: str = "", reason: str = "") -> int:
        """Count this act's answers that are like this; what is left empty may be anything."""
        return sum(
            count
            for (its_project, its_class, its_reason), count in self.in_act.items()
            if project in {"", its_project}
            and task_class in {"", its_class}
            and reason in {"", its_reason}
        )

    @property
    def calls_per_s(self) -> int:
        """How many calls were finished a second, over the last two seconds."""
        if len(self._times) < 2:  # noqa: PLR2004  a rate needs two points
            return 0
        end_ns, count = self._times[-1]
        start_ns, before = next(
            point for point in self._times if end_ns - point[0] <= RATE_OVER_S * NS_PER_S
        )
        if start_ns == end_ns:
            start_ns, before = self._times[-2]
        return (count - before) * NS_PER_S // max(end_ns - start_ns, 1)

    def rates(self) -> list[int]:
        """Calls a second in each of the last half seconds, the oldest first."""
        if not self._times:
            return []
        end_ns = self._times[-1][0]
        marks = [end_ns - back * NS_PER_S // 2 for back in range(HISTORY_COUNT, -1, -1)]
        counts = []
        for mark in marks:
            known = [count for at, count in self._times if at <= mark]
            counts.append(known[-1] if known else self._times[0][1])
        return [2 * (after - before) for before, after in pairwise(counts)]

    @property
    def answer_us(self) -> int:
        """How long the daemon's answers took lately, as agents felt it: the median."""
        if not self._latencies_ns:
            return 0
        return sorted(self._latencies_ns)[len(self._latencies_ns) // 2] // 1000
