"""Prices as integers, and the one ceiling that turns usage into money."""

from collections.abc import Mapping
from math import lcm

import msgspec

from costd.model.money import ceil_div


class PriceTier(msgspec.Struct, frozen=True, array_like=True):
    """From more than `start_tokens` of input on, every unit costs this much."""

    start_tokens: int
    nusd_per: int


class UnitPrice(msgspec.Struct, frozen=True, array_like=True):
    """The price of one unit: `nusd_per` nano-USD for every `per` of them.

    `per` is a million for tokens; hours are 3,600 seconds, which no power of ten divides.
    `minus` names the priced units that are part of this one and priced apart (cached tokens are
    part of the input), so that nothing is charged twice.
    """

    unit: str
    nusd_per: int
    per: int
    tiers: tuple[PriceTier, ...] = ()
    minus: tuple[str, ...] = ()


class PriceSource(msgspec.Struct, frozen=True, array_like=True):
    """Where a price came from; travels with every cost."""

    source: str
    version: str
    provider: str
    model: str
    assumed: bool = False


class Price(msgspec.Struct, frozen=True, array_like=True):
    """What one model costs at one time, all units; content-addressed by `price_id`."""

    price_id: str
    units: tuple[UnitPrice, ...]
    source: PriceSource
    context_window: int | None = None

    def cost_nusd(self, counts: Mapping[str, int]) -> int:
        """Price the counts: one ceiling over the exact sum.

        Units:   `counts` by catalogue unit name; tiers are chosen by `input_tokens`.
        Errors:  ValueError where a part exceeds the whole (more cached than input tokens).
        Source:  docs/adr/0004-prices-are-integers.md.
        """
        total, scale = 0, 1_000_000
        input_tokens = counts.get("input_tokens", 0)
        for price in self.units:
            count = counts.get(price.unit, 0)
            if price.minus:
                count -= sum(counts.get(part, 0) for part in price.minus)
                if count < 0:
                    raise ValueError(f"{price.unit} is less than its parts {', '.join(price.minus)}")
            if not count:
                continue
            nusd_per = price.nusd_per
            for tier in price.tiers:
                if input_tokens > tier.start_tokens:
                    nusd_per = tier.nusd_per
            if price.per != scale:
                common = lcm(scale, price.per)
                total *= common // scale
                scale = common
            total += nusd_per * count * (scale // price.per)
        return ceil_div(total, scale)
