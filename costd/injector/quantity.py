"""Amounts the way Kubernetes writes them: 100m, 1.5, 256Mi, 1e3."""

import re
from decimal import Decimal
from typing import Final

_FORM: Final = re.compile(
    r"(?P<number>\d+\.?\d*|\.\d+)(?P<unit>[KMGTPE]i|[numkMGTPE]|[eE][+-]?\d{1,3})?", re.ASCII
)
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
LENGTH_MAX: Final = 32


def parse_quantity(text: str) -> Decimal:
    """Read an amount; never negative.

    Errors: ValueError.
    """
    found = _FORM.fullmatch(text) if len(text) <= LENGTH_MAX else None
    if found is None:
        raise ValueError(f"{text[:LENGTH_MAX]!r} is no amount, such as 250m or 256Mi")
    number: Decimal = Decimal(found["number"])
    unit: str = found["unit"] or ""
    if unit in _BINARY:
        return number * Decimal(2 ** _BINARY[unit])
    if unit in _DECIMAL:
        return number.scaleb(_DECIMAL[unit])
    return number.scaleb(int(unit[1:])) if unit else number


def is_same(one: object, other: object) -> bool:
    """Tell whether two amounts are equal however they are written."""
    try:
        return parse_quantity(str(one)) == parse_quantity(str(other))
    except ValueError:
        return one == other
