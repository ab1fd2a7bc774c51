"""Split a cost by unit, for people; the cost itself is one ceiling over the sum of the lines."""

from collections.abc import Mapping
from fractions import Fraction

import msgspec

from costd.model.price import Price, UnitPrice


class UnitCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit adds to a cost; `count` leaves out parts that have lines of their own."""

    unit: str
    count: int
    cost_nusd: Fraction


def breakdown(price: Price, counts: Mapping[str, int]) -> list[UnitCost]:
    """Split the cost of these counts into one line for each unit that was used.

    Units:   `cost_nusd` exact fractions of a nano-USD.
    Ensures: the sum of the lines, rounded up once, is `price.cost_nusd(counts)`.
    """
    priced = {each.unit: each for each in price.units}
    billed = _billed(priced, counts)
    own = _own_counts(priced, billed)
    input_tokens = counts.get("input_tokens", 0)
    lines = []
    for unit, each in priced.items():
        if own[unit]:
            nusd_per = each.nusd_above(input_tokens - 1)
            cost = Fraction(nusd_per * own[unit], each.per)
            lines.append(UnitCost(unit=unit, count=own[unit], cost_nusd=cost))
    return lines


def _billed(priced: Mapping[str, UnitPrice], counts: Mapping[str, int]) -> dict[str, int]:
    """Complete the counts: a call is one request, and some units have a least amount."""
    billed = dict(counts)
    if "requests" in priced:
        billed.setdefault("requests", 1)
    for unit, each in priced.items():
        if each.at_least and any(billed.get(name, 0) for name in (unit, *_inside(priced, unit))):
            billed[unit] = max(billed.get(unit, 0), each.at_least)
    return billed


def _own_counts(priced: Mapping[str, UnitPrice], counts: Mapping[str, int]) -> dict[str, int]:
    """Take from each unit's count what its parts count for themselves."""
    own: dict[str, int] = {}
    for unit in sorted(priced, key=lambda unit: len(_inside(priced, unit))):
        own[unit] = counts.get(unit, 0) - sum(own[part] for part in _inside(priced, unit))
    return own


def _inside(priced: Mapping[str, UnitPrice], unit: str) -> frozenset[str]:
    """Name the priced units inside a unit, at every depth."""
    direct = [part for part in priced[unit].minus if part in priced]
    return frozenset(direct).union(*(_inside(priced, part) for part in direct))
