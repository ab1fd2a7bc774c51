"""When a budget's window begins and ends."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from costd.model.policy import Window, WindowKind
from costd.model.time import NEVER_NS, NS_PER_S

_MONTHS = {WindowKind.MONTH: 1, WindowKind.QUARTER: 3, WindowKind.YEAR: 12}
_ENDLESS = frozenset({WindowKind.RUN, WindowKind.TOTAL})
_LAST_DAY = datetime(9999, 1, 1, tzinfo=UTC)


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
        return start, start + 60 * NS_PER_S
    zone = _zone(window.time_zone)
    moment = datetime.fromtimestamp(wall_ns // NS_PER_S, tz=UTC)
    if moment >= _LAST_DAY:
        return int(_LAST_DAY.timestamp()) * NS_PER_S, NEVER_NS
    if kind is WindowKind.HOUR:
        return _hour(moment, zone)
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
    return _instant(first, zone), _instant(following, zone)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _hour(moment: datetime, zone: ZoneInfo) -> tuple[int, int]:
    """An hour of the local clock face, always an hour long: offsets may be half hours."""
    offset = moment.astimezone(zone).utcoffset() or timedelta()
    shift = int(offset.total_seconds()) % 3600
    seconds = int(moment.timestamp())
    start = seconds - (seconds + shift) % 3600
    return start * NS_PER_S, (start + 3600) * NS_PER_S


def _months_later(first: datetime, months: int) -> datetime:
    index = first.month - 1 + months
    return first.replace(year=first.year + index // 12, month=index % 12 + 1)


def _instant(local: datetime, zone: ZoneInfo) -> int:
    """Turn a local midnight into an instant; one that the clocks skip becomes the jump itself."""
    return int(local.replace(tzinfo=zone).timestamp()) * NS_PER_S
