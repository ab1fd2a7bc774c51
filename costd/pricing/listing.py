"""Finds models for people to read: what they cost now, when that changes, and who says so."""

from collections.abc import Iterable, Iterator
from decimal import Decimal, localcontext
from fractions import Fraction

import msgspec
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
)

from costd.model.money import NUSD_PER_USD
from costd.model.price import PriceSource, UnitPrice
from costd.pricing.book import PriceBook
from costd.pricing.catalogue import providers
from costd.pricing.units import REGISTRY, compile_units

_DIGITS_MAX = 12


class ModelListing(msgspec.Struct, frozen=True, kw_only=True):
    """One model as `costctl prices` shows it."""

    provider: str
    model: str
    name: str
    context_window: int | None
    deprecated: bool
    prices: tuple[str, ...]
    """One line for each unit; empty where the catalogue lists no price."""
    source: PriceSource | None
    """Where the prices come from, None where there are none."""
    notes: tuple[str, ...]
    """Prices at other times and for other kinds of processing."""
    comments: str
    urls: tuple[str, ...]


def search(book: PriceBook, text: str, limit: int = 20, *, wall_ns: int) -> list[ModelListing]:
    """Find models whose provider, id or name has every word of the text; the closest first.

    Shape:   a model of the catalogue whose price the policy states is listed at that price.
    """
    words = text.lower().split()
    hits = [
        (_distance(model, words), order, provider, model)
        for order, (provider, model) in enumerate(_models())
        if all(word in f"{provider.id}/{model.id} {model.name or ''}".lower() for word in words)
    ]
    hits.sort(key=lambda hit: hit[:2])
    return [_listing(book, provider, model, wall_ns) for _, _, provider, model in hits[:limit]]


def price_lines(units: Iterable[UnitPrice]) -> tuple[str, ...]:
    """Write unit prices as people compare them: dollars per million tokens, thousand calls."""
    return tuple(_line(price) for price in units)


def _models() -> Iterator[tuple[Provider, ModelInfo]]:
    for provider in providers():
        for model in provider.models:
            yield provider, model


def _distance(model: ModelInfo, words: list[str]) -> tuple[int, int]:
    """Order hits: the id itself, then ids that begin with it, then short before long."""
    name = model.id.lower()
    asked = words[-1].rpartition("/")[2] if words else ""
    return (0 if name == asked else 1 if name.startswith(asked) else 2, len(name))


def _listing(book: PriceBook, provider: Provider, model: ModelInfo, wall_ns: int) -> ModelListing:
    price = book.find(provider.id, model.id, wall_ns=wall_ns)
    comments = (model.price_comments or "", provider.price_comments or "")
    return ModelListing(
        provider=provider.id,
        model=model.id,
        name=model.name or "",
        context_window=model.context_window,
        deprecated=bool(model.deprecated),
        prices=price_lines(price.units) if price else (),
        source=price.source if price else None,
        notes=tuple(_notes(model)),
        comments="\n".join(filter(None, comments)),
        urls=tuple(provider.pricing_urls or ()),
    )


def _notes(model: ModelInfo) -> Iterator[str]:
    if not isinstance(model.prices, ModelPrice):
        for entry in model.prices:
            yield f"{_when(entry)}: {_joined(entry.prices)}"
    for variant in model.price_variants or ():
        kind = " ".join(f"{key}={value}" for key, value in variant.when.items())
        applied = "" if kind == "processing=batch" else " (not applied)"
        yield f"{kind}{applied}: {_joined(variant.prices)}"


def _when(entry: ConditionalPrice) -> str:
    if entry.constraint is None:
        return "at first, and whenever nothing below applies"
    if isinstance(entry.constraint, StartDateConstraint):
        return f"from {entry.constraint.start_date} UTC"
    start, end = entry.constraint.start_time, entry.constraint.end_time
    return f"daily {start:%H:%M} to {end:%H:%M %Z}".rstrip()


def _joined(prices: ModelPrice) -> str:
    return ", ".join(price_lines(compile_units(prices))) or "as usual"


def _line(price: UnitPrice) -> str:
    unit = REGISTRY.units.get(price.unit)
    shown_per = unit.per if unit else price.per
    parts = [f"{price.unit} {_usd(price.nusd_per, price.per, shown_per)} per {shown_per:,}"]
    parts += [
        f"{_usd(tier.nusd_per, price.per, shown_per)} above {tier.start_tokens:,} input_tokens"
        for tier in price.tiers
    ]
    if price.at_least:
        parts.append(f"at least {price.at_least} billed")
    return "; ".join(parts)


def _usd(nusd_per: int, per: int, shown_per: int) -> str:
    """Write dollars in full where twelve digits do, else rounded to them and marked."""
    exact = Fraction(nusd_per * shown_per, per * NUSD_PER_USD)
    with localcontext() as context:
        context.prec = _DIGITS_MAX
        shown = (Decimal(exact.numerator) / Decimal(exact.denominator)).normalize()
    whole, _, decimals = f"{shown:f}".partition(".")
    mark = "" if Fraction(shown) == exact else "≈"
    return f"{mark}${whole}.{decimals.ljust(2, '0')}"
