"""What changes from one policy to the next, and which counters start anew."""

import pytest

from costd.policy import CounterFate, diff, parse_policy

BASE = "{id: b, window: month, per: user, limit: $500, reserve: 10%}"


def policy(text):
    return parse_policy("version: 1\n" + text, "p.yaml")


def changes(old, new):
    return diff(policy(f"budgets: [{old}]"), policy(f"budgets: [{new}]"))


def test_the_same_policy_in_other_words_is_no_change():
    old = policy("budgets: [{id: b, window: month}]")
    new = policy("budgets:\n  - id: b   # the same\n    window: {kind: month, time_zone: UTC}\n")
    assert old.revision != new.revision
    assert diff(old, new) == []


@pytest.mark.parametrize(
    ("new", "detail"),
    [
        (
            "{id: b, window: month, per: user, limit: $400, reserve: 10%}",
            "limit: $500.00 → $400.00",
        ),
        ("{id: b, window: month, per: user, limit: $500, reserve: $1}", "reserve: $50.00 → $1.00"),
        (
            BASE.replace("id: b", "id: b, match: {project: api}"),
            "selector: everything → project=api",
        ),
        (BASE.replace("id: b", "id: b, active: false"), "active: true → false"),
        (
            BASE.replace("id: b", "id: b, steps: [{at: 5%, do: [deny]}]"),
            "steps: none → 5% [deny]",
        ),
    ],
)
def test_limit_reserve_selector_and_steps_keep_the_counters(new, detail):
    (change,) = changes(BASE, new)
    assert (change.kind, change.rule_id, change.counters) == ("changed", "b", CounterFate.KEPT)
    assert detail in change.details


@pytest.mark.parametrize(
    ("new", "detail"),
    [
        (BASE.replace("month", "day"), "window: month in UTC → day in UTC"),
        (
            BASE.replace("month", "{kind: month, time_zone: Asia/Tokyo}"),
            "window: month in UTC → month in Asia/Tokyo",
        ),
        (BASE.replace("month", "total"), "window: month in UTC → total"),
        (BASE.replace("month", "week"), "window: month in UTC → week in UTC from weekday 0"),
        (BASE.replace("$500", "500 calls"), "unit: nusd → calls"),
        (BASE.replace("per: user", "per: [user, model]"), "per: user → user, model"),
    ],
)
def test_window_unit_and_per_start_new_counters(new, detail):
    (change,) = changes(BASE, new)
    assert change.counters is CounterFate.NEW
    assert detail in change.details


def test_a_rename_keeps_the_counters():
    (change,) = changes(BASE, BASE.replace("id: b", "id: c, was: b"))
    assert (change.kind, change.rule_id, change.counters) == ("renamed", "c", CounterFate.KEPT)
    assert change.details == ("was b",)


def test_a_rename_to_another_window_starts_new_counters():
    renamed = BASE.replace("id: b", "id: c, was: b").replace("month", "day")
    (change,) = changes(BASE, renamed)
    assert (change.kind, change.counters) == ("renamed", CounterFate.NEW)


def test_dropping_was_after_the_rename_is_no_change():
    renamed = BASE.replace("id: b", "id: c, was: b")
    assert changes(renamed, BASE.replace("id: b", "id: c")) == []


def test_an_id_changed_without_was_is_one_budget_less_and_another_more():
    found = changes(BASE, BASE.replace("id: b", "id: c"))
    assert [(each.kind, each.rule_id, each.counters) for each in found] == [
        ("added", "c", CounterFate.NEW),
        ("removed", "b", CounterFate.LEFT),
    ]


def test_an_unlimited_budget_is_shown_as_such():
    (change,) = changes(
        "{id: b, window: day, limit: 5 calls}", "{id: b, window: day, limit: unlimited calls}"
    )
    assert change.details == ("limit: 5 calls → unlimited",)


def test_every_section_is_compared():
    old = policy(
        "tiers: {a: {models: [x/y]}, b: {}}\ntask_classes: {c: {}, d: {}}\n"
        "rates: [{id: r, limit: 5 requests / hour}]\n"
        "model_rules: [{id: m, allow: ['x/*']}]\n"
        "prices: [{models: x/*, input: $1}, {models: x/*, input: $2, batch: true}]\n"
        "discounts: [{models: x/*, off: 5%}]\n"
        f"grant_keys: [{{id: k, public_key: {'A' * 43}}}]\n"
    )
    new = policy(
        "tiers: {b: {}, a: {models: [x/z]}}\ntask_classes: {c: {critical: true}}\n"
        "rates: [{id: r, limit: 6 requests / hour}, {id: s, limit: 1 requests / day}]\n"
        "prices: [{models: x/*, input: $1}, {models: x/*, input: $3, batch: true}]\n"
        f"grant_keys: [{{id: k, public_key: {'A' * 43}, admin: true}}]\n"
        "unmatched: allow\nunknown_price: {assume: x/z}\n"
    )
    shown = {str(change) for change in diff(old, new)}
    assert shown == {
        "changed rates.r (amount: 5 requests → 6 requests; burst: 5 requests → 6 requests)",
        "added rates.s",
        "removed model_rules.m",
        "changed tiers.a (models: x/y → x/z)",
        "changed tiers.order (a, b → b, a)",
        "changed task_classes.c (critical: false → true)",
        "removed task_classes.d",
        (
            "changed prices.x/*#2 (units: input_tokens $2.00 per 1,000,000 → "
            "input_tokens $3.00 per 1,000,000)"
        ),
        "removed discounts.x/*",
        "changed grant_keys.k (admin: false → true)",
        "changed settings.unmatched_allow (false → true)",
        "changed settings.unknown_price_assume (none → x/z)",
    }


def test_a_budgets_change_is_written_with_the_fate_of_its_counters():
    (change,) = changes(BASE, BASE.replace("$500", "$501"))
    assert str(change) == (
        "changed budgets.b (limit: $500.00 → $501.00; reserve: $50.00 → $50.10): counters kept"
    )


def test_only_the_steps_that_differ_are_shown():
    ladder = "{at: 50%, do: [alert]}, {at: 80%, do: [tier_down, {max_retries: 0}]}"
    old = f"{{id: b, window: day, limit: $5, steps: [{ladder}]}}"
    new = old.replace("at: 80%", "at: 85.5%").replace("tier_down", "quiet, tier_down, cache")
    (change,) = changes(old, new)
    (detail,) = change.details
    assert detail == (
        "steps: 80% [max_retries 0, tiers_down 1] → "
        "85.5% [max_retries 0, cache, tiers_down 1, quiet]"
    )
    burning = old.replace("[{at: 50%", "[{burn_rate: 1.5, do: [economy]}, {at: 50%")
    (change,) = changes(old, burning)
    assert change.details == ("steps: none → burn 150% [economy]",)


def test_times_and_money_are_written_as_in_a_policy():
    old = policy(
        "rates: [{id: r, limit: $20 / minute}]\n"
        "discounts: [{models: x/*, off: 5%}]\n"
        "expiry: {ttl: 2m, ttl_max: 1h, late_settle: 7d}\n"
    )
    new = policy(
        "rates: [{id: r, limit: $1.50 / hour}]\n"
        "discounts: [{models: x/*, off: 5%, until: 2026-03-01}]\n"
        "expiry: {ttl: 1500ms, ttl_max: 1h30m, late_settle: 7d}\n"
    )
    assert {str(change) for change in diff(old, new)} == {
        "changed rates.r (amount: $20.00 → $1.50; interval_ns: 1m → 1h; burst: $20.00 → $1.50)",
        "changed discounts.x/* (until_ns: always → 2026-03-01T00:00:00Z)",
        "changed settings.ttl_ns (2m → 1s500ms)",
        "changed settings.ttl_ns_max (1h → 1h30m)",
    }
