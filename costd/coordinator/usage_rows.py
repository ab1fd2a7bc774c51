"""Usage events ↔ rows of their day, and their sums by hour."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

from costd.coordinator.columns import clean, json_text
from costd.coordinator.store import DIMENSIONS, LABELS, MEASURES
from costd.model.time import NS_PER_S
from costd.wire.pb import admission_pb2, control_pb2

HOUR_NS: Final = 3_600 * NS_PER_S
DAY_NS: Final = 24 * HOUR_NS
DAYS_BEFORE_MAX: Final = 400
"""Older events are filed under the oldest of these days: a clock that was never set must not make
a partition of its own for every day since 1970."""
DAYS_AHEAD_MAX: Final = 2
EPOCH_DAY: Final = date(1970, 1, 1)
TAG_BYTES: Final = 16
SUM_MAX: Final = 2**62 - 1
"""Of an hour; two of these still add up to what a column holds."""
TOKENS: Final = (
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)

Event = tuple[str, control_pb2.UsageEvent]
"""With the daemon it came from."""


def filed_ns(settled_ns: int, now_ns: int) -> int:
    """Tell under which moment an event is filed: when it was settled, where that can be true."""
    earliest_ns = now_ns - DAYS_BEFORE_MAX * DAY_NS
    return min(max(settled_ns, earliest_ns), now_ns + DAYS_AHEAD_MAX * DAY_NS)


def day_of(at_ns: int) -> date:
    """Name the day of a moment, UTC."""
    return EPOCH_DAY + timedelta(days=at_ns // DAY_NS)


def day_ns(day: date) -> int:
    """Tell when a day begins."""
    return (day - EPOCH_DAY).days * DAY_NS


def today(now_ns: int) -> date:
    """Name the day it is, UTC."""
    return datetime.fromtimestamp(now_ns / NS_PER_S, UTC).date()


def event_row(daemon_id: str, event: control_pb2.UsageEvent, now_ns: int) -> tuple[Any, ...]:
    """Write an event as `copy_events` wants it."""
    usage = event.usage if event.HasField("usage") else None
    settled_ns = event.settled_ns
    row = (
        day_of(filed_ns(settled_ns, now_ns)),
        daemon_id,
        event.sequence,
        event.reservation_id,
        event.ask_id,
        event.task_class,
        json_text(dict(event.labels)),
        event.tier,
        event.provider,
        event.model,
        event.cost_kind,
        *_tokens(usage),
        json_text(dict(usage.units)) if usage is not None else None,
        event.cost_nusd,
        event.hold_nusd,
        event.admitted_ns,
        settled_ns,
        event.duration_ns,
        event.outcome,
        event.retry_count,
        event.reason,
        json_text(_price(event.price)) if event.HasField("price") else None,
        event.closed_as,
        event.calls_count,
        event.verdict,
    )
    # One look at the whole is cheaper than one at each; where a number looks like it, no harm.
    if b"\0" in event.SerializeToString():
        return tuple(clean(value) if isinstance(value, str) else value for value in row)
    return row


def event_from_row(row: Sequence[Any]) -> Event:
    """Read an event from the columns of `list_events`."""
    named = dict(zip(_EVENT_COLUMNS, row, strict=True))
    daemon_id = named.pop("daemon_id")
    units, price = named.pop("units"), named.pop("price")
    tokens = {name: named.pop(name) for name in TOKENS}
    event = control_pb2.UsageEvent(**named)
    if units is not None:
        known = {name: count for name, count in tokens.items() if count is not None}
        event.usage.CopyFrom(admission_pb2.Usage(units=units, **known))
    if price is not None:
        event.price.CopyFrom(admission_pb2.PriceSource(**price))
    return daemon_id, event


def hourly_rows(events: Iterable[Event], now_ns: int) -> list[dict[str, Any]]:
    """Sum events by hour and dimensions, in the order of the rows' keys.

    Ensures: two batches that touch the same rows touch them in the same order.
    """
    sums: dict[tuple[Any, ...], list[int]] = {}
    for daemon_id, event in events:
        labels = event.labels
        key = (
            filed_ns(event.settled_ns, now_ns) // HOUR_NS * HOUR_NS,
            daemon_id,
            # `get` of a map in protobuf neither adds the key nor fails.
            *[clean(labels.get(name, "")) for name in LABELS],
            clean(event.task_class),
            clean(event.provider),
            clean(event.model),
            clean(event.tier),
            clean(event.cost_kind),
            event.verdict,
            event.outcome,
            clean(event.closed_as),
        )
        measured = _measures(event)
        known = sums.get(key)
        sums[key] = (
            measured if known is None else [a + b for a, b in zip(known, measured, strict=True)]
        )
    names = ("hour_ns", *DIMENSIONS)
    rows = [
        {
            "tag": _tag(key),
            **dict(zip(names, key, strict=True)),
            **dict(zip(MEASURES, map(_bounded, measured), strict=True)),
        }
        for key, measured in sums.items()
    ]
    rows.sort(key=lambda row: (row["hour_ns"], row["tag"]))
    return rows


def _measures(event: control_pb2.UsageEvent) -> list[int]:
    usage = event.usage
    return [
        event.calls_count,
        event.cost_nusd,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        event.retry_count,
    ]


def _tag(key: tuple[Any, ...]) -> bytes:
    """Identify a row within its hour."""
    return blake2b("\0".join(map(str, key[1:])).encode(), digest_size=TAG_BYTES).digest()


def _tokens(usage: admission_pb2.Usage | None) -> tuple[int | None, ...]:
    if usage is None:
        return (None,) * len(TOKENS)
    return tuple(getattr(usage, name) if usage.HasField(name) else None for name in TOKENS)


def _bounded(amount: int) -> int:
    """Keep a batch's sum within what a column holds; no true figure comes near it."""
    return max(-SUM_MAX, min(SUM_MAX, amount))


def _price(price: admission_pb2.PriceSource) -> dict[str, Any]:
    return {field.name: value for field, value in price.ListFields()}


_EVENT_COLUMNS: Final = (
    "daemon_id",
    "sequence",
    "reservation_id",
    "ask_id",
    "task_class",
    "labels",
    "tier",
    "provider",
    "model",
    "cost_kind",
    *TOKENS,
    "units",
    "cost_nusd",
    "hold_nusd",
    "admitted_ns",
    "settled_ns",
    "duration_ns",
    "outcome",
    "retry_count",
    "reason",
    "price",
    "closed_as",
    "calls_count",
    "verdict",
)
