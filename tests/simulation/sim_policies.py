"""The policies of the simulation: one shape, many limits, and rules that come and go."""

from collections import Counter, defaultdict

import msgspec

from costd.engine import keys
from costd.engine.changes import Family
from costd.model.money import NUSD_PER_USD

CALL_NUSD = 3_500_000
"""What a call of 1,000 prompt and 100 output tokens holds at gpt-4o."""

PRICES = {"gpt-4o": (2_500, 10_000), "gpt-4o-mini": (150, 600)}
"""Nano-USD per prompt and per output token, written down by hand: an independent price list."""

LIMITS_CALLS = (150, 400, 1_000)
CALLS_PER_USER = 500
VARIANTS = ("plain", "small", "steps", "rates", "labels", "halt")

_ALLOWANCE = {"small": "{share: 5%, for: 2s}"}
_STEPS = {
    "steps": "[{at: 40%, do: [alert]}, {at: 60%, do: [tier_down, {max_output_tokens: 80}]}]",
    "halt": "[{at: 80%, do: [halt]}]",
}
_MORE = {
    "labels": "  - {id: web, match: {feature: web}, window: total, limit: $5}\n",
}
_RATES = {
    "rates": (
        "rates:\n"
        "  - {id: flow, per: user, limit: 200 requests per second}\n"
        "  - {id: words, per: user, limit: '500,000 tokens per minute'}\n"
    ),
}


def policy(limit_calls, variant, late_settle):
    """Write one."""
    limit = limit_calls * CALL_NUSD / NUSD_PER_USD
    steps = _STEPS.get(variant)
    return (
        "version: 1\n"
        "tiers:\n"
        "  premium: {models: [openai/gpt-4o]}\n"
        "  economy: {models: [openai/gpt-4o-mini]}\n"
        "task_classes:\n"
        "  draft: {max_output_tokens: 200}\n"
        "default_task_class: draft\n"
        "default_tier: premium\n"
        "budgets:\n"
        f"  - {{id: all, window: total, limit: ${limit}{f', steps: {steps}' if steps else ''}}}\n"
        "  - {id: user, per: user, window: total}\n"
        f"  - {{id: calls, per: user, window: total, limit: {CALLS_PER_USER} calls}}\n"
        "  - {id: day, per: team, window: day, limit: '2,000,000 tokens'}\n"
        f"{_MORE.get(variant, '')}"
        f"{_RATES.get(variant, '')}"
        f"expiry: {{ttl: 60s, late_settle: {late_settle}}}\n"
        f"allowance: {_ALLOWANCE.get(variant, '{share: 20%, for: 5s}')}\n"
    )


def price(model, prompt, output):
    """What so many tokens cost, by the list above."""
    of_prompt, of_output = PRICES[model]
    return prompt * of_prompt + output * of_output


COLUMNS = ("settled", "reserved", "overrun", "late", "unadmitted", "lowered")


def booked(disk, budget_id):
    """What the books say of a budget by per key, summed over its windows, column by column."""
    tags = {
        key.removeprefix(b"budget/")
        for key, raw in disk.scan(Family.META, b"budget/", b"budget0")
        if msgspec.json.decode(raw)["id"] == budget_id
    }
    sums = defaultdict(Counter)
    for key, counter in disk.scan(Family.COUNTERS):
        _, tag, per = keys.split_counter_key(key)
        if tag in tags:
            sums[per].update({name: getattr(counter, name) for name in COLUMNS})
    return sums
