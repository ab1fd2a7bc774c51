"""Put a policy in force: compiled, and its counters' names kept for good."""

import msgspec

from costd.engine.changes import Family
from costd.engine.rules import Rules
from costd.model.policy import PolicySet
from costd.pricing import PriceBook
from costd.store.port import Put, Store


def compiled(policy: PolicySet, wall_ns: int, *, in_fleet: bool = False) -> Rules:
    """Compile a policy, its models' prices looked up once, so that no ask is the first."""
    prices = PriceBook(policy)
    for tier in policy.tiers:
        for ref in tier.models:
            prices.find(ref.provider, ref.model, wall_ns=wall_ns)
    return Rules(policy, prices, in_fleet=in_fleet)


def unregistered(store: Store, rules: Rules) -> list[Put]:
    """Write what each counter tag stands for, also after its budget has left the policy.

    A budget that was renamed keeps its tag and is known by its new name.
    """
    puts: list[Put] = []
    for tag, rule in rules.budgets.items():
        meta_key, budget = b"budget/" + tag, rule.budget
        name = msgspec.json.encode(
            {
                "id": budget.budget_id,
                "unit": budget.unit,
                "window": budget.window.kind,
                "per": budget.per,
            }
        )
        if store.get(Family.META, meta_key) != name:
            puts.append((Family.META, meta_key, name))
    return puts
