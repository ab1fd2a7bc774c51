"""Prices as integers, and the one ceiling that turns usage into money."""

from collections.abc import Mapping
from functools import cached_property, lru_cache
from math import lcm
from typing import NamedTuple

import msgspec

from costd.model.money import ceil_div

_TABLES_MAX = 1024
"""How many compiled tables are remembered; a stored price is decoded anew for every settle."""


class PriceTier(msgspec.Struct, frozen=True, array_like=True):
    """From more than `start_tokens` of input on, every unit costs this much."""

    start_tokens: int
    nusd_per: int


class UnitPrice(msgspec.Struct, frozen=True, array_like=True):
    """The price of one unit: `nusd_per` nano-USD for every `per` of them.

    `per` is a million for tokens; hours are 3,600 seconds, which no power of ten divides.
    `minus` names the priced units that are part of this one and priced apart (cached tokens are
    part of the input), so that nothing is charged twice. Parts of parts need not be repeated,
    and names that the price does not list are of no effect: what is not priced apart costs what
    the whole costs.
    `at_least` is the smallest amount billed once anything is used at all.
    """

    unit: str
    nusd_per: int
    per: int
    tiers: tuple[PriceTier, ...] = ()
    minus: tuple[str, ...] = ()
    at_least: int = 0

    def nusd_above(self, start_tokens: int) -> int:
        """Return what `per` units cost where the input is just above `start_tokens`."""
        reached = [tier for tier in self.tiers if tier.start_tokens <= start_tokens]
        return (
            max(reached, key=lambda tier: tier.start_tokens).nusd_per if reached else self.nusd_per
        )


class PriceSource(msgspec.Struct, frozen=True, array_like=True):
    """Where a price came from; travels with every cost."""

    source: str
    version: str
    provider: str
    model: str
    assumed: bool = False


class Price(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """What one model costs at one time, all units; content-addressed by `price_id`.

    `dict=True` only makes room to remember the compiled table; it is no part of the value.
    """

    price_id: str
    units: tuple[UnitPrice, ...]
    source: PriceSource
    context_window: int | None = None

    @cached_property
    def _table(self) -> "_Table":
        return _compile(self.units)

    def cost_nusd(self, counts: Mapping[str, int]) -> int:
        """Price the counts: one ceiling over the exact sum.

        Units:   `counts` by catalogue unit name, none negative. Tiers are chosen by
                 `input_tokens`; `requests` counts as 1 where it is not stated.
        Ensures: exact for any amount; past AMOUNT_MAX it is the caller's to refuse.
        Errors:  ValueError where parts exceed the whole (more cached than input tokens), or
                 where parts are stated and the whole is not.
        Source:  docs/adr/0004-prices-are-integers.md.
        """
        scale, marginal, bands, watched, _, _ = self._table
        if bands:
            input_tokens = counts.get("input_tokens", 0)
            for start_tokens, above in bands:
                if input_tokens > start_tokens:
                    marginal = above
        if not watched.isdisjoint(counts):
            counts = self._billed(counts)
        total = 0 if "requests" in counts else marginal.get("requests", 0)
        for unit, count in counts.items():
            if unit in marginal:
                total += marginal[unit] * count
        return ceil_div(total, scale)

    def linear(self) -> "Linear | None":
        """The price of prompt and output tokens alone; None where it is more than a sum.

        Ensures: (per_request + prompt × input + output × output) ÷ scale, rounded up, is
                 `cost_nusd` of these two counts.
        """
        table = self._table
        if table.at_least:
            return None
        bands = ((0, table.marginal), *table.bands)
        return Linear(
            scale=table.scale,
            per_request=table.marginal.get("requests", 0),
            bands=tuple(
                (above, marginal.get("input_tokens", 0), marginal.get("output_tokens", 0))
                for above, marginal in bands
            ),
        )

    def _billed(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Raise counts to what is billed at least, and check that parts fit into their wholes."""
        for unit, at_least, parts in self._table.at_least:
            used = counts.get(unit, 0) or max((counts.get(part, 0) for part in parts), default=0)
            counts = {**counts, unit: max(used, at_least) if used else 0}
        for unit, leaf in self._table.leaves:
            if sum(sign * counts.get(name, 0) for name, sign in leaf) < 0:
                stated = [f"{name} {counts[name]}" for name, _ in leaf[1:] if name in counts]
                raise ValueError(
                    f"{unit} is {counts.get(unit, 0)}, less than its parts: {', '.join(stated)}"
                )
        return counts


class Linear(NamedTuple):
    """A price as clients compute with it; `bands` are (above so many tokens, input, output)."""

    scale: int
    per_request: int
    bands: tuple[tuple[int, int, int], ...]


class _Table(NamedTuple):
    """Unit prices made ready to multiply.

    A unit's leaf is what remains of its count without its parts. A leaf is a sum of counts with
    signs, so the whole cost is one too: every count times its marginal price, which is what
    counting it under its own name adds to what the wholes around it cost already.
    """

    scale: int
    marginal: dict[str, int]
    """nano-USD per `scale` of each unit, below every tier."""
    bands: tuple[tuple[int, dict[str, int]], ...]
    """The same above each tier's start, ascending."""
    watched: frozenset[str]
    """Units whose counts must be looked at before they are priced."""
    leaves: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    at_least: tuple[tuple[str, int, frozenset[str]], ...]


@lru_cache(maxsize=_TABLES_MAX)
def _compile(units: tuple[UnitPrice, ...]) -> _Table:
    parts = _parts(units)
    leaves = _leaves(parts)
    scale = lcm(*(price.per for price in units))
    starts = sorted({tier.start_tokens for price in units for tier in price.tiers})
    below, *above = (_marginal(units, leaves, scale, start) for start in (-1, *starts))
    billed = tuple((p.unit, p.at_least, parts[p.unit]) for p in units if p.at_least)
    return _Table(
        scale=scale,
        marginal=below,
        bands=tuple(zip(starts, above, strict=True)),
        watched=frozenset().union(*parts.values(), *({unit} for unit, _, _ in billed)),
        leaves=tuple((unit, tuple(leaf.items())) for unit, leaf in leaves.items() if parts[unit]),
        at_least=billed,
    )


def _parts(units: tuple[UnitPrice, ...]) -> dict[str, frozenset[str]]:
    """Name the priced units inside each priced unit, at every depth.

    Errors:  ValueError where a unit would be a part of itself.
    """
    inside = {price.unit: price.minus for price in units}
    parts: dict[str, frozenset[str]] = {}
    for unit in inside:
        found: set[str] = set()
        waiting = [unit]
        while waiting:
            new = {part for part in inside[waiting.pop()] if part in inside} - found
            found |= new
            waiting.extend(new)
        if unit in found:
            raise ValueError(f"unit {unit} is a part of itself; look at what `minus` names")
        parts[unit] = frozenset(found)
    return parts


def _leaves(parts: dict[str, frozenset[str]]) -> dict[str, dict[str, int]]:
    """Write each unit's leaf as signed counts, the unit itself first."""
    leaves: dict[str, dict[str, int]] = {}
    for unit in sorted(parts, key=lambda unit: len(parts[unit])):
        leaf = {unit: 1}
        for part in sorted(parts[unit]):
            for name, sign in leaves[part].items():
                leaf[name] = leaf.get(name, 0) - sign
        leaves[unit] = {name: sign for name, sign in leaf.items() if sign}
    return leaves


def _marginal(
    units: tuple[UnitPrice, ...], leaves: dict[str, dict[str, int]], scale: int, start_tokens: int
) -> dict[str, int]:
    marginal: dict[str, int] = {}
    for price in units:
        nusd_per_scale = price.nusd_above(start_tokens) * (scale // price.per)
        for name, sign in leaves[price.unit].items():
            marginal[name] = marginal.get(name, 0) + sign * nusd_per_scale
    return marginal
