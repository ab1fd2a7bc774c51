"""Whole nano-USD out of decimal dollars, and which unit is part of which."""

from decimal import Decimal

import pytest
from genai_prices.types import ModelPrice, Tier, TieredPrices

from costd.model.price import PriceTier, UnitPrice
from costd.pricing.units import compile_units, usage_problem


@pytest.mark.parametrize(
    ("usd", "nusd_per", "per"),
    [
        ("3", 3_000_000_000, 10**6),
        ("0", 0, 10**6),
        ("0.000000001", 1, 10**6),
        ("0.003625", 3_625_000, 10**6),
        ("0.0833333333333333", 833_333_333_333_333, 10**13),
        ("1E+1", 10_000_000_000, 10**6),
    ],
)
def test_per_grows_until_the_price_is_whole(usd, nusd_per, per) -> None:
    assert compile_units(ModelPrice(input_mtok=Decimal(usd))) == (
        UnitPrice("input_tokens", nusd_per, per),
    )


def test_all_tiers_of_a_unit_share_one_per() -> None:
    tiered = TieredPrices(base=Decimal(1), tiers=[Tier(start=9, price=Decimal("0.00000000015"))])
    assert compile_units(ModelPrice(output_mtok=tiered)) == (
        UnitPrice("output_tokens", 10**11, 10**8, (PriceTier(9, 15),)),
    )


def test_units_keep_the_catalogues_measure() -> None:
    prices = ModelPrice(
        audio_hours=Decimal("0.36"), requests_kcount=Decimal(5), input_gpixels=Decimal(1)
    )
    assert [(price.unit, price.nusd_per, price.per) for price in compile_units(prices)] == [
        ("audio_seconds", 360_000_000, 3_600),
        ("input_pixels", 10**9, 10**9),
        ("requests", 5 * 10**9, 1_000),
    ]


def test_only_priced_parts_are_taken_off_at_every_depth() -> None:
    one = Decimal(1)
    prices = ModelPrice(
        input_mtok=one,
        cache_write_mtok=one,
        cache_write_1h_mtok=one,
        output_mtok=one,
        cache_read_mtok=None,
    )
    assert {price.unit: price.minus for price in compile_units(prices)} == {
        "input_tokens": ("cache_write_1h_tokens", "cache_write_tokens"),
        "cache_write_tokens": ("cache_write_1h_tokens",),
        "cache_write_1h_tokens": (),
        "output_tokens": (),
    }


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({}, None),
        ({"requests": 2, "web_searches": 1}, None),
        ({"input_tokens": 5, "cache_read_tokens": 3}, None),
        ({"cache_read_tokens": 0}, None),
        (
            {"cache_read_tokens": 3},
            "cache_read_tokens is part of input_tokens; state input_tokens too",
        ),
        ({"input_audio_seconds": 3}, "input_audio_seconds is part of audio_seconds"),
        ({"gold_bars": 1}, "unit 'gold_bars' is not in the catalogue"),
    ],
)
def test_what_cannot_be_priced_in_full_is_named(counts, problem) -> None:
    said = usage_problem(counts)
    assert said == problem if problem is None else problem in said
