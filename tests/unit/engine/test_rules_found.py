from policy_parts import budget, model_rule, policy, rate

from costd.engine import rules as engine_rules
from costd.engine.rules import Rules, model_matches
from costd.model.policy import ModelRef, Tier


class NoPrices:
    def find(self, provider, model, *, wall_ns, batch=False):
        return None


def names(rules: Rules, **facts: str) -> list[str]:
    return [rule.budget.budget_id for rule in rules.matching(facts).budgets]


def test_rules_are_found_in_the_order_of_the_policy():
    rules = Rules(
        policy(
            budget("b3", match={"user": "ann"}),
            budget("b1"),
            budget("b2", match={"team": "a|b", "user": "!bob"}),
            budget("off", active=False),
            rate("r", 1),
            model_rule("m", match={"team": "*"}),
        ),
        NoPrices(),
    )
    assert names(rules, user="ann", team="b") == ["b3", "b1", "b2"]
    assert names(rules, user="bob", team="b") == ["b1"]
    assert names(rules) == ["b1"]
    assert len(rules.matching({"team": "x"}).model_rules) == 1
    assert rules.matching({}).model_rules == ()


def test_what_was_found_is_remembered_but_not_without_bounds(monkeypatch):
    monkeypatch.setattr(engine_rules, "_MEMO_MAX", 2)
    rules = Rules(policy(budget("b", match={"user": "u1|u2"})), NoPrices())
    first = rules.matching({"user": "u1"})
    assert rules.matching({"user": "u1", "other": "x"}) is first
    for n in range(5):
        assert bool(names(rules, user=f"u{n}")) is (n in {1, 2})
    assert rules.matching({"user": "u1"}) == first


def test_policies_that_read_many_labels_find_the_same_rules():
    many = [budget(f"b{n}", match={f"key{n}": "x"}) for n in range(20)]
    rules = Rules(policy(*many), NoPrices())
    assert names(rules, key3="x", key17="x", other="x") == ["b3", "b17"]
    assert names(rules, key3="y") == []
    assert names(rules, other="x") == []


def test_a_model_is_found_in_its_tier_with_or_without_its_provider():
    tiers = (
        Tier(name="premium", models=(ModelRef("acme", "big"),)),
        Tier(name="economy", models=(ModelRef("", "tiny"), ModelRef("acme", "big"))),
    )
    rules = Rules(policy(tiers=tiers), NoPrices())
    assert rules.tier_of("acme", "big") == 0
    assert rules.tier_of("", "big") == 0
    assert rules.tier_of("globex", "big") is None
    assert rules.tier_of("globex", "tiny") == 1
    assert rules.tier_of("", "tiny") == 1
    assert rules.provider_of("big") == "acme"
    assert rules.provider_of("tiny") == ""
    assert rules.provider_of("nobody") == ""


def test_patterns_name_a_model_or_a_provider_and_a_model():
    assert model_matches(("acme/*",), "acme", "big")
    assert model_matches(("x", "b*g"), "acme", "big")
    assert not model_matches(("acme/b",), "acme", "big")
    assert not model_matches((), "acme", "big")
