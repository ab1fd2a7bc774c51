"""When a budget's window begins and ends."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from costd.model.policy import Window, WindowKind
from costd.model.time import NEVER_NS, NS_PER_S

_MONTHS = {WindowKind.MONTH: 1, WindowKind.QUARTER: 3, WindowKind.YEAR: 12}
_ENDLESS = frozenset({WindowKind.RUN, WindowKind.TOTAL})


def window_bounds(window: Window, wall_ns: int) -> tuple[int, int]:
    """Find the window that holds this moment.

    Shape:   pure; half-open `[start, end)` in wall ns.
    Ensures: windows of one definition neither overlap nor leave gaps, also where the clocks
             change: local midnight to local midnight is one day, of 23, 24 or 25 hours.
    Source:  docs/adr/0010-windows.md.
    """
    kind = window.kind
    if kind in _ENDLESS:
        return 0, NEVER_NS
    if kind is WindowKind.MINUTE:  # every zone in use is off by whole minutes
        start = wall_ns - wall_ns % (60 * NS_PER_S)
        return start, min(start + 60 * NS_PER_S, NEVER_NS)
    zone = _zone(window.time_zone)
    moment = datetime.fromtimestamp(wall_ns // NS_PER_S, tz=UTC)
    if kind is WindowKind.HOUR:
        return _hour(wall_ns // NS_PER_S, zone)
    local = moment.astimezone(zone)
    day = datetime(local.year, local.month, local.day)  # noqa: DTZ001 - zone is attached below
    if kind is WindowKind.DAY:
        first, following = day, day + timedelta(days=1)
    elif kind is WindowKind.WEEK:
        first = day - timedelta(days=(day.weekday() - window.week_starts) % 7)
        following = first + timedelta(days=7)
    else:
        months = _MONTHS[kind]
        first = day.replace(month=(day.month - 1) // months * months + 1, day=1)
        following = _months_later(first, months)
    return _instant(first, zone), min(_instant(following, zone), NEVER_NS)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _hour(second: int, zone: ZoneInfo) -> tuple[int, int]:
    """Find an hour of the local clock face; offsets may be half hours.

    Where the clocks jump by a part of an hour, the hours before and after are cut at the jump.
    """
    shift = _shift(second, zone)
    start = second - (second + shift) % 3600
    end = start + 3600
    if _shift(start, zone) != shift:
        start = _jump(start, second, zone)
    if _shift(end - 1, zone) != shift:
        end = _jump(second, end - 1, zone)
    return start * NS_PER_S, min(end * NS_PER_S, NEVER_NS)


def _shift(second: int, zone: ZoneInfo) -> int:
    """By how many seconds local hours begin before those of UTC."""
    offset = datetime.fromtimestamp(second, tz=zone).utcoffset() or timedelta()
    return int(offset.total_seconds()) % 3600


def _jump(before: int, after: int, zone: ZoneInfo) -> int:
    """Find the second in `(before, after]` at which the clocks jump."""
    old = _shift(before, zone)
    while after - before > 1:
        middle = (before + after) // 2
        if _shift(middle, zone) == old:
            before = middle
        else:
            after = middle
    return after


def _months_later(first: datetime, months: int) -> datetime:
    index = first.month - 1 + months
    return first.replace(year=first.year + index // 12, month=index % 12 + 1)


def _instant(local: datetime, zone: ZoneInfo) -> int:
    """Turn a local midnight into an instant; one that the clocks skip becomes the jump itself."""
    return int(local.replace(tzinfo=zone).timestamp()) * NS_PER_S
