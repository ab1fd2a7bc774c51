"""Compares what a policy's tiers cost: tiers order quality, and a lower one may be dearer."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from costd.model.money import format_nusd
from costd.model.policy import ModelRef, PolicySet, Tier
from costd.model.price import Price
from costd.pricing.book import PriceBook

_MIXES: tuple[Mapping[str, int], ...] = (
    {"input_tokens": 3_000, "output_tokens": 1_000},
    {"input_tokens": 1_000, "output_tokens": 3_000},
)
"""Three tokens in for one out, and the other way round; small enough to stay below long-context
prices."""


def tier_warnings(policy: PolicySet, book: PriceBook, wall_ns: int) -> list[str]:
    """Say where asks would not become cheaper by going one tier down.

    Shape:   one warning for each model of a lower tier that is dearer than some model of the
             tier above, naming the cheapest of those; one for each tier whose stated relative
             cost is above that of the tier before; one for each model without a price.
    """
    prices = {
        ref: book.find(ref.provider, ref.model, wall_ns=wall_ns)
        for tier in policy.tiers
        for ref in tier.models
    }
    warnings = [
        f"tier {tier.name}: nobody knows the price of {ref}; state one under `prices`, or it "
        "cannot be compared with other tiers"
        for tier in policy.tiers
        for ref in tier.models
        if prices[ref] is None
    ]
    for upper, lower in pairwise(policy.tiers):
        warnings += _relative_warnings(upper, lower)
        warnings += _model_warnings(upper, lower, prices)
    return warnings


def _relative_warnings(upper: Tier, lower: Tier) -> Iterator[str]:
    if upper.relative_cost is None or lower.relative_cost is None:
        return
    if lower.relative_cost > upper.relative_cost:
        yield (
            f"tier {lower.name}: relative_cost {lower.relative_cost} is above the "
            f"{upper.relative_cost} of tier {upper.name} above it"
        )


def _model_warnings(
    upper: Tier, lower: Tier, prices: Mapping[ModelRef, Price | None]
) -> Iterator[str]:
    for ref in lower.models:
        findings = [found for mix in _MIXES if (found := _dearer(ref, upper, prices, mix))]
        if findings:
            yield (
                f"tier {lower.name}: {ref} is dearer than a model of tier {upper.name} above it: "
                f"{'; '.join(findings)}"
            )


def _dearer(
    ref: ModelRef, upper: Tier, prices: Mapping[ModelRef, Price | None], mix: Mapping[str, int]
) -> str:
    price = prices[ref]
    known = [(prices[other], other) for other in upper.models if other != ref]
    costs = [(above.cost_nusd(mix), str(other)) for above, other in known if above is not None]
    if price is None or not costs:
        return ""
    cost, (cheapest, name) = price.cost_nusd(mix), min(costs)
    if cost <= cheapest:
        return ""
    return (
        f"{mix['input_tokens']:,} prompt and {mix['output_tokens']:,} output tokens cost "
        f"{format_nusd(cost)}, {format_nusd(cheapest)} at {name}"
    )
