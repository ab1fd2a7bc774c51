"""Finds prices for the engine: the policy's own first, then the catalogue's, less discounts."""

from hashlib import blake2b
from typing import NamedTuple

import msgspec

from costd.engine.rules import model_matches
from costd.errors import InvalidPolicy
from costd.model.policy import Discount, PolicyPrice, PolicySet
from costd.model.price import Price, PriceSource, UnitPrice
from costd.model.time import NEVER_NS
from costd.pricing.catalogue import (
    CATALOGUE_VERSION,
    Found,
    edges_near,
    find_model,
    providers,
    units_at,
)
from costd.pricing.units import discounted, with_parts

MEMO_MAX = 4096
"""How many (provider, model, batch) are remembered; callers choose the names, so it is bounded."""


class _Memo(NamedTuple):
    """A price, or that there is none, and from when until when this holds."""

    price: Price | None
    from_ns: int
    until_ns: int


class PriceBook:
    """Implements `costd.engine.ports.Prices` in memory; one is made for each policy revision.

    Ensures: a price found again is the same object; at most MEMO_MAX names and prices are kept.
    Errors:  InvalidPolicy from the constructor where a policy's price cannot be computed with.
    """

    def __init__(self, policy: PolicySet | None = None) -> None:
        self._revision = policy.revision if policy else ""
        self._stated = [(_checked(stated), stated) for stated in (policy.prices if policy else ())]
        self._discounts = policy.discounts if policy else ()
        self._memo: dict[tuple[str, str, bool], _Memo] = {}
        self._prices: dict[str, Price] = {}

    def find(self, provider: str, model: str, *, wall_ns: int, batch: bool = False) -> Price | None:
        """Return the price in force at that wall time, None if nobody knows the model.

        With an empty provider, the provider is found from the model's name.
        """
        memo = self._memo.get((provider, model, batch))
        if memo is not None and memo[1] <= wall_ns < memo[2]:
            return memo[0]
        memo = self._look_up(provider, model, wall_ns, batch=batch)
        # All or nothing keeps this safe between threads and cheap under a flood of made-up
        # names; what is in use comes back at one look-up each.
        if len(self._memo) >= MEMO_MAX:
            self._memo = {}
            self._prices = {}
        self._memo[provider, model, batch] = memo
        return memo.price

    def _look_up(self, provider: str, model: str, wall_ns: int, *, batch: bool) -> _Memo:
        found = find_model(provider, model)
        names = _names(provider, model, found)
        stated = [(units, price) for units, price in self._stated if _matches(price.models, names)]
        discounts = [offer for offer in self._discounts if _matches(offer.models, names)]
        edges = [edge for rule in discounts for edge in (rule.from_ns, rule.until_ns)]
        edges += [edge for _, rule in stated for edge in (rule.from_ns, rule.until_ns)]
        if found:
            edges += edges_near(found.model, wall_ns)
        in_force = [(units, rule) for units, rule in stated if _is_in_force(rule, wall_ns)]
        # A standard price serves batch asks too where the policy states no batch price.
        own = next((s for s in in_force if s[1].batch and batch), None)
        own = own or next((s for s in in_force if not s[1].batch), None)
        price: Price | None = None
        if own:
            price = self._policy_price(*own, found)
        elif found:
            discount = next((d for d in discounts if _is_in_force(d, wall_ns)), None)
            price = self._catalogue_price(found, discount, wall_ns, batch=batch)
        return _Memo(
            price=price,
            from_ns=max((edge for edge in edges if edge <= wall_ns), default=-NEVER_NS),
            until_ns=min((edge for edge in edges if edge > wall_ns), default=NEVER_NS),
        )

    def _policy_price(
        self, units: tuple[UnitPrice, ...], rule: PolicyPrice, found: Found | None
    ) -> Price:
        # The source never repeats a name the caller chose: prices are stored by content, and a
        # pattern would then make a new one for every name that is sent.
        provider, slash, model = rule.models.partition("/")
        if found is not None:
            provider, model = found.provider.id, found.model.id
        elif not slash or "*" in provider:
            provider, model = "", rule.models
        window = rule.context_window
        if window is None and found is not None:
            window = found.model.context_window
        source = PriceSource("policy", self._revision, provider, model)
        return self._interned(units, source, window)

    def _catalogue_price(
        self, found: Found, discount: Discount | None, wall_ns: int, *, batch: bool
    ) -> Price | None:
        units = units_at(found, wall_ns, batch=batch)
        if units is None:
            return None
        version = CATALOGUE_VERSION
        if discount is not None:
            units = discounted(units, discount.share)
            version = f"{version} less {discount.share}"
        source = PriceSource("catalogue", version, found.provider.id, found.model.id)
        return self._interned(units, source, found.model.context_window)

    def _interned(
        self, units: tuple[UnitPrice, ...], source: PriceSource, context_window: int | None
    ) -> Price:
        content = msgspec.msgpack.encode((units, source, context_window))
        price_id = blake2b(content, digest_size=8).hexdigest()
        return self._prices.setdefault(price_id, Price(price_id, units, source, context_window))


def provider_names(policy: PolicySet) -> frozenset[str]:
    """List the providers that the policy or the catalogue knows, whatever callers send."""
    named = {ref.provider for tier in policy.tiers for ref in tier.models}
    named |= {price.models.partition("/")[0] for price in policy.prices if "/" in price.models}
    return frozenset({name for name in named if "*" not in name} | {p.id for p in providers()})


def _names(provider: str, model: str, found: Found | None) -> set[tuple[str, str]]:
    """List the names a policy may mean this model by: as asked, and as the catalogue has it."""
    names = {(provider.lower(), model.lower())}
    if found is not None:
        names |= {(found.provider.id, model.lower()), (found.provider.id, found.model.id.lower())}
    return names


def _matches(pattern: str, names: set[tuple[str, str]]) -> bool:
    return any(model_matches((pattern.lower(),), provider, model) for provider, model in names)


def _is_in_force(rule: PolicyPrice | Discount, wall_ns: int) -> bool:
    return rule.from_ns <= wall_ns < rule.until_ns


def _checked(rule: PolicyPrice) -> tuple[UnitPrice, ...]:
    """Complete a policy's unit prices with what is part of what, and try them once."""
    units = with_parts(rule.units)
    where = f"price of {rule.models!r}"
    for price in units:
        if price.per < 1 or price.nusd_per < 0 or any(tier.nusd_per < 0 for tier in price.tiers):
            raise InvalidPolicy(
                f"{where}: {price.unit} must cost 0 or more for each 1 or more units"
            )
    if len({price.unit for price in units}) < len(units):
        raise InvalidPolicy(f"{where}: a unit is priced twice; state each unit once")
    try:
        Price("", units, PriceSource("policy", "", "", "")).cost_nusd({})
    except ValueError as error:
        raise InvalidPolicy(f"{where}: {error}") from error
    return units
