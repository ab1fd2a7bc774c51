"""Times and lengths of time as people read and write them."""

from datetime import UTC, datetime

from costd.clock import SystemClock
from costd.model.time import NEVER_NS, NS_PER_S
from costd.policy.amounts import read_duration_ns, read_time_ns

_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_PARTS_SHOWN = 2


def wall_ns() -> int:
    """Read the wall clock; decisions never do, this is for people's `--since 10m`."""
    return SystemClock().now().wall_ns


def moment(at_ns: int, *, utc: bool) -> str:
    """Write a wall-clock time to the second, in the local zone or in UTC; empty for none."""
    if at_ns <= 0:
        return ""
    if at_ns >= NEVER_NS:
        return "never"
    at = datetime.fromtimestamp(at_ns // NS_PER_S, tz=UTC)
    if utc:
        return at.strftime("%Y-%m-%d %H:%M:%SZ")
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(length_ns: int) -> str:
    """Write a length of time by its two largest units: `3d 4h`, `812ms`."""
    if 0 < length_ns < NS_PER_S:
        return f"{-(-length_ns // 1_000_000)}ms"
    rest_s, parts = max(length_ns, 0) // NS_PER_S, []
    for unit, size_s in _UNITS:
        count, rest_s = divmod(rest_s, size_s)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:_PARTS_SHOWN]) or "0s"


def milliseconds(length_ns: int) -> str:
    """Write a short length of time to a tenth of a millisecond: `1,204.3 ms`."""
    return f"{length_ns / 1_000_000:,.1f} ms"


def moment_and_distance(at_ns: int, now_ns: int, *, utc: bool) -> str:
    """Write a time and how far it is: `2026-03-01 10:00:00 (in 10m)`; empty for none."""
    if at_ns <= 0 or at_ns >= NEVER_NS:
        return moment(at_ns, utc=utc)
    distance = span(abs(at_ns - now_ns))
    relative = f"in {distance}" if at_ns >= now_ns else f"{distance} ago"
    return f"{moment(at_ns, utc=utc)} ({relative})"


def read_moment_ns(text: str) -> int:
    """Read `10m` (that long ago), `2026-03-01` or `2026-03-01T10:00:00Z`."""
    try:
        return max(0, wall_ns() - read_duration_ns(text))
    except ValueError:
        pass
    try:
        return read_time_ns(text)
    except ValueError as error:
        raise ValueError(f"{error}; or how long ago, like 10m") from error
