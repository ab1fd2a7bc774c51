"""Money: whole nano-USD, and how people write it."""

from decimal import Context, Decimal, InvalidOperation

NUSD_PER_USD = 1_000_000_000
AMOUNT_MAX = 2**63 - 1
"""The largest amount of anything: what a signed 64-bit field of the wire and of SQL can hold."""
HOLD_MAX_NUSD = 1_000_000 * NUSD_PER_USD
"""The most that one call may hold: far beyond any call, and so little that no single one fills a
counter, under which nobody else could ask before it expires."""

_DIGITS_MAX = 30


def usd_to_nusd(text: str | int | Decimal) -> int:
    """Read dollars as people write them: `1.25`, `$1,250.00`, `0.000000001`.

    Units:   returns whole nano-USD; more than nine decimals is an error, not a rounding.
    Errors:  ValueError for text, NaN, infinities, negatives and amounts past AMOUNT_MAX.
    """
    cleaned = text.strip().removeprefix("$").replace(",", "") if isinstance(text, str) else text
    try:
        amount = Decimal(cleaned)
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is not an amount in dollars") from error
    if not amount.is_finite():
        raise ValueError(f"{text!r} is not a finite amount in dollars")
    if amount.adjusted() > _DIGITS_MAX:
        raise ValueError(_outside(str(text)[:40]))
    # Exact however many digits were written: the default context would round at 28.
    scaled = Context(prec=len(amount.as_tuple().digits) + _DIGITS_MAX).scaleb(amount, 9)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{text!r} has more than nine decimals; the smallest amount is 1e-9 $")
    nusd = int(scaled)
    if not 0 <= nusd <= AMOUNT_MAX:
        raise ValueError(_outside(text))
    return nusd


def _outside(text: object) -> str:
    return f"{text!r} is outside {format_nusd(0)} … {format_nusd(AMOUNT_MAX)}"


def format_nusd(nusd: int) -> str:
    """Write nano-USD as dollars with at least two decimals and no rounding: `$0.000000001`."""
    sign = "-" if nusd < 0 else ""
    whole, rest = divmod(abs(nusd), NUSD_PER_USD)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole:,}.{decimals}"


def ceil_div(numerator: int, denominator: int) -> int:
    """Divide and round up; what things cost is rounded this way."""
    return -(-numerator // denominator)
