"""The fleet's policy, and the keys of its counters."""

from typing import Final

from costd.clock import SystemClock
from costd.engine.rules import Rules
from costd.policy import parse_policy
from costd.pricing import PriceBook

HOT: Final = "all-month"
SPREAD: Final = "user-month"
POLICY: Final = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes:
  draft: {max_output_tokens: 1000}
default_task_class: draft
default_tier: premium
budgets:
  - {id: all-month, window: month, limit: "$9,000,000"}
  - {id: user-month, per: user, window: month, limit: "$1,000,000"}
"""
"""Two budgets of the whole fleet: one counter, and one for each user."""


def counter_keys(budget_id: str, keys_count: int = 1) -> list[bytes]:
    """Name the counters of a budget in the window that is in force."""
    policy = parse_policy(POLICY, "bench policy")
    rules = Rules(policy, PriceBook(policy), in_fleet=True)
    rule = next(each for each in rules.budgets.values() if each.budget.budget_id == budget_id)
    wall_ns = SystemClock().now().wall_ns
    return [rule.counter_key({"user": f"u{index:05d}"}, wall_ns) for index in range(keys_count)]
