"""Reads a policy file a second time, by a reader of its own, for those who check the daemon.

Only what the demo's policies use is understood; anything else is refused, so that a check never
passes because it looked away. Nothing here imports costd.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

NUSD_PER_USD = 10**9
FLAGS = {
    "compression": "compress",
    "cache": "cache",
    "batch": "batch",
    "switch_provider": "other provider",
    "economy": "economy tier",
    "deny": "deny",
    "halt": "engage the kill switch",
    "alert": "alert",
}
COUNTS = ("max_output_tokens", "max_retries", "tiers_down")
MULTIPLES = {"k": 1_000, "M": 1_000_000}


class NotUnderstood(Exception):
    """The policy says something that this reader does not know."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of a `match`; no values mean any value."""

    key: str
    values: tuple[str, ...]
    negated: bool

    def holds(self, facts: Mapping[str, str]) -> bool:
        """Tell whether the facts meet it."""
        value = facts.get(self.key)
        met = value is not None and (not self.values or value in self.values)
        return met is not self.negated


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of a budget: from this share on, do these."""

    at: Decimal
    do: dict[str, int]

    @property
    def share(self) -> str:
        """Write `at` as people do: `80 %`."""
        return f"{(self.at * 100).normalize():f} %"

    @property
    def words(self) -> str:
        """Write what it asks for: `one tier down, no retries`."""
        words = []
        for name, value in self.do.items():
            if name == "max_output_tokens":
                words.append(f"output ≤ {value:,}")
            elif name == "max_retries":
                words.append(f"retries ≤ {value}" if value else "no retries")
            elif name == "tiers_down":
                words.append("one tier down" if value == 1 else f"{value} tiers down")
            else:
                words.append(FLAGS[name])
        return ", ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One budget; amounts in nano-dollars, tokens or calls, by `unit`."""

    name: str
    match: tuple[Condition, ...]
    per: tuple[str, ...]
    window: str
    unit: str
    limit: int | None
    reserve: int
    rungs: tuple[Rung, ...]

    def holds(self, facts: Mapping[str, str]) -> bool:
        """Tell whether it counts a call with these facts."""
        return all(condition.holds(facts) for condition in self.match)

    def key(self, facts: Mapping[str, str]) -> str:
        """Name the counter, as the daemon shows it: `user=ann`."""
        return ", ".join(f"{label}={facts.get(label, '(none)')}" for label in self.per)

    @property
    def names_candidate(self) -> bool:
        """Whether it selects by what may differ from one model to the next."""
        return any(condition.key in {"tier", "provider", "model"} for condition in self.match)


@dataclass(frozen=True, slots=True)
class TaskClass:
    """One task class."""

    critical: bool
    min_tier: str
    takes_steps: bool


@dataclass(frozen=True, slots=True)
class Rulebook:
    """A policy as its checkers read it."""

    tiers: dict[str, tuple[tuple[str, str], ...]]
    """Best first; each with its (provider, model)s."""
    task_classes: dict[str, TaskClass]
    budgets: tuple[Budget, ...]
    has_rates: bool

    def tier_of(self, provider: str, model: str) -> str:
        """Find the tier that lists a model."""
        return next(name for name, models in self.tiers.items() if (provider, model) in models)


def read_rulebook(path: Path) -> Rulebook:
    """Read a policy file.

    Errors:  NotUnderstood for anything the demo's policies do not use.
    """
    written: dict[str, Any] = YAML(typ="safe", pure=True).load(path)
    for unknown in ("prices", "discounts", "model_rules", "shadow"):
        if unknown in written:
            raise NotUnderstood(f"{path}: {unknown} is not checked by the demo; remove it")
    return Rulebook(
        tiers={
            name: tuple(_provider_and_model(model) for model in tier["models"])
            for name, tier in written["tiers"].items()
        },
        task_classes={
            name: TaskClass(
                spec.get("critical", False),
                spec.get("min_tier", ""),
                spec.get("takes_steps", False),
            )
            for name, spec in written["task_classes"].items()
        },
        budgets=tuple(_budget(spec) for spec in written["budgets"]),
        has_rates=bool(written.get("rates")),
    )


def _provider_and_model(text: str) -> tuple[str, str]:
    provider, _, model = text.partition("/")
    return provider, model


def _budget(spec: dict[str, Any]) -> Budget:
    unknown = set(spec) - {"id", "match", "per", "window", "limit", "reserve", "steps", "upgrade"}
    if unknown:
        raise NotUnderstood(f"budget {spec['id']}: {', '.join(sorted(unknown))} is not checked")
    limit, unit = _limit(str(spec.get("limit", "unlimited")))
    per = spec.get("per", [])
    share = Decimal(str(spec.get("reserve", "0%")).removesuffix("%")) / 100
    return Budget(
        name=spec["id"],
        match=tuple(_condition(key, value) for key, value in spec.get("match", {}).items()),
        per=(per,) if isinstance(per, str) else tuple(per),
        window=str(spec["window"]),
        unit=unit,
        limit=limit,
        reserve=int(((limit or 0) * share).to_integral_value(ROUND_FLOOR)),
        rungs=tuple(_rung(step) for step in spec.get("steps", [])),
    )


def _condition(key: str, value: Any) -> Condition:
    negated = isinstance(value, dict)
    if negated:
        value = value["not"]
    values = value if isinstance(value, list) else [value]
    return Condition(key, () if values == ["*"] else tuple(map(str, values)), negated)


def _limit(text: str) -> tuple[int | None, str]:
    """Read `$2,000`, `3M tokens`, `500 calls` or `unlimited`."""
    if text == "unlimited":
        return None, "nusd"
    if text.startswith("$"):
        return int(Decimal(text[1:].replace(",", "")) * NUSD_PER_USD), "nusd"
    amount, _, unit = text.partition(" ")
    times = MULTIPLES.get(amount[-1], 1)
    return int(Decimal(amount.rstrip("kM").replace(",", "")) * times), unit


def _rung(step: dict[str, Any]) -> Rung:
    if "at" not in step:
        raise NotUnderstood(f"step {step}: only steps at a share of the limit are checked")
    do: dict[str, int] = {}
    for action in step["do"]:
        if isinstance(action, dict):
            do |= {name: int(amount) for name, amount in action.items()}
        else:
            do["tiers_down" if action == "tier_down" else action] = 1
    for name in do:
        if name not in FLAGS and name not in COUNTS:
            raise NotUnderstood(f"step {step}: {name} is not checked by the demo")
    return Rung(Decimal(step["at"].removesuffix("%")) / 100, do)
