"""What a daemon counts of its own work, for metrics."""

from collections.abc import Iterable
from typing import Final

from costd.engine.rules import Rules
from costd.model.decision import Decision
from costd.model.events import UsageEvent
from costd.model.labels import NO_LABEL
from costd.pricing import provider_names

OTHER: Final = "(other)"
"""Stands in metrics for every name that a caller made up."""
_ESTIMATED: Final = frozenset({"expired", "reversed"})
"""Events whose cost nobody measured: a hold, charged or taken back."""


class Charges:
    """What usage events of one kind add up to; mutable, and only grows."""

    __slots__ = ("charged_nusd", "reversed_nusd")

    def __init__(self) -> None:
        self.charged_nusd = 0
        self.reversed_nusd = 0


class Measures:
    """What settles and records of one tier and provider reported; mutable, and only grows."""

    __slots__ = ("cached_tokens", "cost_nusd", "output_tokens", "prompt_tokens")

    def __init__(self) -> None:
        self.cost_nusd = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0


class Tallies:
    """Counts since the start."""

    def __init__(self) -> None:
        self.decisions: dict[tuple[int, str, int], int] = {}
        """By (verdict, task class, reason)."""
        self.events: dict[str, int] = {}
        """Other things that happened, by name."""
        self.charges: dict[tuple[str, str, int], Charges] = {}
        """By (task class, tier, verdict)."""
        self.measures: dict[tuple[str, str], Measures] = {}
        """By (tier, provider)."""
        self._rules: Rules | None = None
        self._providers: frozenset[str] = frozenset()

    def decided(self, task_class: str, decision: Decision) -> None:
        """Count a decision."""
        key = (decision.verdict, task_class, decision.reason)
        self.decisions[key] = self.decisions.get(key, 0) + 1

    def happened(self, name: str) -> None:
        """Count something else."""
        self.events[name] = self.events.get(name, 0) + 1

    def used(self, events: Iterable[UsageEvent], rules: Rules) -> None:
        """Add up usage events that were written.

        Ensures: callers cannot make up entries: a name that neither the policy nor the catalogue
                 has counts under `OTHER`.
        """
        if rules is not self._rules:
            self._rules, self._providers = rules, provider_names(rules.policy)
        classes, tiers = rules.policy.task_classes, rules.tier_index
        for event in events:
            task_class, tier = event.ask.task_class, event.tier
            task_class = task_class if task_class in classes else OTHER
            tier = tier if tier in tiers else _other(tier)
            cost_nusd = event.cost_nusd
            charges = self.charges.get((task_class, tier, event.verdict))
            if charges is None:
                charges = self.charges[task_class, tier, event.verdict] = Charges()
            if event.closed_as == "reversed":
                charges.reversed_nusd -= cost_nusd
            else:
                charges.charged_nusd += cost_nusd
            if event.closed_as not in _ESTIMATED:
                self._measured(event, tier)

    def _measured(self, event: UsageEvent, tier: str) -> None:
        provider = event.provider
        provider = provider if provider in self._providers else _other(provider)
        measures = self.measures.get((tier, provider))
        if measures is None:
            measures = self.measures[tier, provider] = Measures()
        measures.cost_nusd += event.cost_nusd
        usage = event.usage
        if usage is not None:
            measures.prompt_tokens += usage.prompt_tokens or 0
            measures.cached_tokens += usage.cached_tokens or 0
            measures.output_tokens += usage.output_tokens or 0


def _other(name: str) -> str:
    return OTHER if name else NO_LABEL
