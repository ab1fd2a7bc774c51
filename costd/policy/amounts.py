"""How people write money, counts, shares, times: text → exact integers and fractions.

Every reader takes what the file holds (text, or None for an empty value) and raises ValueError
with what is wrong and what to write instead. No floats anywhere.
"""

import re
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, NamedTuple

from costd.model.money import AMOUNT_MAX, usd_to_nusd
from costd.model.policy import RateUnit, Unit
from costd.model.time import NS_PER_S
from costd.policy.problems import show

SCALAR_LENGTH_MAX = 300
"""No amount, name or label is longer; keeps every pattern below fast."""
NUMBER_LENGTH_MAX = 28
"""Longer numbers say nothing a 64-bit amount can hold; decimal arithmetic is exact up to here."""
BP_PER_ONE = 10_000
DURATION_NS_MAX = 3_660 * 86_400 * NS_PER_S
"""Ten years: longer is a typing error."""

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_MONEY = re.compile(rf"\$\s?({_NUMBER})", re.ASCII)
_COUNT = re.compile(rf"({_NUMBER})([kMG]?)", re.ASCII)
_PERCENT = re.compile(rf"({_NUMBER})\s?%", re.ASCII)
_RATIO = re.compile(r"(\d+)\s?/\s?(\d+)", re.ASCII)
_AMOUNT = re.compile(rf"({_NUMBER}[kMG]?)\s+([a-z ]+)", re.ASCII)
_DURATION = re.compile(r"(?:\d+(?:ms|s|m|h|d|w))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+)(ms|s|m|h|d|w)", re.ASCII)
_RATE = re.compile(r"(.+?)\s*(?:/|\bper\b)\s*(?:(\d{1,6})\s+)?([a-z]+)", re.ASCII)

_SCALE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_NS = {
    "ms": NS_PER_S // 1000,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3_600 * NS_PER_S,
    "d": 86_400 * NS_PER_S,
    "w": 604_800 * NS_PER_S,
}
_INTERVAL_NS = {"second": _NS["s"], "minute": _NS["m"], "hour": _NS["h"], "day": _NS["d"]}
_LIMIT_UNITS = {"tokens": Unit.TOKENS, "calls": Unit.CALLS}
_RATE_UNITS = {
    "requests": RateUnit.REQUESTS,
    "prompt tokens": RateUnit.PROMPT_TOKENS,
    "output tokens": RateUnit.OUTPUT_TOKENS,
    "tokens": RateUnit.TOKENS,
}


class Reserve(NamedTuple):
    """A protected part of a limit: a share of it, or an amount in a unit."""

    share_bp: int | None = None
    amount: int = 0
    unit: Unit = Unit.NUSD


def as_text(value: Any, hint: str) -> str:
    """Return the text of a scalar; a mapping, list or empty value is refused with the hint."""
    if value is None:
        raise ValueError(f"has no value; {hint}, or leave the line out")
    if not isinstance(value, str):
        # pydantic turns ValueErrors into findings, and only those.
        raise ValueError(f"is {show(value)}; {hint}")  # noqa: TRY004
    if len(value) > SCALAR_LENGTH_MAX:
        raise ValueError(f"has {len(value)} characters; {hint}")
    return value.strip()


def read_nusd(value: Any) -> int:
    """Read money: `$500`, `$1,250.50`, `$0.000000001`. Units: whole nano-USD."""
    text = as_text(value, "write money like $500 or $0.25")
    matched = _MONEY.fullmatch(text)
    if matched is None:
        raise ValueError(f"{_number_problem(text)}; write money like $500 or $0.25")
    if len(matched[1]) > NUMBER_LENGTH_MAX:
        raise ValueError(f"{show(text)} has too many digits; write money like $500 or $0.25")
    return usd_to_nusd(matched[1])


def read_count(value: Any) -> int:
    """Read a whole number: `512`, `1,000`, `2M`, `1.5k`."""
    text = as_text(value, "write a whole number like 512, 10k or 2M")
    matched = _COUNT.fullmatch(text)
    if matched is None:
        raise ValueError(f"{_number_problem(text)}; write a whole number like 512, 10k or 2M")
    amount = _exact(matched[1]) * _SCALE[matched[2]]
    if amount.denominator != 1 or amount > AMOUNT_MAX:
        raise ValueError(f"{show(text)} is not a whole number up to {AMOUNT_MAX}; round it")
    return int(amount)


def read_positive(value: Any) -> int:
    """Read a whole number that is at least 1."""
    count = read_count(value)
    if count == 0:
        raise ValueError("is 0; it must be at least 1")
    return count


def read_limit(value: Any) -> tuple[int | None, Unit]:
    """Read a budget's limit: `$500`, `2M tokens`, `1000 calls`, `unlimited`, `unlimited tokens`.

    Units:   the amount in the unit returned with it; None only tracks.
    """
    hint = "write $500, 2M tokens, 1000 calls or unlimited"
    text = as_text(value, hint)
    if text == "unlimited":
        return None, Unit.NUSD
    if text.startswith("unlimited "):
        unit = _LIMIT_UNITS.get(text.removeprefix("unlimited ").strip())
        if unit is None:
            raise ValueError(f"{show(text)} names no unit of budgets; {hint}")
        return None, unit
    if text.startswith("$"):
        return read_nusd(text), Unit.NUSD
    amount, name = _amount_of(text, hint)
    if name not in _LIMIT_UNITS:
        raise ValueError(f"budgets do not count {show(name)}; {hint}")
    return amount, _LIMIT_UNITS[name]


def read_reserve(value: Any) -> Reserve:
    """Read what only critical classes may draw: `20%` of the limit, `$50`, `100k tokens`."""
    text = as_text(value, "write 20%, $50 or 100k tokens")
    if text.endswith("%"):
        share_bp = read_percent_bp(text)
        if share_bp >= BP_PER_ONE:
            raise ValueError(f"{show(text)} leaves nothing to other classes; keep under 100%")
        return Reserve(share_bp=share_bp)
    amount, unit = read_limit(text)
    if amount is None:
        raise ValueError("cannot be unlimited; write 20%, $50 or 100k tokens")
    return Reserve(amount=amount, unit=unit)


def read_rate_amount(value: Any) -> tuple[int, RateUnit | None]:
    """Read what a bucket holds: `20`, `20 requests`, `100k prompt tokens`, `$2`.

    Ensures: the unit is None where only a number was written.
    """
    hint = "write 20, 20 requests, 100k prompt tokens, 10k output tokens, 200k tokens or $2"
    text = as_text(value, hint)
    if text.startswith("$"):
        return _at_least_one(read_nusd(text)), RateUnit.NUSD
    if _COUNT.fullmatch(text):
        return read_positive(text), None
    amount, name = _amount_of(text, hint)
    if name not in _RATE_UNITS:
        raise ValueError(f"rates do not count {show(name)}; {hint}")
    return _at_least_one(amount), _RATE_UNITS[name]


def read_rate(value: Any) -> tuple[int, RateUnit, int]:
    """Read a rate: `60 requests / minute`, `$5 per hour`, `100k prompt tokens / 10 seconds`.

    Units:   amount in its unit, the unit, and nanoseconds in which that much refills.
    """
    hint = "write it like 60 requests / minute, 100k prompt tokens / minute or $5 / hour"
    text = as_text(value, hint)
    matched = _RATE.fullmatch(text)
    if matched is None:
        raise ValueError(f"{show(text)} is not a rate; {hint}")
    interval_ns = _INTERVAL_NS.get(matched[3].removesuffix("s"))
    times = int(matched[2] or 1)
    if interval_ns is None or times == 0:
        raise ValueError(f"{show(text)}: per what time? use second, minute, hour or day; {hint}")
    amount, unit = read_rate_amount(matched[1])
    if unit is None:
        raise ValueError(f"{show(text)} does not say of what; {hint}")
    return amount, unit, times * interval_ns


def read_percent_bp(value: Any) -> int:
    """Read a share: `80%`, `12.5%`. Units: basis points; finer than 0.01 % is refused."""
    text = as_text(value, "write a percentage like 80%")
    matched = _PERCENT.fullmatch(text)
    if matched is None:
        raise ValueError(f"{_number_problem(text)}; write a percentage like 80%")
    share_bp = _exact(matched[1]) * 100
    if share_bp.denominator != 1:
        raise ValueError(f"{show(text)} is finer than 0.01%; round it to two decimals")
    return int(share_bp)


def read_burn_bp(value: Any) -> int:
    """Read a burn rate: `1.5` is half as fast again as would last. Units: basis points."""
    text = as_text(value, "write a factor like 1.5")
    if re.fullmatch(_NUMBER, text, re.ASCII) is None:
        raise ValueError(f"{_number_problem(text)}; write a factor like 1.5")
    burn_bp = _exact(text) * BP_PER_ONE
    if burn_bp.denominator != 1 or not BP_PER_ONE <= burn_bp <= 1000 * BP_PER_ONE:
        raise ValueError(f"{show(text)} must lie in 1 … 1000 with at most 4 decimals; change it")
    return int(burn_bp)


def read_fraction(value: Any) -> Fraction:
    """Read an exact fraction: `1/5`, `0.2`, `20%`."""
    text = as_text(value, "write a fraction like 1/5, 0.2 or 20%")
    ratio = _RATIO.fullmatch(text)
    if ratio and len(text) <= NUMBER_LENGTH_MAX and int(ratio[2]):
        return Fraction(int(ratio[1]), int(ratio[2]))
    if _PERCENT.fullmatch(text):
        return Fraction(read_percent_bp(text), BP_PER_ONE)
    if re.fullmatch(_NUMBER, text, re.ASCII):
        return _exact(text)
    raise ValueError(f"{_number_problem(text)}; write a fraction like 1/5, 0.2 or 20%")


def read_duration_ns(value: Any) -> int:
    """Read a length of time: `90s`, `10m`, `1h30m`, `7d`. Units: nanoseconds, at least 1 ms."""
    text = as_text(value, "write a duration like 90s, 10m, 24h or 7d")
    if len(text) > NUMBER_LENGTH_MAX or _DURATION.fullmatch(text) is None:
        raise ValueError(f"{show(text)} is not a duration; write it like 90s, 10m, 24h or 7d")
    duration_ns = sum(int(count) * _NS[unit] for count, unit in _DURATION_PART.findall(text))
    if not 0 < duration_ns <= DURATION_NS_MAX:
        raise ValueError(f"{show(text)} must be more than nothing and at most 10 years; change it")
    return duration_ns


def read_time_ns(value: Any) -> int:
    """Read a moment: `2026-03-01` (midnight UTC) or `2026-03-01T10:00:00Z`. Units: Unix ns."""
    hint = "write 2026-03-01 or 2026-03-01T10:00:00Z"
    text = as_text(value, hint)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{show(text)} is not a date or time; {hint}") from error
    if moment.tzinfo is None:
        if "T" in text or " " in text or ":" in text:
            raise ValueError(f"{show(text)} does not say its time zone; end it with Z")
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    moment_ns = (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1000
    if not 0 <= moment_ns <= AMOUNT_MAX:
        raise ValueError(f"{show(text)} is outside 1970 … 2262; {hint}")
    return moment_ns


def read_bool(value: Any) -> bool:
    """Read `true` or `false`, and nothing else."""
    text = as_text(value, "write true or false")
    if text not in {"true", "false"}:
        raise ValueError(f"{show(text)} is neither true nor false; write one of them")
    return text == "true"


def _amount_of(text: str, hint: str) -> tuple[int, str]:
    matched = _AMOUNT.fullmatch(text)
    if matched is None:
        problem = _number_problem(text)
        if _COUNT.fullmatch(text):
            problem = f"{show(text)} does not say of what"
        raise ValueError(f"{problem}; {hint}")
    return read_count(matched[1]), " ".join(matched[2].split())


def _at_least_one(amount: int) -> int:
    if amount == 0:
        raise ValueError("is 0; a rate must let something through (use a model rule to forbid)")
    return amount


def _exact(number: str) -> Fraction:
    if len(number) > NUMBER_LENGTH_MAX:
        raise ValueError(f"{show(number)} has too many digits; shorten it")
    return Fraction(number.replace(",", ""))


def _number_problem(text: str) -> str:
    bare = text.replace("$", "").replace(" ", "").lower()
    if bare.startswith("-"):
        return f"{show(text)} is negative"
    if bare.strip("+-.").startswith(("nan", "inf")):
        return f"{show(text)} is not a finite number"
    return f"{show(text)} cannot be read"
