"""A policy made ready to decide: rules found by label, windows remembered."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from costd.engine import keys, shares
from costd.engine.ports import Prices
from costd.engine.window import window_bounds
from costd.model.kill import KillSwitch
from costd.model.labels import RESERVED_KEYS, Facts, Selector
from costd.model.policy import Budget, ModelRule, PolicySet, Rate, Share, Window, WindowKind

FULL_BP = 10_000
_MEMO_MAX = 8192
_MEMO_KEYS_MAX = 16

Rule = TypeVar("Rule")


class BudgetRule:
    """A budget with its counter tag and the window it was last asked about."""

    __slots__ = (
        "_remembered",
        "budget",
        "first_step_bp",
        "has_burn",
        "has_steps",
        "is_shared",
        "limit",
        "shadow",
        "tag",
    )

    def __init__(self, budget: Budget, *, shadow: bool = False, in_fleet: bool = False) -> None:
        self.budget = budget
        self.tag = keys.budget_tag(budget)
        self.shadow = budget.shadow or shadow
        # The limit in force; a budget that is suspended has none.
        self.limit = budget.limit if budget.active else None
        # Whether this daemon may spend only what it is lent of the fleet's budget.
        self.is_shared = in_fleet and budget.share is Share.FLEET and self.limit is not None
        self.first_step_bp = min(
            (step.at_bp for step in budget.steps if step.at_bp is not None), default=2**62
        )
        self.has_steps = self.limit is not None and bool(budget.steps)
        self.has_burn = any(step.burn_bp is not None for step in budget.steps)
        # One tuple, so that a listing in another thread never sees half of a new window.
        self._remembered = (0, 0, b"")

    @property
    def selector(self) -> Selector:
        """Whose calls it counts."""
        return self.budget.selector

    def may_have_reached(self, used: int, limit: int) -> bool:
        """Tell whether it is worth looking which steps are reached; quick where none is."""
        return self.has_burn or used * FULL_BP >= self.first_step_bp * limit

    def window(self, wall_ns: int) -> tuple[int, int]:
        """Find the window in force; remembered, because it rarely changes."""
        start_ns, end_ns, _ = self._window(wall_ns)
        return start_ns, end_ns

    def counter_key(self, facts: Facts, wall_ns: int) -> bytes:
        """Make the key of the counter these facts count under now."""
        start_ns, end_ns, prefix = self._remembered
        if not start_ns <= wall_ns < end_ns:
            prefix = self._window(wall_ns)[2]
        per = self.budget.per
        return prefix + keys.per_key(per, facts).encode() if per else prefix

    def _window(self, wall_ns: int) -> tuple[int, int, bytes]:
        remembered = self._remembered
        if not remembered[0] <= wall_ns < remembered[1]:
            start_ns, end_ns = window_bounds(self.budget.window, wall_ns)
            remembered = (start_ns, end_ns, keys.window_prefix(end_ns, self.tag))
            self._remembered = remembered
        return remembered


class RateRule:
    """A rate with its bucket tag."""

    __slots__ = ("_remembered", "is_shared", "rate", "shadow", "tag")

    def __init__(self, rate: Rate, *, shadow: bool = False, in_fleet: bool = False) -> None:
        self.rate = rate
        self.tag = keys.rate_tag(rate)
        self.shadow = rate.shadow or shadow
        # Whether this daemon may use only the share that it is lent. What only looks on borrows
        # nothing: it is judged by what this daemon does.
        self.is_shared = in_fleet and rate.share is Share.FLEET and not self.shadow
        self._remembered = (0, shares.scaled(rate, 0))

    @property
    def selector(self) -> Selector:
        """Whose calls it counts."""
        return self.rate.selector

    def scaled(self, share: int) -> Rate:
        """What is left of the rate for who holds this share; remembered, as it rarely changes."""
        remembered = self._remembered
        if remembered[0] != share:
            self._remembered = remembered = (share, shares.scaled(self.rate, share))
        return remembered[1]

    def bucket_key(self, facts: Facts) -> bytes:
        """Make the key of the bucket these facts draw from."""
        per = self.rate.per
        return self.tag + keys.per_key(per, facts).encode() if per else self.tag


class Matching(NamedTuple):
    """The rules whose selectors hold for some facts."""

    budgets: tuple[BudgetRule, ...]
    rates: tuple[RateRule, ...]
    model_rules: tuple[ModelRule, ...]


class Anchors(Generic[Rule]):
    """Finds the rules that may match without looking at those that cannot.

    A rule waits under one of the label values it needs; only rules that need none are always
    looked at. This is why an admit does not grow with the budgets it does not match.
    """

    def __init__(self, rules: Iterable[tuple[Selector, Rule]]) -> None:
        self._always: list[tuple[int, Selector, Rule]] = []
        self._anchored: dict[tuple[str, str], list[tuple[int, Selector, Rule]]] = {}
        for order, (selector, rule) in enumerate(rules):
            anchor = next((m for m in selector.matches if m.values and not m.negated), None)
            if anchor is None:
                self._always.append((order, selector, rule))
                continue
            for value in anchor.values:
                self._anchored.setdefault((anchor.key, value), []).append((order, selector, rule))

    def matching(self, facts: Facts) -> tuple[Rule, ...]:
        """Find the rules whose selectors hold, in the order they were given."""
        if not self._always and not self._anchored:
            return ()
        found = [entry for entry in self._always if entry[1].holds(facts)]
        if self._anchored:
            for item in facts.items():
                for entry in self._anchored.get(item, ()):
                    if entry[1].holds(facts):
                        found.append(entry)  # noqa: PERF401 - a comprehension hides the lookup
        return tuple(rule for _, _, rule in sorted(found, key=lambda entry: entry[0]))


Kills = Anchors[KillSwitch]
"""Kill switches found by what they cover; a halt per user makes many of them."""

NO_KILLS: Kills = Anchors(())


class Rules:
    """One policy revision, compiled. Immutable but for what it remembers.

    With `in_fleet`, budgets and rates with `share: fleet` are bounded by leases of a coordinator.
    """

    def __init__(self, policy: PolicySet, prices: Prices, *, in_fleet: bool = False) -> None:
        self.policy = policy
        self.in_fleet = in_fleet
        self.prices = prices
        self.tier_index = {tier.name: index for index, tier in enumerate(policy.tiers)}
        self._tier_of: dict[tuple[str, str], int] = {}
        self._provider_of: dict[str, str] = {}
        for index, tier in enumerate(policy.tiers):
            for ref in tier.models:
                self._provider_of.setdefault(ref.model, ref.provider)
                # An ask without a provider means any; a policy's model without one means all.
                for provider in {ref.provider or "*", ""}:
                    self._tier_of.setdefault((provider, ref.model), index)
        self.budgets = {
            rule.tag: rule
            for rule in (
                BudgetRule(budget, shadow=policy.shadow, in_fleet=in_fleet)
                for budget in policy.budgets
            )
        }
        rates = [RateRule(rate, shadow=policy.shadow, in_fleet=in_fleet) for rate in policy.rates]
        self.shared_rates = {rule.tag: rule for rule in rates if rule.is_shared}
        """Rates of the fleet's, by tag; none without a coordinator."""
        self.has_keyed = any(budget.per for budget in policy.budgets)
        """Whether a budget has more than one counter a window."""
        self.has_shadow = (
            policy.shadow
            or any(rule.shadow for rule in self.budgets.values())
            or any(rule.shadow for rule in rates)
            or any(rule.shadow for rule in policy.model_rules)
        )
        self._budgets = Anchors(
            (r.budget.selector, r) for r in self.budgets.values() if r.budget.active
        )
        self._rates = Anchors((rule.rate.selector, rule) for rule in rates)
        self._model_rules = Anchors((rule.selector, rule) for rule in policy.model_rules)
        selectors = [
            *(budget.selector for budget in policy.budgets),
            *(rate.selector for rate in policy.rates),
            *(rule.selector for rule in policy.model_rules),
        ]
        self._read_keys = tuple(
            sorted({match.key for selector in selectors for match in selector.matches})
        )
        self._read_set = frozenset(self._read_keys)
        per = [label for budget in policy.budgets for label in budget.per]
        per += [label for rate in policy.rates for label in rate.per]
        offered = [match.key for match in policy.allowance.selector.matches]
        self.scope_labels = frozenset({*self._read_keys, *per, *offered}) - RESERVED_KEYS
        """The labels that some rule reads; calls that share their values share an allowance."""
        self._memo: dict[tuple[object, ...], Matching] = {}

    def matching(self, facts: Facts) -> Matching:
        """Find every rule whose selector holds; the same facts are looked up once."""
        if len(self._read_keys) <= _MEMO_KEYS_MAX:
            seen: tuple[object, ...] = tuple(map(facts.get, self._read_keys))
        else:
            seen = tuple(item for item in facts.items() if item[0] in self._read_set)
        matching = self._memo.get(seen)
        if matching is None:
            matching = Matching(
                self._budgets.matching(facts),
                self._rates.matching(facts),
                self._model_rules.matching(facts),
            )
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()
            self._memo[seen] = matching
        return matching

    def budget_of(self, key: bytes) -> BudgetRule | None:
        """Find the budget of a counter; an override grant is one of a fleet's own."""
        rule = self.budgets.get(keys.tag_of(key))
        if rule is not None or not keys.is_grants(key):
            return rule
        counter = keys.grant_counter(key)
        if counter is None:
            return None
        return BudgetRule(
            Budget(
                budget_id=counter.grant_id,
                selector=Selector(()),
                window=Window(WindowKind.TOTAL),
                unit=counter.unit,
                limit=counter.limit,
            ),
            in_fleet=self.in_fleet,
        )

    def provider_of(self, model: str) -> str:
        """Find whom the policy has this model from, empty if it does not say."""
        return self._provider_of.get(model, "")

    def tier_of(self, provider: str, model: str) -> int | None:
        """Find the best tier that lists this model."""
        return self._tier_of.get((provider, model), self._tier_of.get(("*", model)))


def model_matches(patterns: tuple[str, ...], provider: str, model: str) -> bool:
    """Tell whether a model is one of these: `model`, `provider/model`, with `*` for anything."""
    return any(_pattern_matches(pattern, provider, model) for pattern in patterns)


@lru_cache(maxsize=2048)
def _pattern_matches(pattern: str, provider: str, model: str) -> bool:
    return _fits(pattern, f"{provider}/{model}") or _fits(pattern, model)


def _fits(pattern: str, text: str) -> bool:
    """Match a pattern in which only `*` is special.

    Not fnmatch: callers write patterns too, and it compiles each into a regular expression,
    which takes a thousand times as long as this and is kept.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    *middle, last = rest
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def budget_amount(unit: str, *, cost_nusd: int, tokens: int) -> int:
    """How much of a budget's unit one call counts."""
    if unit == "nusd":
        return cost_nusd
    return tokens if unit == "tokens" else 1
