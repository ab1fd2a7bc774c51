"""Policies for tests in a few words: dollars as text, selectors as dicts, models that cost little.

`acme` sells `big` (premium), `mid` (standard) and `tiny` (economy), each a tenth of the one
before; `globex` sells `titan` (premium) at four fifths of `big`. Per token in and out alike.
"""

from dataclasses import replace
from fractions import Fraction

import msgspec

from costd.model.labels import Match, Selector
from costd.model.money import usd_to_nusd
from costd.model.policy import (
    Budget,
    ModelRef,
    ModelRule,
    PolicyPrice,
    PolicySet,
    Rate,
    RateUnit,
    Step,
    TaskClass,
    Tier,
    Unit,
    Window,
    WindowKind,
)
from costd.model.price import UnitPrice
from costd.model.time import NS_PER_S

__all__ = ["budget", "klass", "model_rule", "policy", "price", "rate", "replace", "step"]

CENT_NUSD = 10_000_000


def selector(match: dict[str, str] | None) -> Selector:
    """`{"team": "a"}`, `{"team": "a|b"}`, `{"team": "!a"}`, `{"team": "*"}`."""
    return Selector(tuple(_match(key, value) for key, value in (match or {}).items()))


def _match(key: str, value: str) -> Match:
    bare = value.removeprefix("!")
    values = frozenset() if bare == "*" else frozenset(bare.split("|"))
    return Match(key, values, negated=bare != value)


def budget(budget_id: str, limit: str | int | None = None, /, **fields) -> Budget:
    """Make a budget: text limits are dollars, whole numbers count the unit."""
    window = fields.pop("window", "day")
    if isinstance(window, str):
        window = Window(WindowKind(window), fields.pop("zone", "UTC"))
    fields["selector"] = selector(fields.pop("match", None))
    fields["unit"] = Unit(fields.pop("unit", "nusd"))
    for name in ("reserve",):
        if name in fields:
            fields[name] = _amount(fields[name])
    if "steps" in fields:
        fields["steps"] = tuple(fields["steps"])
    return Budget(budget_id=budget_id, limit=_amount(limit), window=window, **fields)


def _amount(amount: str | int | None) -> int | None:
    return usd_to_nusd(amount) if isinstance(amount, str) else amount


def step(at: float | None = None, /, **fields) -> Step:
    """Make a step at so many percent, or `burn=1.5` times the pace that would last."""
    burn = fields.pop("burn", None)
    return Step(
        at_bp=None if at is None else round(at * 100),
        burn_bp=None if burn is None else round(burn * 10_000),
        **fields,
    )


def rate(rate_id: str, amount: int, unit: str = "requests", /, **fields) -> Rate:
    """Make a rate of so many units every `every_s` (60), `burst` (the amount) at once."""
    return Rate(
        rate_id=rate_id,
        selector=selector(fields.pop("match", None)),
        unit=RateUnit(unit),
        amount=amount,
        interval_ns=round(fields.pop("every_s", 60) * NS_PER_S),
        burst=fields.pop("burst", amount),
        **fields,
    )


def model_rule(rule_id: str, /, **fields) -> ModelRule:
    """Make a rule on models: `allow=(...)`, `forbid=(...)`."""
    return ModelRule(rule_id=rule_id, selector=selector(fields.pop("match", None)), **fields)


def klass(name: str, /, **fields) -> TaskClass:
    """Make a task class."""
    return TaskClass(name=name, **fields)


def price(models: str, nusd_per_token: int, /, **fields) -> PolicyPrice:
    """Price every token of a model alike."""
    units = (
        UnitPrice("input_tokens", nusd_per_token, 1),
        UnitPrice("output_tokens", nusd_per_token, 1),
    )
    return PolicyPrice(models=models, units=units, **fields)


PRICES = (
    price("acme/big", CENT_NUSD),
    price("globex/titan", CENT_NUSD * 4 // 5),
    price("acme/mid", CENT_NUSD // 10),
    price("acme/tiny", CENT_NUSD // 100),
    price("acme/gratis", 0),
    price("acme/narrow", CENT_NUSD // 20, context_window=1000),
)
TIERS = (
    Tier(name="premium", models=(ModelRef("acme", "big"), ModelRef("globex", "titan"))),
    Tier(name="standard", models=(ModelRef("acme", "mid"),)),
    Tier(name="economy", models=(ModelRef("acme", "tiny"),)),
)
CLASSES = (
    klass("draft"),
    klass("review", critical=True),
    klass("audit", critical=True, takes_steps=True, min_tier="standard"),
)


def policy(*rules: Budget | Rate | ModelRule, **fields) -> PolicySet:
    """Make a policy of these rules, with three tiers, three classes and small prices."""
    classes = fields.pop("classes", CLASSES)
    made = PolicySet(
        revision=fields.pop("revision", "p1"),
        tiers=fields.pop("tiers", TIERS),
        task_classes={each.name: each for each in classes},
        default_task_class="draft",
        default_tier=fields.pop("default_tier", "premium"),
        budgets=tuple(rule for rule in rules if isinstance(rule, Budget)),
        rates=tuple(rule for rule in rules if isinstance(rule, Rate)),
        model_rules=tuple(rule for rule in rules if isinstance(rule, ModelRule)),
        prices=(*fields.pop("prices", ()), *PRICES),
    )
    return msgspec.structs.replace(made, **fields)


def relative(*shares: str) -> tuple[Tier, ...]:
    """Tiers without models, with stated relative costs (`-` for none), best first."""
    names = ("premium", "standard", "economy")
    return tuple(
        Tier(name=name, relative_cost=None if share == "-" else Fraction(share))
        for name, share in zip(names, shares, strict=False)
    )
