"""The catalogue's units: which are part of which, and their prices as integers."""

from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from math import gcd

import msgspec
from genai_prices.data_units import unit_data
from genai_prices.types import ModelPrice, TieredPrices
from genai_prices.units import UnitDef, UnitRegistry

from costd.model.money import NUSD_PER_USD
from costd.model.price import PriceTier, UnitPrice

REGISTRY = UnitRegistry(unit_data)

REQUESTS = "requests"


def parts_among(unit: str, units: Collection[str]) -> tuple[str, ...]:
    """Name those of `units` that are part of `unit`, at every depth, in a fixed order."""
    return tuple(
        part
        for part in sorted(units)
        if part in REGISTRY.units and unit in REGISTRY.ancestor_usage_keys(part)
    )


def compile_units(prices: ModelPrice) -> tuple[UnitPrice, ...]:
    """Turn the catalogue's decimal dollars into whole nano-USD.

    Units:   `per` is the catalogue's (a million tokens, a thousand calls, an hour in seconds),
             times the power of ten that makes every tier's price whole.
    """
    priced: list[tuple[UnitDef, Decimal, list[tuple[int, Decimal]]]] = []
    for unit in REGISTRY.units.values():
        value = getattr(prices, unit.price_key)
        if isinstance(value, TieredPrices):
            priced.append((unit, value.base, [(tier.start, tier.price) for tier in value.tiers]))
        elif value is not None:
            priced.append((unit, value, []))
    names = [unit.usage_key for unit, _, _ in priced]
    return tuple(
        _unit_price(unit, base, tiers, minus=parts_among(unit.usage_key, names))
        for unit, base, tiers in priced
    )


def with_parts(units: tuple[UnitPrice, ...]) -> tuple[UnitPrice, ...]:
    """Add what the catalogue knows about parts to the `minus` of prices stated elsewhere."""
    names = [price.unit for price in units]
    return tuple(
        msgspec.structs.replace(
            price, minus=tuple(sorted({*price.minus, *parts_among(price.unit, names)}))
        )
        for price in units
    )


def discounted(units: tuple[UnitPrice, ...], share: Fraction) -> tuple[UnitPrice, ...]:
    """Take a share off every price, exactly: where a price would not be whole, `per` grows."""
    return tuple(_scaled(price, 1 - share) for price in units)


def usage_problem(counts: Mapping[str, int]) -> str | None:
    """Say what keeps these counts from being priced in full, None if nothing does.

    Ensures: None means that no unit is one the catalogue never heard of, and that no part is
             stated without its wholes, which would leave it unpriced where only they are priced.
    """
    for unit, count in counts.items():
        if unit not in REGISTRY.units:
            name = unit[:80]
            return f"unit {name!r} is not in the catalogue; `costctl prices` shows the units it has"
        missing = sorted(REGISTRY.ancestor_usage_keys(unit) - counts.keys()) if count else []
        if missing:
            return f"{unit} is part of {missing[0]}; state {missing[0]} too, with {unit} in it"
    return None


def _unit_price(
    unit: UnitDef, base: Decimal, tiers: list[tuple[int, Decimal]], *, minus: tuple[str, ...]
) -> UnitPrice:
    scale = max(_whole_at(price) for price in (base, *(price for _, price in tiers)))
    return UnitPrice(
        unit=unit.usage_key,
        nusd_per=_nusd(base, scale),
        per=unit.per * scale,
        tiers=tuple(PriceTier(start, _nusd(price, scale)) for start, price in tiers),
        minus=minus,
    )


def _whole_at(usd: Decimal) -> int:
    """Find the smallest power of ten that makes this many dollars whole nano-USD."""
    scale = 1
    while (Fraction(usd) * NUSD_PER_USD * scale).denominator != 1:
        scale *= 10
    return scale


def _nusd(usd: Decimal, scale: int) -> int:
    return int(Fraction(usd) * NUSD_PER_USD * scale)


def _scaled(price: UnitPrice, factor: Fraction) -> UnitPrice:
    amounts = [price.nusd_per, *(tier.nusd_per for tier in price.tiers)]
    shared = gcd(factor.denominator, *(amount * factor.numerator for amount in amounts))
    base, *above = (amount * factor.numerator // shared for amount in amounts)
    return msgspec.structs.replace(
        price,
        nusd_per=base,
        per=price.per * (factor.denominator // shared),
        tiers=_tiers(price.tiers, above),
    )


def _tiers(tiers: tuple[PriceTier, ...], nusd_per: Iterable[int]) -> tuple[PriceTier, ...]:
    return tuple(
        PriceTier(tier.start_tokens, nusd) for tier, nusd in zip(tiers, nusd_per, strict=True)
    )
