"""Adds the journal up again in Decimal arithmetic; uses neither costd's prices nor its rules."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from functools import lru_cache

import genai_prices

from costd.cli.demo.journal import Entry, Usage
from costd.cli.demo.rulebook import Rulebook

NUSD_PER_USD = Decimal(10**9)
EXACT = Context(prec=60)
"""Far more digits than a price times a count has, so that nothing is rounded but at the end."""
GROUPS = ("project", "user", "model", "task_class")


def cost_nusd(provider: str, model: str, usage: Usage, at_ns: int) -> int:
    """Price a call from the public catalogue, rounded up to the next nano-dollar."""
    # A price changes at most by the minute; the rest of the time would only fill the cache.
    minute = at_ns // 60_000_000_000
    return _cost_nusd(provider, model, usage, minute)


@lru_cache(maxsize=100_000)
def _cost_nusd(provider: str, model: str, usage: Usage, minute: int) -> int:
    with localcontext(EXACT):
        dollars = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cached_tokens or None,
            ),
            model,
            provider_id=provider,
            genai_request_timestamp=datetime.fromtimestamp(minute * 60, tz=UTC),
        ).total_price
        return int((Decimal(dollars) * NUSD_PER_USD).to_integral_value(ROUND_CEILING))


@dataclass(slots=True)
class CounterSum:
    """What one budget's counter must hold for one key."""

    settled: int = 0
    overrun: int = 0
    granted: int = 0


@dataclass(slots=True)
class Recount:
    """Every sum the daemon's books can be held against, by its own name."""

    settled_count: int = 0
    total_nusd: int = 0
    by_call: dict[str, int] = field(default_factory=dict)
    """Cost by ask."""
    drawn: set[str] = field(default_factory=set)
    """Asks that the callers' own processes decided."""
    by_group: dict[tuple[str, str], tuple[int, int, int, int]] = field(default_factory=dict)
    """(label, value) → calls, nano-dollars, prompt tokens, output tokens."""
    by_counter: dict[tuple[str, str], CounterSum] = field(
        default_factory=lambda: defaultdict(CounterSum)
    )
    """(budget, key)."""
    verdicts: Counter[str] = field(default_factory=Counter)
    """By verdict/task_class."""
    grant_uses: Counter[str] = field(default_factory=Counter)
    grant_nusd: Counter[str] = field(default_factory=Counter)
    mispriced: list[Entry] = field(default_factory=list)
    """Calls whose price the daemon told otherwise."""

    def add(self, entry: Entry, rulebook: Rulebook) -> None:
        """Count one call in."""
        self.verdicts[f"{entry.verdict}/{entry.task_class}"] += 1
        if entry.usage is None:
            return
        cost = cost_nusd(entry.provider, entry.model, entry.usage, entry.at_ns)
        if cost != entry.cost_nusd:
            self.mispriced.append(entry)
        self.settled_count += 1
        self.total_nusd += cost
        self.by_call[entry.ask_id] = cost
        if entry.source == "allowance":
            self.drawn.add(entry.ask_id)
        facts = entry.facts()
        for label in GROUPS:
            value = facts.get(label, "(none)")
            calls, nusd, prompt, output = self.by_group.get((label, value), (0, 0, 0, 0))
            self.by_group[label, value] = (
                calls + 1,
                nusd + cost,
                prompt + entry.usage.prompt_tokens,
                output + entry.usage.output_tokens,
            )
        if entry.grant_id:
            self.grant_uses[entry.grant_id] += 1
            self.grant_nusd[entry.grant_id] += cost
        self._add_to_counters(entry, entry.usage, cost, rulebook)

    def _add_to_counters(self, entry: Entry, usage: Usage, cost: int, rulebook: Rulebook) -> None:
        facts = entry.facts()
        tokens = usage.prompt_tokens + usage.output_tokens
        for budget in rulebook.budgets:
            if not budget.holds(facts):
                continue
            charged = {"nusd": cost, "tokens": tokens, "calls": 1}[budget.unit]
            counter = self.by_counter[budget.name, budget.key(facts)]
            counter.settled += charged
            if entry.grant_id:
                counter.granted += charged
            elif budget.unit == "nusd":
                counter.overrun += max(0, charged - entry.hold_nusd)
            elif budget.unit == "tokens":
                counter.overrun += max(0, charged - held_tokens(entry))


def held_tokens(entry: Entry) -> int:
    """State how many tokens an ask holds: its prompt, and its output as far as it was bounded."""
    bound = entry.directives.get("max_output_tokens", entry.max_output_tokens)
    return entry.prompt_tokens + min(entry.max_output_tokens, bound)


def recount(entries: Iterable[Entry], rulebook: Rulebook) -> Recount:
    """Add up a whole journal."""
    sums = Recount()
    for entry in entries:
        sums.add(entry, rulebook)
    return sums
