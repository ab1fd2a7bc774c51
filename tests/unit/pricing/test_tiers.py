"""A lower tier that is dearer is warned about."""

from fractions import Fraction

from costd.model.policy import ModelRef, PolicyPrice, PolicySet, Tier
from costd.model.price import UnitPrice
from costd.pricing import PriceBook, tier_warnings

NOW_NS = 1_795_359_600 * 10**9


def price(name: str, prompt_nusd: int, output_nusd: int) -> PolicyPrice:
    units = (UnitPrice("input_tokens", prompt_nusd, 1), UnitPrice("output_tokens", output_nusd, 1))
    return PolicyPrice(models=name, units=units)


PRICES = (
    price("x/best", 10, 50),
    price("x/good", 5, 25),
    price("x/chatty", 1, 60),
    price("x/plain", 1, 5),
)


def tier(name: str, *models: str, relative_cost: Fraction | None = None) -> Tier:
    refs = tuple(ModelRef(*model.split("/")) for model in models)
    return Tier(name=name, models=refs, relative_cost=relative_cost)


def warnings(*tiers: Tier) -> list[str]:
    policy = PolicySet(revision="r1", tiers=tiers, prices=PRICES)
    return tier_warnings(policy, PriceBook(policy), NOW_NS)


def test_tiers_in_order_of_price_are_fine() -> None:
    assert warnings(tier("a", "x/best"), tier("b", "x/good"), tier("c", "x/plain")) == []
    assert warnings() == []


def test_a_dearer_lower_model_is_named_with_both_amounts() -> None:
    assert warnings(tier("a", "x/good", "x/best"), tier("b", "x/best")) == [
        (
            "tier b: x/best is dearer than a model of tier a above it: "
            "3,000 prompt and 1,000 output tokens cost $0.00008, $0.00004 at x/good; "
            "1,000 prompt and 3,000 output tokens cost $0.00016, $0.00008 at x/good"
        )
    ]


def test_a_model_that_is_dearer_at_one_mix_only_is_named_with_that_mix() -> None:
    (only,) = warnings(tier("a", "x/best"), tier("b", "x/chatty"))
    assert "3,000 output" in only
    assert "1,000 output" not in only


def test_only_neighbours_are_compared() -> None:
    assert warnings(tier("a", "x/plain"), tier("b"), tier("c", "x/best")) == []


def test_the_same_model_and_the_same_price_are_not_dearer() -> None:
    assert warnings(tier("a", "x/good"), tier("b", "x/good")) == []


def test_a_model_without_a_price_cannot_be_compared() -> None:
    assert warnings(tier("a", "x/best"), tier("b", "x/secret"), tier("c", "x/plain")) == [
        (
            "tier b: nobody knows the price of x/secret; state one under `prices`, or it cannot be "
            "compared with other tiers"
        )
    ]


def test_stated_relative_costs_must_fall_too() -> None:
    full, half = Fraction(1), Fraction(1, 2)
    assert warnings(tier("a", relative_cost=full), tier("b", relative_cost=half), tier("c")) == []
    assert warnings(tier("a", relative_cost=half), tier("b", relative_cost=full)) == [
        "tier b: relative_cost 1 is above the 1/2 of tier a above it"
    ]


def test_catalogue_prices_are_compared_too() -> None:
    policy = PolicySet(
        revision="r1",
        tiers=(tier("a", "openai/gpt-4o-mini"), tier("b", "anthropic/claude-haiku-4-5")),
    )
    assert len(tier_warnings(policy, PriceBook(policy), NOW_NS)) == 1
