"""What changes between two policies, and which counters start anew."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from costd.model.labels import Selector
from costd.model.money import format_nusd
from costd.model.policy import Budget, PolicySet, Rate, RateUnit, Step, Unit, Window, WindowKind
from costd.model.price import UnitPrice
from costd.model.time import NEVER_NS, NS_PER_MS, NS_PER_S

IDENTITY_FIELDS = ("window", "unit", "per")
"""Together with the budget's id (or `was`) they name a counter; a change starts a new one."""
AMOUNTS: dict[type, tuple[str, ...]] = {Budget: ("limit", "reserve"), Rate: ("amount", "burst")}
"""Fields that are amounts in the rule's unit."""
DURATIONS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


class CounterFate(StrEnum):
    """What happens to a budget's counters when the new policy takes over."""

    NONE = "none"
    """Not a budget."""
    KEPT = "kept"
    """Counting goes on where it stands."""
    NEW = "new"
    """Counting starts at zero; open reservations close on the old counters."""
    LEFT = "left"
    """The budget is gone; its counters are found again if it comes back before they end."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between two policies.

    `kind` is added, removed, changed or renamed; `section` is a section of the policy file;
    `details` are sentences such as `limit: $500.00 → $400.00`.
    """

    kind: str
    section: str
    rule_id: str
    details: tuple[str, ...] = ()
    counters: CounterFate = CounterFate.NONE

    def __str__(self) -> str:
        """Write it on one line."""
        line = f"{self.kind} {self.section}.{self.rule_id}"
        if self.details:
            line += f" ({'; '.join(self.details)})"
        return line if self.counters is CounterFate.NONE else f"{line}: counters {self.counters}"


def diff(old: PolicySet, new: PolicySet) -> list[Change]:
    """List what is added, removed, changed and renamed, budgets first.

    Ensures: empty for two policies that say the same; the revision is not compared.
    """
    return [
        *_budgets(old, new),
        *_section("rates", _by(old.rates, "rate_id"), _by(new.rates, "rate_id")),
        *_section("model_rules", _by(old.model_rules, "rule_id"), _by(new.model_rules, "rule_id")),
        *_section("tiers", _by(old.tiers, "name"), _by(new.tiers, "name")),
        *_order(old, new),
        *_section("task_classes", old.task_classes, new.task_classes),
        *_section("prices", _in_order(old.prices), _in_order(new.prices)),
        *_section("discounts", _in_order(old.discounts), _in_order(new.discounts)),
        *_section("grant_keys", _by(old.grant_keys, "key_id"), _by(new.grant_keys, "key_id")),
        *_section("envoy", _by(old.envoy, "rule_id"), _by(new.envoy, "rule_id")),
        *_settings(old, new),
    ]


def _budgets(old: PolicySet, new: PolicySet) -> Iterator[Change]:
    before = _by(old.budgets, "budget_id")
    taken = set()
    for budget in new.budgets:
        previous = before.get(budget.budget_id) or before.get(budget.was)
        if previous is None:
            yield _change("added", "budgets", budget.budget_id, counters=CounterFate.NEW)
            continue
        taken.add(previous.budget_id)
        renamed = previous.budget_id != budget.budget_id
        details = _details(previous, budget, skip=("budget_id", "was"))
        if not renamed and not details:
            continue
        same = all(getattr(previous, name) == getattr(budget, name) for name in IDENTITY_FIELDS)
        if renamed:
            details = (f"was {previous.budget_id}", *details)
        yield Change(
            kind="renamed" if renamed else "changed",
            section="budgets",
            rule_id=budget.budget_id,
            details=details,
            counters=CounterFate.KEPT if same else CounterFate.NEW,
        )
    for budget_id in before:
        if budget_id not in taken:
            yield _change("removed", "budgets", budget_id, counters=CounterFate.LEFT)


def _section(section: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for rule_id, rule in new.items():
        if rule_id not in old:
            yield _change("added", section, rule_id)
        elif details := _details(old[rule_id], rule):
            yield Change(kind="changed", section=section, rule_id=rule_id, details=details)
    for rule_id in old:
        if rule_id not in new:
            yield _change("removed", section, rule_id)


def _order(old: PolicySet, new: PolicySet) -> Iterator[Change]:
    """Tell when tiers that stay changed places: their order is their rank."""
    before = [tier.name for tier in old.tiers]
    after = [tier.name for tier in new.tiers]
    if sorted(before) == sorted(after) and before != after:
        detail = f"{', '.join(before)} → {', '.join(after)}"
        yield Change(kind="changed", section="tiers", rule_id="order", details=(detail,))


def _settings(old: PolicySet, new: PolicySet) -> Iterator[Change]:
    for name in (
        "default_task_class",
        "default_tier",
        "unmatched_allow",
        "unknown_price_assume",
        "ttl_ns",
        "ttl_ns_max",
        "late_settle_ns",
        "shadow",
    ):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            detail = f"{_field(name, before)} → {_field(name, after)}"
            yield Change(kind="changed", section="settings", rule_id=name, details=(detail,))
    yield from _section("settings", {"allowance": old.allowance}, {"allowance": new.allowance})
    yield from _section("settings", {"fleet": old.fleet}, {"fleet": new.fleet})


def _details(old: Any, new: Any, skip: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Say field by field what differs between two rules of one kind."""
    details = []
    for name in old.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if name in skip or before == after:
            continue
        if name in AMOUNTS.get(type(old), ()) and old.unit is new.unit:
            details.append(f"{name}: {_amount(before, old.unit)} → {_amount(after, new.unit)}")
            continue
        if name in {"steps", "units"}:
            # Only what differs: a ladder of eight rungs need not be read twice to find one.
            before, after = _without(before, after), _without(after, before)
        details.append(f"{name}: {_field(name, before)} → {_field(name, after)}")
    return tuple(details)


def _without(these: tuple[Any, ...], those: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each for each in these if each not in those)


def _by(rules: tuple[Any, ...], field: str) -> dict[str, Any]:
    return {getattr(rule, field): rule for rule in rules}


def _in_order(rules: tuple[Any, ...]) -> dict[str, Any]:
    """Name rules without an id by their pattern and, where it repeats, their number."""
    named: dict[str, Any] = {}
    for rule in rules:
        name, number = rule.models, 1
        while name in named:
            number += 1
            name = f"{rule.models}#{number}"
        named[name] = rule
    return named


def _change(
    kind: str, section: str, rule_id: str, *, counters: CounterFate = CounterFate.NONE
) -> Change:
    return Change(kind=kind, section=section, rule_id=rule_id, counters=counters)


def _amount(amount: int | None, unit: Unit | RateUnit) -> str:
    if amount is None:
        return "unlimited"
    return format_nusd(amount) if unit == Unit.NUSD else f"{amount:,} {unit}"


def _field(name: str, value: Any) -> str:
    if name in {"from_ns", "until_ns"}:
        return _show_moment(value)
    return _show_duration(value) if "_ns" in name else _show(value)


def _show(value: Any) -> str:
    if isinstance(value, Window):
        return _show_window(value)
    if isinstance(value, (bool, StrEnum, Selector)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, tuple):
        if any(isinstance(each, (Step, UnitPrice)) for each in value):
            return ", ".join(map(_show, value))
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Step):
        return _show_step(value)
    if isinstance(value, UnitPrice):
        tiers = f" and {len(value.tiers)} tiers" if value.tiers else ""
        return f"{value.unit} {format_nusd(value.nusd_per)} per {value.per:,}{tiers}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {each}" for key, each in value.items()) or "none"
    return "none" if value is None or value == "" else str(value)


def _show_window(window: Window) -> str:
    shown = str(window.kind)
    if window.kind not in {WindowKind.RUN, WindowKind.TOTAL}:
        shown += f" in {window.time_zone}"
    if window.kind is WindowKind.WEEK:
        shown += f" from weekday {window.week_starts}"
    return shown


def _show_step(step: Step) -> str:
    """Write a step by what it does: `80% [tiers_down 1, cache]`."""
    reached = step.at_bp if step.burn_bp is None else step.burn_bp
    assert reached is not None
    whole, rest = divmod(reached, 100)
    at = f"{whole}.{rest:02d}".rstrip("0").rstrip(".")
    does = []
    for name in Step.__struct_fields__[2:]:
        value = getattr(step, name)
        if name == "alert":
            does += [] if value else ["quiet"]
        elif value is True:
            does.append(name)
        elif value is not None and value is not False and (value or name != "tiers_down"):
            does.append(f"{name} {value}")
    return f"{'burn ' * (step.burn_bp is not None)}{at}% [{', '.join(does) or 'alert'}]"


def _show_duration(length_ns: int) -> str:
    """Write a length of time exactly, as a policy would: `1h30m`, `1s500ms`."""
    written, rest_ms = "", length_ns // NS_PER_MS
    for unit, size_ms in DURATIONS:
        count, rest_ms = divmod(rest_ms, size_ms)
        written += f"{count}{unit}" * bool(count)
    return written or "0s"


def _show_moment(at_ns: int) -> str:
    if at_ns <= 0 or at_ns >= NEVER_NS:
        return "always"
    return datetime.fromtimestamp(at_ns // NS_PER_S, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
