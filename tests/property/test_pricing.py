"""Our integers against the catalogue's own decimals, over every model it has."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from random import Random

import genai_prices
import pytest
from genai_prices.types import ModelInfo, Provider
from hypothesis import given
from hypothesis import strategies as st

from costd.model.policy import Discount, PolicySet
from costd.pricing import PriceBook
from costd.pricing.catalogue import edges_near, find_model, providers
from costd.pricing.units import REGISTRY

NOW_NS = 1_795_359_600 * 10**9  # 2026-11-22
MODELS = [(provider, model) for provider in providers() for model in provider.models]
UNITS = [unit for unit in REGISTRY.units if unit != "requests"]


def catalogue_nusd(
    provider: str, model: str, counts: Mapping[str, int], wall_ns: int, *, batch: bool
) -> int | None:
    """Price with the catalogue's own code, None where it finds nothing."""
    # Its divisions by 3,600 must not round before we round up.
    with localcontext(prec=200):
        try:
            calculation = genai_prices.calc_price(
                genai_prices.Usage(**counts),
                model,
                provider_id=provider or None,
                genai_request_timestamp=datetime(1970, 1, 1, tzinfo=UTC)
                + timedelta(microseconds=wall_ns // 1000),
                price_context={"processing": "batch"} if batch else None,
            )
        except LookupError:
            return None
        return math.ceil(calculation.total_price * Decimal(10**9))


def consistent(leaves: Mapping[str, int]) -> dict[str, int]:
    """Report every unit there is, each whole with all of its parts in it."""
    counts = dict.fromkeys(UNITS, 0)
    for unit, count in leaves.items():
        for name in (unit, *REGISTRY.ancestor_usage_keys(unit)):
            counts[name] += count
    return counts


def some_usage(random: Random) -> dict[str, int]:
    size_max = random.choice((5, 2_000, 300_000, 10**12))
    chosen = [*random.sample(UNITS, random.randint(1, 12)), "input_tokens", "output_tokens"]
    return consistent({unit: random.randint(0, size_max) for unit in chosen})


def is_unknown_to_us_only(
    model: ModelInfo, counts: Mapping[str, int], expected: int | None
) -> bool:
    """The catalogue lists some models without any price; costd does not take them for free."""
    return expected == 0 and any(counts.values()) and not model.id.endswith(":free")


def walls_of(model: ModelInfo) -> list[int]:
    edges = sorted(set(edges_near(model, NOW_NS)))
    return [NOW_NS, *(wall for edge in edges for wall in (edge - 1, edge))][:9]


@pytest.mark.parametrize("provider", providers(), ids=lambda provider: provider.id)
def test_every_model_costs_what_the_catalogue_computes(provider: Provider) -> None:
    random, book = Random(provider.id), PriceBook()
    for model in provider.models:
        for wall_ns in walls_of(model):
            for batch in (False, True):
                counts = some_usage(random)
                expected = catalogue_nusd(provider.id, model.id, counts, wall_ns, batch=batch)
                price = book.find(provider.id, model.id, wall_ns=wall_ns, batch=batch)
                if price is None:
                    assert expected is None or is_unknown_to_us_only(model, counts, expected)
                else:
                    assert price.cost_nusd(counts) == expected, (model.id, wall_ns, batch, counts)


def test_every_tier_begins_just_above_its_start() -> None:
    book, seen = PriceBook(), 0
    for provider, model in MODELS:
        price = book.find(provider.id, model.id, wall_ns=NOW_NS)
        units = price.units if price else ()
        for start in {tier.start_tokens for unit in units for tier in unit.tiers}:
            for input_tokens in (start - 1, start, start + 1):
                counts = consistent({"input_tokens": input_tokens, "output_tokens": 7})
                expected = catalogue_nusd(provider.id, model.id, counts, NOW_NS, batch=False)
                assert price.cost_nusd(counts) == expected
                seen += 1
    assert seen > 300


@given(
    found=st.sampled_from(MODELS),
    wall_ns=st.integers(1_640_995_200, 1_861_919_999).map(lambda second: second * 10**9),
    batch=st.booleans(),
    leaves=st.dictionaries(
        st.sampled_from(UNITS), st.integers(0, 2**63) | st.sampled_from((199_999, 200_000, 272_000))
    ),
)
def test_any_model_costs_the_same_at_any_time(found, wall_ns, batch, leaves) -> None:
    provider, model = found
    counts = consistent(leaves)
    expected = catalogue_nusd(provider.id, model.id, counts, wall_ns, batch=batch)
    price = PriceBook().find(provider.id, model.id, wall_ns=wall_ns, batch=batch)
    if price is None:
        assert not expected
    else:
        assert price.cost_nusd(counts) == expected


@given(
    name=st.sampled_from(MODELS).map(lambda found: found[1].id)
    | st.text(max_size=40)
    | st.builds(
        "{}/{}".format, st.sampled_from(["openai", "anthropic", "x"]), st.text(max_size=20)
    ),
    provider=st.sampled_from(
        ["", "azure", "bedrock", "vertex", "litellm", "OpenAI", "no-such", "google"]
    ),
)
def test_names_lead_to_the_model_the_catalogue_finds(name, provider) -> None:
    found = find_model(provider, name)
    theirs = catalogue_model(provider, name)
    if found is None:
        assert theirs is None
    elif theirs is not None:
        assert (found.provider.id, found.model.id) == theirs
    else:
        # The one thing added: a provider written in front of the name.
        assert provider == ""
        assert "/" in name


def catalogue_model(provider: str, model: str) -> tuple[str, str] | None:
    try:
        calculation = genai_prices.calc_price(
            genai_prices.Usage(), model, provider_id=provider or None
        )
    except LookupError:
        return None
    return calculation.provider.id, calculation.model.id


@given(
    found=st.sampled_from(MODELS),
    share=st.fractions(0, 1, max_denominator=1000),
    seed=st.integers(0, 2**32),
)
def test_a_discount_is_taken_exactly_before_the_one_rounding(found, share, seed) -> None:
    provider, model = found
    counts = some_usage(Random(seed))
    offer = Discount(models="*", share=share)
    policy = PolicySet(revision="r1", discounts=(offer,))
    plain = PriceBook().find(provider.id, model.id, wall_ns=NOW_NS)
    less = PriceBook(policy).find(provider.id, model.id, wall_ns=NOW_NS)
    if plain is None or less is None:
        assert plain is less
        return
    # So much usage that one nano-dollar of rounding proves twelve digits of the price.
    many = {unit: count * 10**12 for unit, count in ({"requests": 1} | counts).items()}
    exact = Fraction(plain.cost_nusd(many)) * (1 - share)
    assert abs(less.cost_nusd(many) - exact) <= 1
