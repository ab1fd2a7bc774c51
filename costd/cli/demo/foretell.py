"""Foretells verdicts from the policy file alone: plain rules, one call at a time.

Written from what the policy means, not from how the daemon decides; shares no code with it. Only
right where every call is settled before the next is asked, so nothing is ever left reserved.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import genai_prices

from costd.cli.demo.journal import Entry, Usage
from costd.cli.demo.recount import cost_nusd
from costd.cli.demo.rulebook import Budget, NotUnderstood, Rulebook

SHRINKING = ("max_output_tokens", "max_retries")
SWITCHES = ("compression", "cache", "batch")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the daemon must answer."""

    verdict: str
    reason: str
    tier: str
    provider: str
    model: str
    hold_nusd: int = 0
    directives: dict[str, int] = field(default_factory=dict)

    def differs(self, entry: Entry) -> str:
        """Name what the daemon answered otherwise; empty if nothing."""
        return ", ".join(
            f"{name} should be {mine!r} and is {theirs!r}"
            for name in self.__slots__
            if (mine := getattr(self, name)) != (theirs := getattr(entry, name))
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """One model an ask could run on."""

    rank: int
    tier: str
    provider: str
    model: str


@dataclass(slots=True)
class Trial:
    """How one offer fares; `reason` OK means that it fits."""

    offer: Offer
    reason: str = "OK"
    is_final: bool = False
    """Whether no other offer can help."""
    hold_nusd: int = 0
    demands: dict[str, int] = field(default_factory=dict)
    directives: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Used:
    """What was spent of one counter, and which part of it came out of the reserve."""

    total: int = 0
    reserve: int = 0


class Foreteller:
    """Keeps its own books along with the daemon's."""

    def __init__(self, rulebook: Rulebook) -> None:
        if rulebook.has_rates:
            raise NotUnderstood("rates depend on the time of day; verdicts cannot be foretold")
        self._rulebook = rulebook
        self._tiers = list(rulebook.tiers)
        self._used: dict[tuple[str, str], Used] = {}

    def foretell(self, entry: Entry) -> Prediction:
        """Decide an ask on the books so far."""
        tier = self._rulebook.tier_of(entry.asked_provider, entry.asked_model)
        asked = Offer(self._tiers.index(tier), tier, entry.asked_provider, entry.asked_model)
        first, winner = self._search(entry, asked)
        if winner is None:
            return Prediction("deny", first.reason, asked.tier, asked.provider, asked.model)
        offer, plain = winner.offer, winner is first and not winner.directives
        reason = first.reason if first.reason != "OK" or plain else "STEP"
        return Prediction(
            "allow" if plain else "degrade", reason, offer.tier, offer.provider, offer.model,
            winner.hold_nusd, winner.directives,
        )  # fmt: skip

    def follow(self, entry: Entry) -> None:
        """Book what the call cost, as recomputed here."""
        usage = entry.usage
        if usage is None:
            return
        cost = cost_nusd(entry.provider, entry.model, usage, entry.at_ns)
        critical = self._rulebook.task_classes[entry.task_class].critical
        output = min(entry.max_output_tokens, entry.directives.get("max_output_tokens", 10**18))
        held = {"nusd": entry.hold_nusd, "tokens": entry.prompt_tokens + output, "calls": 1}
        spent = {"nusd": cost, "tokens": usage.prompt_tokens + usage.output_tokens, "calls": 1}
        for budget, used in self._counters(entry.facts()):
            hold, charge = held[budget.unit], spent[budget.unit]
            if critical and budget.limit is not None and budget.reserve:
                # A critical call takes what is left outside the reserve first.
                outside = max(0, budget.limit - budget.reserve - (used.total - used.reserve))
                used.reserve += max(0, min(charge, hold) - min(hold, outside))
            used.total += charge

    def _search(self, entry: Entry, asked: Offer) -> tuple[Trial, Trial | None]:
        """Try the asked model, then cheaper ones, until one fits and is what budgets ask for.

        Where none is, the one that comes closest to it.
        """
        first = self._try(entry, asked)
        if first.reason == "OK" and self._satisfies(entry, asked, first.offer, first.demands):
            return first, first
        if self._ends(entry, asked, first):
            return first, None
        fitting = [first] if first.reason == "OK" else []
        demands, ended = first.demands, False
        short: list[Offer] = []
        for offer in self._cheaper(entry, asked):
            if not self._satisfies(entry, asked, offer, demands):
                short.append(offer)
                continue
            trial = self._try(entry, offer)
            ended = self._ends(entry, asked, trial)
            if ended:
                break
            if trial.reason != "OK":
                continue
            if self._satisfies(entry, asked, offer, trial.demands):
                return first, trial
            fitting.append(trial)
            demands = trial.demands
        if not ended:
            fitting += self._fitting(entry, asked, short, demands)
        closest = min(
            fitting, key=lambda each: self._missing(entry, asked, each.offer, demands), default=None
        )
        return first, closest

    def _fitting(
        self, entry: Entry, asked: Offer, offers: list[Offer], demands: dict[str, int]
    ) -> Iterator[Trial]:
        """Try offers that are not cheap enough, the closest and lowest first."""
        offers.sort(key=lambda each: (self._missing(entry, asked, each, demands), -each.rank))
        for offer in offers:
            trial = self._try(entry, offer)
            if self._ends(entry, asked, trial):
                return
            if trial.reason == "OK":
                yield trial

    def _ends(self, entry: Entry, asked: Offer, trial: Trial) -> bool:
        """Tell whether no other offer can help: a budget is full for one that it does not avoid."""
        if trial.reason == "BUDGET_EXHAUSTED":
            return trial.is_final and self._satisfies(entry, asked, trial.offer, trial.demands)
        return trial.is_final

    def _try(self, entry: Entry, offer: Offer) -> Trial:
        """Hold one offer against every budget that counts it."""
        trial = Trial(offer)
        if not _fits_window(entry, offer):
            trial.reason = "CONTEXT_TOO_LONG"
            return trial
        facts = entry.labels | {
            "task_class": entry.task_class,
            "tier": offer.tier,
            "provider": offer.provider,
            "model": offer.model,
        }
        counters = list(self._counters(facts))
        denied = self._gather(entry, trial, counters)
        output = self._shorten(entry, trial)
        trial.hold_nusd = _price(entry, offer, output)
        if denied is not None:
            trial.reason, trial.is_final = "STEP_DENY", not denied.names_candidate
            return trial
        holds = {"nusd": trial.hold_nusd, "tokens": entry.prompt_tokens + output, "calls": 1}
        for budget, used in counters:
            if not self._has_room(entry, budget, used, holds[budget.unit]):
                trial.reason, trial.is_final = "BUDGET_EXHAUSTED", not budget.names_candidate
                return trial
        return trial

    def _gather(
        self, entry: Entry, trial: Trial, counters: list[tuple[Budget, Used]]
    ) -> Budget | None:
        """Collect what the reached steps ask for; returns the first budget that denies."""
        task_class = self._rulebook.task_classes[entry.task_class]
        denied = None
        if task_class.critical and not task_class.takes_steps:
            return None
        for budget, used in counters:
            if budget.limit is None:
                continue
            limit, spent = budget.limit, used.total
            if not task_class.critical:
                limit, spent = limit - budget.reserve, spent - used.reserve
            for rung in budget.rungs:
                if spent < rung.at * limit:
                    continue
                if "deny" in rung.do:
                    denied = denied or budget
                for name, value in rung.do.items():
                    keep = min if name in SHRINKING else max
                    trial.demands[name] = keep(trial.demands.get(name, value), value)
        return denied

    def _shorten(self, entry: Entry, trial: Trial) -> int:
        """State the directives; a bound on the output that the ask keeps anyway is none."""
        output = entry.max_output_tokens
        for name in (*SHRINKING, *SWITCHES):
            if name in trial.demands:
                trial.directives[name] = trial.demands[name]
        bound = trial.directives.get("max_output_tokens", output)
        if bound >= output:
            trial.directives.pop("max_output_tokens", None)
        return min(output, bound)

    def _has_room(self, entry: Entry, budget: Budget, used: Used, hold: int) -> bool:
        if budget.limit is None or (budget.unit == "nusd" and not hold):
            return True
        if used.total + hold > budget.limit:
            return False
        if self._rulebook.task_classes[entry.task_class].critical:
            return True
        return used.total - used.reserve + hold <= budget.limit - budget.reserve

    def _satisfies(self, entry: Entry, asked: Offer, offer: Offer, demands: dict[str, int]) -> bool:
        """Tell whether an offer is as cheap as budgets ask for, within the class's lowest tier."""
        return self._missing(entry, asked, offer, demands) == (0, 0)

    def _missing(
        self, entry: Entry, asked: Offer, offer: Offer, demands: dict[str, int]
    ) -> tuple[int, int]:
        """How much an offer lacks of what budgets ask for: tiers, and the other provider."""
        lowest = self._lowest(entry, asked)
        wanted = min(lowest, asked.rank + demands.get("tiers_down", 0))
        if "economy" in demands:
            wanted = lowest
        stays = "switch_provider" in demands and offer.provider == asked.provider
        return max(0, wanted - offer.rank), int(stays)

    def _lowest(self, entry: Entry, asked: Offer) -> int:
        min_tier = self._rulebook.task_classes[entry.task_class].min_tier
        lowest = self._tiers.index(min_tier) if min_tier else len(self._tiers) - 1
        return max(lowest, asked.rank)

    def _cheaper(self, entry: Entry, asked: Offer) -> Iterator[Offer]:
        """List other models from the asked tier down, the same provider's first in each tier."""
        price = _price(entry, asked, entry.max_output_tokens)
        for rank in range(asked.rank, self._lowest(entry, asked) + 1):
            tier = self._tiers[rank]
            models = self._rulebook.tiers[tier]
            for provider, model in sorted(models, key=lambda each: each[0] != asked.provider):
                if rank == asked.rank and provider == asked.provider:
                    continue
                offer = Offer(rank, tier, provider, model)
                cheaper = _price(entry, offer, entry.max_output_tokens) < price
                if cheaper and _fits_window(entry, offer):
                    yield offer

    def _counters(self, facts: Mapping[str, str]) -> Iterator[tuple[Budget, Used]]:
        for budget in self._rulebook.budgets:
            if budget.holds(facts):
                name = (budget.name, budget.key(facts))
                yield budget, self._used.setdefault(name, Used())


def _price(entry: Entry, offer: Offer, output_tokens: int) -> int:
    usage = Usage(prompt_tokens=entry.prompt_tokens, output_tokens=output_tokens)
    return cost_nusd(offer.provider, offer.model, usage, entry.at_ns)


def _fits_window(entry: Entry, offer: Offer) -> bool:
    window = _context_window(offer.provider, offer.model)
    return window is None or entry.prompt_tokens + entry.max_output_tokens <= window


@lru_cache(maxsize=100)
def _context_window(provider: str, model: str) -> int | None:
    return genai_prices.calc_price(
        genai_prices.Usage(input_tokens=1), model, provider_id=provider
    ).model.context_window
