"""Checked specs → the policy set the engine reads."""

from costd.model.labels import Match, Selector
from costd.model.policy import (
    AllowanceTerms,
    Budget,
    Discount,
    EnvoyRule,
    EnvoySource,
    FailMode,
    FleetTerms,
    GrantKey,
    ModelRule,
    PolicyPrice,
    PolicySet,
    Rate,
    Share,
    Step,
    TaskClass,
    Tier,
    Window,
    WindowKind,
)
from costd.model.price import PriceTier, UnitPrice
from costd.model.time import NEVER_NS, NS_PER_MS
from costd.policy.amounts import BP_PER_ONE
from costd.policy.schema import (
    AllowanceSpec,
    BudgetSpec,
    Conditions,
    DiscountSpec,
    EnvoyRuleSpec,
    EnvoySourceSpec,
    FleetSpec,
    ModelRuleSpec,
    PolicySpec,
    PriceSpec,
    RateSpec,
    StepSpec,
    TaskClassSpec,
    WindowSpec,
)

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
TOKENS_PER_PRICE = 1_000_000

# Field of a price → the catalogue's unit, and the fields priced apart that are part of it.
TOKEN_UNITS: dict[str, tuple[str, tuple[str, ...]]] = {
    "input": ("input_tokens", ("cached_input", "cache_write")),
    "cached_input": ("cache_read_tokens", ()),
    "cache_write": ("cache_write_tokens", ()),
    "output": ("output_tokens", ("reasoning",)),
    "reasoning": ("output_reasoning_tokens", ()),
}


def build_policy(spec: PolicySpec, revision: str) -> PolicySet:
    """Turn a checked file into the values the engine reads."""
    return PolicySet(
        revision=revision,
        tiers=tuple(
            Tier(name=name, models=tuple(tier.models), relative_cost=tier.relative_cost)
            for name, tier in spec.tiers.items()
        ),
        task_classes={
            name: _task_class(name, task_class, spec)
            for name, task_class in spec.task_classes.items()
        },
        default_task_class=spec.default_task_class,
        default_tier=spec.default_tier,
        budgets=tuple(_budget(budget, spec.time_zone) for budget in spec.budgets),
        rates=tuple(_rate(rate) for rate in spec.rates),
        model_rules=tuple(_model_rule(rule) for rule in spec.model_rules),
        grant_keys=tuple(
            GrantKey(key_id=key.id, public_key=key.public_key, admin=key.admin)
            for key in spec.grant_keys
        ),
        unmatched_allow=spec.unmatched == "allow",
        unknown_price_assume=spec.unknown_price,
        prices=tuple(_price(price) for price in spec.prices),
        discounts=tuple(_discount(discount) for discount in spec.discounts),
        ttl_ns=spec.expiry.ttl,
        ttl_ns_max=spec.expiry.ttl_max,
        late_settle_ns=spec.expiry.late_settle,
        shadow=spec.shadow,
        allowance=_allowance(spec.allowance),
        fleet=_fleet(spec.fleet),
        envoy=tuple(map(_envoy, spec.envoy)),
    )


def build_selector(conditions: Conditions) -> Selector:
    """Put the keys into their conditions."""
    return Selector(
        tuple(
            Match(key, condition.values, condition.negated) for key, condition in conditions.items()
        )
    )


def _task_class(name: str, spec: TaskClassSpec, policy: PolicySpec) -> TaskClass:
    tier = spec.tier
    if not tier and spec.min_tier and policy.default_tier:
        # A class must not begin below the tier it may not be taken below.
        ranks = list(policy.tiers)
        tier = min(spec.min_tier, policy.default_tier, key=ranks.index)
    return TaskClass(
        name=name,
        critical=spec.critical,
        min_tier=spec.min_tier,
        tier=tier,
        max_output_tokens=spec.max_output_tokens,
        ttl_ns=spec.ttl,
        takes_steps=spec.takes_steps,
    )


def _budget(spec: BudgetSpec, time_zone: str) -> Budget:
    limit, unit = spec.limit
    reserve = 0
    if spec.reserve is not None and limit is not None:
        share_bp = spec.reserve.share_bp
        # A share rounds down.
        reserve = spec.reserve.amount if share_bp is None else limit * share_bp // BP_PER_ONE
    per = tuple(spec.per)
    if spec.window.kind == "run" and "run" not in per:
        per = ("run", *per)
    return Budget(
        budget_id=spec.id,
        selector=build_selector(spec.match),
        window=_window(spec.window, time_zone),
        unit=unit,
        per=per,
        limit=limit,
        reserve=reserve,
        steps=tuple(_step(step) for step in spec.steps),
        active=spec.active,
        missing_deny=spec.missing == "deny",
        shadow=spec.shadow,
        share=Share(spec.share),
        was=spec.was,
        upgrade_text=spec.upgrade.text,
        upgrade_url=spec.upgrade.url,
    )


def _window(spec: WindowSpec, time_zone: str) -> Window:
    kind = WindowKind(spec.kind)
    if kind in {WindowKind.RUN, WindowKind.TOTAL}:
        # They have no calendar; a change of the policy's time zone must not start them anew.
        return Window(kind)
    return Window(kind, spec.time_zone or time_zone, WEEKDAYS.index(spec.starts))


def _step(spec: StepSpec) -> Step:
    return Step(
        at_bp=spec.at,
        burn_bp=spec.burn_rate,
        **{action.field: action.value for action in spec.do},  # type: ignore[arg-type]  # each is its field's type
    )


def _rate(spec: RateSpec) -> Rate:
    amount, unit, interval_ns = spec.limit
    return Rate(
        rate_id=spec.id,
        selector=build_selector(spec.match),
        unit=unit,
        amount=amount,
        interval_ns=interval_ns,
        burst=amount if spec.burst is None else spec.burst[0],
        per=tuple(spec.per),
        missing_deny=spec.missing == "deny",
        shadow=spec.shadow,
        share=Share(spec.share),
        upgrade_text=spec.upgrade.text,
        upgrade_url=spec.upgrade.url,
    )


def _model_rule(spec: ModelRuleSpec) -> ModelRule:
    return ModelRule(
        rule_id=spec.id,
        selector=build_selector(spec.match),
        allow=tuple(spec.allow),
        forbid=tuple(spec.forbid),
        shadow=spec.shadow,
        upgrade_text=spec.upgrade.text,
        upgrade_url=spec.upgrade.url,
    )


def _price(spec: PriceSpec) -> PolicyPrice:
    stated = {kind for kind in TOKEN_UNITS if getattr(spec, kind) is not None}
    units = [
        UnitPrice(
            unit=unit,
            nusd_per=getattr(spec, kind),
            per=TOKENS_PER_PRICE,
            tiers=tuple(
                PriceTier(tier.above, getattr(tier, kind))
                for tier in spec.tiers
                if getattr(tier, kind) is not None
            ),
            minus=tuple(TOKEN_UNITS[part][0] for part in parts if part in stated),
        )
        for kind, (unit, parts) in TOKEN_UNITS.items()
        if kind in stated
    ]
    if spec.request is not None:
        units.append(UnitPrice(unit="requests", nusd_per=spec.request, per=1))
    units += [
        UnitPrice(unit=name, nusd_per=unit.price, per=unit.per) for name, unit in spec.units.items()
    ]
    return PolicyPrice(
        models=spec.models,
        units=tuple(units),
        from_ns=spec.from_ or 0,
        until_ns=NEVER_NS if spec.until is None else spec.until,
        batch=spec.batch,
        context_window=spec.context_window,
    )


def _discount(spec: DiscountSpec) -> Discount:
    return Discount(
        models=spec.models,
        share=spec.off,
        from_ns=spec.from_ or 0,
        until_ns=NEVER_NS if spec.until is None else spec.until,
    )


def _allowance(spec: AllowanceSpec) -> AllowanceTerms:
    return AllowanceTerms(
        active=spec.active,
        selector=build_selector(spec.match),
        share=spec.share,
        single_below=spec.single_below,
        calls_count_max=spec.calls_max,
        lifetime_ns=spec.for_,
    )


ENVOY_FIELDS = (
    "caller",
    "task_class",
    "provider",
    "model",
    "tier",
    "prompt_tokens",
    "max_output_tokens",
    "override_grant",
)
"""Fields of an ask that a descriptor can state."""


def _envoy(spec: EnvoyRuleSpec) -> EnvoyRule:
    sources = {name: _source(getattr(spec, name)) for name in ENVOY_FIELDS}
    return EnvoyRule(
        rule_id=spec.id,
        domain=spec.domain,
        selector=build_selector(spec.match),
        settles=spec.does == "settle",
        request_id=_source(spec.request_id),
        hits_addend="" if spec.hits_addend == "nothing" else spec.hits_addend,
        labels={key: _source(source) for key, source in spec.labels.items()},
        fields={name: source for name, source in sources.items() if source != EnvoySource()},
        estimated_cost_nusd=spec.estimated_cost,
    )


def _source(spec: EnvoySourceSpec) -> EnvoySource:
    return EnvoySource(spec.entry, spec.value)


def _fleet(spec: FleetSpec) -> FleetTerms:
    return FleetTerms(
        fail_mode=FailMode(spec.fail_mode),
        safe_share=spec.safe_share,
        lease_wait_ns=spec.lease_wait_ms * NS_PER_MS,
    )
