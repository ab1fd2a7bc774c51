"""A figure: what was measured round by round, and what that says of its target."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

ROUNDS_MIN: Final = 9
NS_PER_US: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the report, from one sample a round.

    `target` is the most it may be, or the least where `more_is_better`; None where the figure is
    only told. `skipped` says why there are no samples.
    """

    key: str
    what: str
    unit: str
    samples: tuple[float, ...] = ()
    target: float | None = None
    more_is_better: bool = False
    decimals: int = 2
    skipped: str = ""

    def __post_init__(self) -> None:
        if bool(self.samples) == bool(self.skipped):
            raise ValueError(f"{self.key} has samples, or a word on why it was skipped")

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median, third quartile."""
        if len(self.samples) == 1:
            return (self.samples[0],) * 3
        low, middle, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return low, middle, high

    @property
    def verdict(self) -> str:
        """Say met or missed only where the quartiles lie on one side of the target."""
        if self.skipped:
            return "skipped"
        if self.target is None:
            return "told"
        low, _, high = self.quartiles
        if self.more_is_better:
            if low >= self.target:
                return "met"
            return "missed" if high < self.target else "inconclusive"
        if high <= self.target:
            return "met"
        return "missed" if low > self.target else "inconclusive"

    def as_json(self) -> dict[str, Any]:
        """Write it the way build/bench.json holds it."""
        report: dict[str, Any] = {
            "what": self.what,
            "unit": self.unit,
            "rounds": len(self.samples),
            "target": self.target,
            "more_is_better": self.more_is_better,
            "decimals": self.decimals,
            "verdict": self.verdict,
        }
        if self.skipped:
            return report | {"skipped": self.skipped}
        low, middle, high = self.quartiles
        return report | {
            "q1": round(low, 4),
            "median": round(middle, 4),
            "q3": round(high, 4),
            "samples": [round(sample, 4) for sample in self.samples],
        }


def p50_us(durations_ns: Sequence[int]) -> float:
    """Find the median of durations, in µs."""
    return statistics.median(durations_ns) / NS_PER_US


def p99(samples: Sequence[float]) -> float:
    """Find the 99th percentile; of fewer than a hundred samples, the largest."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


def p99_us(durations_ns: Sequence[int]) -> float:
    """Find the 99th percentile of durations, in µs."""
    return p99(durations_ns) / NS_PER_US


def mean_us(durations_ns: Sequence[int]) -> float:
    """Average durations, in µs; what is rare and slow counts fully."""
    return statistics.fmean(durations_ns) / NS_PER_US


def ratios(dividends: Iterable[float], divisors: Iterable[float]) -> tuple[float, ...]:
    """Divide round by round, so that what slows a whole round cancels."""
    return tuple(a / b for a, b in zip(dividends, divisors, strict=True))


def timed(call: Callable[[Any], Any], arguments: Iterable[Any]) -> list[int]:
    """Time each call by itself, in ns; nothing but the call lies between the two readings."""
    read, durations = time.perf_counter_ns, []
    for argument in arguments:
        started_ns = read()
        call(argument)
        durations.append(read() - started_ns)
    return durations
