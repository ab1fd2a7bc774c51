"""The catalogue of the `genai-prices` package, compiled per model on first use.

Nothing here keeps what callers send: the package's own look-up functions remember every model
name they were ever asked for, so they are passed by and its matching rules are used directly.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from importlib.metadata import version
from typing import NamedTuple

import msgspec
from genai_prices.data import providers as _providers
from genai_prices.data_snapshot import find_provider_by_id
from genai_prices.types import (
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    TimeOfDateConstraint,
)

from costd.model.price import UnitPrice
from costd.pricing.units import compile_units

CATALOGUE_VERSION = f"genai-prices {version('genai-prices')}"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BATCH = {"processing": "batch"}
_PREFIXED = frozenset({"", "litellm"})
"""Providers that stand for "see the model's name": none, and a proxy that writes it in front."""

_LEAST_BILLED = {
    ("groq", "whisper-large-v3"): {"audio_seconds": 10},
    ("groq", "whisper-large-v3-turbo"): {"audio_seconds": 10},
}
"""Groq bills ten seconds for any shorter piece of audio; the catalogue has this in code only."""


class Found(NamedTuple):
    """A model of the catalogue, under the provider it was asked of."""

    provider: Provider
    model: ModelInfo
    is_own: bool
    """False where the provider resells another's model at the other's price."""


def providers() -> list[Provider]:
    """List the catalogue's providers, in the order in which they claim model names."""
    return _providers


def find_model(provider: str, model: str) -> Found | None:
    """Find a model as a provider's API spells it, None if the catalogue does not know it.

    An empty provider is found from a prefix of the model's name (`openai/gpt-4o`) or, as the
    catalogue has it, from the name itself. A provider that the catalogue does not know has none
    of its models.
    """
    if provider.lower() not in _PREFIXED:
        owner = find_provider_by_id(_providers, provider)
        return _of(owner, model) if owner else None
    prefix, slash, rest = model.partition("/")
    owner = find_provider_by_id(_providers, prefix) if slash else None
    if owner and (found := _of(owner, rest)):
        return found
    owner = next(
        (p for p in _providers if p.model_match and p.model_match.is_match(model.lower())), None
    )
    return _of(owner, model) if owner else None


def units_at(found: Found, wall_ns: int, *, batch: bool) -> tuple[UnitPrice, ...] | None:
    """Compile the model's prices in force at that time.

    Ensures: None where the catalogue lists no price at all, unless the provider calls the model
             free by its name: what has no price is unknown, and unknown is never free.
    """
    is_batch = batch and found.is_own
    prices = found.model.get_prices(_utc(wall_ns), _BATCH if is_batch else None)
    units = compile_units(prices)
    if not units:
        return () if found.model.id.endswith(":free") else None
    least = _LEAST_BILLED.get((found.provider.id, found.model.id), {})
    return tuple(
        msgspec.structs.replace(price, at_least=least[price.unit]) if price.unit in least else price
        for price in units
    )


def edges_near(model: ModelInfo, wall_ns: int) -> Iterator[int]:
    """Yield the wall times around this one at which the model's price may change."""
    today = _utc(wall_ns).date()
    for constraint in _constraints(model):
        if isinstance(constraint, StartDateConstraint):
            yield _wall_ns(datetime.combine(constraint.start_date, time(), tzinfo=UTC))
        else:
            yield from _daily_edges(constraint, today)


def _of(owner: Provider, model: str) -> Found | None:
    info = owner.find_model(model, all_providers=_providers)
    if info is None:
        return None
    return Found(owner, info, any(info is own for own in owner.models))


def _constraints(model: ModelInfo) -> Iterator[StartDateConstraint | TimeOfDateConstraint]:
    conditional = () if isinstance(model.prices, ModelPrice) else model.prices
    for entry in (*conditional, *(model.price_variants or ())):
        if entry.constraint is not None:
            yield entry.constraint


def _daily_edges(constraint: TimeOfDateConstraint, today: date) -> Iterator[int]:
    # Two days either way: the constraint's own time zone may be almost a day off.
    for days in range(-2, 3):
        day = today + timedelta(days=days)
        for edge in (constraint.start_time, constraint.end_time):
            yield _wall_ns(datetime.combine(day, edge, tzinfo=edge.tzinfo or UTC))


def _utc(wall_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=wall_ns // 1000)


def _wall_ns(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
