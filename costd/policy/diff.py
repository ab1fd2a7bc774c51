"""What changes between two policies, and which counters start anew."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from costd.model.labels import Selector
from costd.model.money import format_nusd
from costd.model.policy import Budget, PolicySet, Step, Unit, Window, WindowKind
from costd.model.price import UnitPrice

IDENTITY_FIELDS = ("window", "unit", "per")
"""Together with the budget's id (or `was`) they name a counter; a change starts a new one."""


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
            detail = f"{_show(before)} → {_show(after)}"
            yield Change(kind="changed", section="settings", rule_id=name, details=(detail,))
    yield from _section("settings", {"allowance": old.allowance}, {"allowance": new.allowance})


def _details(old: Any, new: Any, skip: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Say field by field what differs between two rules of one kind."""
    details = []
    for name in old.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if name in skip or before == after:
            continue
        if isinstance(old, Budget) and name in {"limit", "reserve"} and old.unit is new.unit:
            details.append(f"{name}: {_amount(before, old.unit)} → {_amount(after, new.unit)}")
        else:
            details.append(f"{name}: {_show(before)} → {_show(after)}")
    return tuple(details)


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


def _amount(amount: int | None, unit: Unit) -> str:
    if amount is None:
        return "unlimited"
    return format_nusd(amount) if unit is Unit.NUSD else f"{amount:,} {unit}"


def _show(value: Any) -> str:
    if isinstance(value, Window):
        return _show_window(value)
    if isinstance(value, (bool, StrEnum, Selector)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, tuple):
        if any(isinstance(each, (Step, UnitPrice)) for each in value):
            return f"{len(value)} of them"
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None or value == "" else str(value)


def _show_window(window: Window) -> str:
    shown = str(window.kind)
    if window.kind not in {WindowKind.RUN, WindowKind.TOTAL}:
        shown += f" in {window.time_zone}"
    if window.kind is WindowKind.WEEK:
        shown += f" from weekday {window.week_starts}"
    return shown
