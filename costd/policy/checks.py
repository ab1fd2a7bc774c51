"""How the fields of a policy must go together.

Each check yields what it finds, with its path; none stops at the first.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from zoneinfo import ZoneInfo

from costd.model.labels import RESERVED_KEYS
from costd.model.policy import RateUnit
from costd.model.time import NS_PER_S
from costd.policy.problems import Path
from costd.policy.schema import (
    NO_SOURCE,
    AllowanceSpec,
    BudgetSpec,
    Conditions,
    DiscountSpec,
    EnvoyRuleSpec,
    FleetSpec,
    ModelRuleSpec,
    PolicySpec,
    PriceSpec,
    RateSpec,
    WindowSpec,
)

Found = tuple[Path, str]
STEP_BP_MAX = 100_000
TOKEN_KINDS = ("input", "output", "cached_input", "cache_write", "reasoning")
TOKEN_UNITS = frozenset(
    {
        "requests",
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "output_reasoning_tokens",
    }
)


def check(spec: PolicySpec) -> Iterator[Found]:
    """Yield everything that is wrong with how fields go together."""
    yield from _zone(spec.time_zone, ("time_zone",))
    yield from _tiers(spec)
    yield from _task_classes(spec)
    yield from _duplicates("budgets", [budget.id for budget in spec.budgets])
    yield from _duplicates("rates", [rate.id for rate in spec.rates])
    yield from _duplicates("model_rules", [rule.id for rule in spec.model_rules])
    yield from _duplicates("grant_keys", [key.id for key in spec.grant_keys])
    yield from _duplicates("envoy", [rule.id for rule in spec.envoy])
    yield from _renames(spec.budgets)
    for at, budget in enumerate(spec.budgets):
        yield from _budget(budget, ("budgets", at))
        yield from _selector(spec, budget.match, ("budgets", at, "match"))
    for at, rate in enumerate(spec.rates):
        yield from _rate(rate, ("rates", at))
        yield from _selector(spec, rate.match, ("rates", at, "match"))
    for at, rule in enumerate(spec.model_rules):
        yield from _model_rule(rule, ("model_rules", at))
        yield from _selector(spec, rule.match, ("model_rules", at, "match"))
    for at, price in enumerate(spec.prices):
        yield from _price(price, ("prices", at))
        yield from _dates(price, ("prices", at))
    for at, discount in enumerate(spec.discounts):
        if not 0 < discount.off <= 1:
            yield ("discounts", at, "off"), "must be more than 0% and at most 100%; change it"
        yield from _dates(discount, ("discounts", at))
    if spec.expiry.ttl > spec.expiry.ttl_max:
        yield ("expiry", "ttl"), "is longer than ttl_max; shorten it or raise ttl_max"
    yield from _allowance(spec.allowance, ("allowance",))
    yield from _selector(spec, spec.allowance.match, ("allowance", "match"))
    yield from _fleet(spec.fleet, ("fleet",))
    for at, envoy in enumerate(spec.envoy):
        yield from _envoy(spec, envoy, ("envoy", at))
        yield from _envoy_caller(spec, envoy, ("envoy", at))


def _tiers(spec: PolicySpec) -> Iterator[Found]:
    listed: dict[str, str] = {}
    for rank, (name, tier) in enumerate(spec.tiers.items()):
        for at, model in enumerate(tier.models):
            first = listed.setdefault(str(model), name)
            if first != name or tier.models.index(model) != at:
                text = f"{model} is already in tier {first}; a model belongs to one tier, once"
                yield ("tiers", name, "models", at), text
        if tier.relative_cost is None:
            continue
        if tier.relative_cost <= 0:
            yield ("tiers", name, "relative_cost"), "must be more than 0; write 1/5 or 20%"
        elif rank == 0 and tier.relative_cost != 1:
            text = "the first tier is what the others are compared with; remove it here"
            yield ("tiers", name, "relative_cost"), text
    yield from _tier_known(spec, spec.default_tier, ("default_tier",))


def _tier_known(spec: PolicySpec, name: str, path: Path) -> Iterator[Found]:
    if name and name not in spec.tiers:
        known = ", ".join(spec.tiers) or "none yet"
        yield path, f"there is no tier {name!r}; use one of `tiers` ({known}) or add it there"


def _task_classes(spec: PolicySpec) -> Iterator[Found]:
    rank = {name: at for at, name in enumerate(spec.tiers)}
    for name, task_class in spec.task_classes.items():
        path: Path = ("task_classes", name)
        yield from _tier_known(spec, task_class.tier, (*path, "tier"))
        yield from _tier_known(spec, task_class.min_tier, (*path, "min_tier"))
        tier, lowest = rank.get(task_class.tier), rank.get(task_class.min_tier)
        if tier is not None and lowest is not None and lowest < tier:
            text = (
                f"{task_class.min_tier} is above the class's own tier {task_class.tier}; "
                "lower min_tier or raise tier"
            )
            yield (*path, "min_tier"), text
        if task_class.takes_steps and not task_class.critical:
            text = "only a critical class opts in to steps, others take them; remove it"
            yield (*path, "takes_steps"), text
        if task_class.ttl > spec.expiry.ttl_max:
            yield (*path, "ttl"), "is longer than expiry.ttl_max; shorten it or raise ttl_max"
    wanted = spec.default_task_class
    if wanted and wanted not in spec.task_classes:
        yield ("default_task_class",), f"there is no task class {wanted!r}; add it to task_classes"


def _duplicates(section: str, ids: list[str]) -> Iterator[Found]:
    first: dict[str, int] = {}
    for at, each in enumerate(ids):
        if first.setdefault(each, at) != at:
            text = f"{each!r} is also the id of {section}[{first[each]}]; give each its own"
            yield (section, at, "id"), text


def _renames(budgets: list[BudgetSpec]) -> Iterator[Found]:
    ids = {budget.id for budget in budgets}
    taken: dict[str, int] = {}
    for at, budget in enumerate(budgets):
        if not budget.was:
            continue
        path: Path = ("budgets", at, "was")
        if budget.was in ids:
            yield path, f"{budget.was!r} is still the id of a budget; remove that one or `was`"
        elif taken.setdefault(budget.was, at) != at:
            yield path, f"budgets[{taken[budget.was]}] already takes over {budget.was!r}; keep one"


def _selector(spec: PolicySpec, conditions: Conditions, path: Path) -> Iterator[Found]:
    known: dict[str, Iterable[str]] = {"tier": spec.tiers, "task_class": spec.task_classes}
    for key, condition in conditions.items():
        if known.get(key):
            for value in sorted(condition.values - set(known[key])):
                names = ", ".join(known[key])
                yield (*path, key), f"there is no {key} {value!r}; use one of {names}"


def _budget(budget: BudgetSpec, path: Path) -> Iterator[Found]:
    yield from _window(budget.window, (*path, "window"))
    limit, unit = budget.limit
    reserve = budget.reserve
    if limit is None:
        if reserve is not None:
            yield (*path, "reserve"), "a budget without a limit has no reserve; state a limit"
        if budget.steps:
            yield (*path, "steps"), "a budget without a limit reaches no step; state a limit"
    elif reserve is not None and reserve.share_bp is None:
        if reserve.unit is not unit:
            yield (*path, "reserve"), f"is in {reserve.unit} and the limit in {unit}; use {unit}"
        elif reserve.amount >= limit:
            yield (*path, "reserve"), "leaves nothing to other classes; keep it under the limit"
    yield from _steps(budget, path)


def _window(window: WindowSpec, path: Path) -> Iterator[Found]:
    stated = window.model_fields_set
    if window.kind == "rolling":
        text = "rolling windows are not supported yet; use a calendar window such as day or month"
        yield (*path, "kind"), text
        return
    if window.kind in {"run", "total"} and "time_zone" in stated:
        yield (*path, "time_zone"), f"a {window.kind} window has no calendar; remove time_zone"
    if window.kind != "week" and "starts" in stated:
        yield (*path, "starts"), "only a week starts on a day; remove it or use kind: week"
    if window.time_zone:
        yield from _zone(window.time_zone, (*path, "time_zone"))


def _zone(name: str, path: Path) -> Iterator[Found]:
    # A folder, a path outside and a missing name each raise another kind.
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        yield path, f"there is no time zone {name!r}; use an IANA name such as Europe/Berlin"


def _steps(budget: BudgetSpec, path: Path) -> Iterator[Found]:
    highest = {"at": 0, "burn_rate": 0}
    for at, step in enumerate(budget.steps):
        here: Path = (*path, "steps", at)
        if (step.at is None) == (step.burn_rate is None):
            yield here, "say either at: 80% or burn_rate: 1.5, not both and not neither"
            continue
        name, value = ("at", step.at) if step.at is not None else ("burn_rate", step.burn_rate)
        assert value is not None
        if name == "at" and not 0 < value <= STEP_BP_MAX:
            yield (*here, "at"), "must be more than 0% and at most 1000%; change it"
        if value <= highest[name]:
            yield (*here, name), "steps must rise; put this one in order, or merge equal ones"
        highest[name] = max(value, highest[name])
        if name == "burn_rate" and budget.window.kind in {"run", "total"}:
            text = f"a {budget.window.kind} window has no end to pace toward; use at:"
            yield (*here, "burn_rate"), text
        if not step.do:
            yield (*here, "do"), "does nothing; write at least [alert]"
        fields = [action.field for action in step.do]
        for field in sorted({field for field in fields if fields.count(field) > 1}):
            yield (*here, "do"), f"says {field} twice; keep one"
        if fields == ["alert"] and not step.do[0].value:
            yield (*here, "do"), "quiet alone does nothing; remove the step"


REFILL_NS_MAX = 10 * 365 * 86_400 * NS_PER_S
"""Longer refills would pass what a bucket's 64 bits can count, and are budgets in truth."""


def _rate(rate: RateSpec, path: Path) -> Iterator[Found]:
    amount, unit, interval_ns = rate.limit
    if rate.burst is None:
        return
    burst, burst_unit = rate.burst
    if burst_unit is None and unit is RateUnit.NUSD:
        yield (*path, "burst"), "is a number and the limit is money; write it like $2"
    elif burst_unit is not None and burst_unit is not unit:
        yield (*path, "burst"), f"is in {burst_unit} and the limit in {unit}; use {unit}"
    elif burst * interval_ns > amount * REFILL_NS_MAX:
        yield (*path, "burst"), "takes more than ten years to refill; lower it, or use a budget"


def _model_rule(rule: ModelRuleSpec, path: Path) -> Iterator[Found]:
    if not rule.allow and not rule.forbid:
        yield path, "allows and forbids nothing; add allow: or forbid:, or remove the rule"


def _price(price: PriceSpec, path: Path) -> Iterator[Found]:
    stated = [kind for kind in TOKEN_KINDS if getattr(price, kind) is not None]
    if not stated and price.request is None and not price.units:
        yield path, "states no price; write at least one, input: $0 for a free model"
    for unit in sorted(TOKEN_UNITS & set(price.units)):
        yield (
            (*path, "units", unit),
            f"has a field of its own; use {', '.join(TOKEN_KINDS)}, request",
        )
    above = 0
    for at, tier in enumerate(price.tiers):
        if tier.above <= above:
            yield (*path, "tiers", at, "above"), "tiers must rise; put this one in order"
        above = max(above, tier.above)
        for kind in TOKEN_KINDS:
            if getattr(tier, kind) is not None and kind not in stated:
                text = f"the price has no {kind} to start from; state it above the tiers"
                yield (*path, "tiers", at, kind), text


def _dates(dated: PriceSpec | DiscountSpec, path: Path) -> Iterator[Found]:
    if dated.from_ is not None and dated.until is not None and dated.from_ >= dated.until:
        yield (*path, "until"), "is not after `from`; the price would never be in force"


ALLOWANCE_SHARE_MAX = Fraction(1, 2)
"""With more, the first process to ask would leave the others next to nothing."""
ALLOWANCE_NS_MIN = NS_PER_S // 10
ALLOWANCE_NS_MAX = 60 * NS_PER_S


def _allowance(allowance: AllowanceSpec, path: Path) -> Iterator[Found]:
    if not 0 < allowance.share <= ALLOWANCE_SHARE_MAX:
        text = "must be more than 0% and at most 50%; change it, or write active: false for none"
        yield (*path, "share"), text
    if allowance.single_below > 1:
        yield (*path, "single_below"), "must be at least 0% and at most 100%; change it"
    if not ALLOWANCE_NS_MIN <= allowance.for_ <= ALLOWANCE_NS_MAX:
        yield (*path, "for"), "must be at least 100ms and at most 60s; change it"


LEASE_WAIT_MS_MAX = 5_000
"""With more, callers would give up before the daemon has answered."""


def _fleet(fleet: FleetSpec, path: Path) -> Iterator[Found]:
    if not 0 < fleet.safe_share <= 1:
        text = "must be more than 0% and at most 100%; change it, or write fail_mode: closed"
        yield (*path, "safe_share"), text
    if fleet.lease_wait_ms > LEASE_WAIT_MS_MAX:
        yield (*path, "lease_wait_ms"), f"must be at most {LEASE_WAIT_MS_MAX}; change it"


def _envoy(spec: PolicySpec, rule: EnvoyRuleSpec, path: Path) -> Iterator[Found]:
    for field, known in (("task_class", list(spec.task_classes)), ("tier", list(spec.tiers))):
        value = getattr(rule, field).value
        if value and value not in known:
            names = ", ".join(known) or "none yet"
            yield (*path, field), f"there is no {field} {value!r}; use one of {names}"
    for field in ("prompt_tokens", "max_output_tokens"):
        value = getattr(rule, field).value
        if value and not (value.isascii() and value.isdecimal()):
            yield (*path, field), f"{value!r} is no count; write digits only"
    for key in sorted(RESERVED_KEYS & set(rule.labels)):
        yield (*path, "labels", key), f"{key} has a field of its own; set that instead"
    if rule.does == "settle":
        if not rule.request_id.entry:
            text = "is needed to find the ask that has ended; name the entry both have"
            yield (*path, "request_id"), text
        for field in ("estimated_cost", "max_output_tokens", "prompt_tokens", "override_grant"):
            if field in rule.model_fields_set:
                yield (*path, field), "belongs to an ask, and this rule settles; remove it"
    elif rule.hits_addend == "cached_tokens":
        yield (*path, "hits_addend"), "cached_tokens are known at the end only; use does: settle"


def _envoy_caller(spec: PolicySpec, rule: EnvoyRuleSpec, path: Path) -> Iterator[Found]:
    """An end finds its ask by caller and request id; else one call is charged twice."""
    if NO_SOURCE in (rule.caller, rule.request_id):
        return
    others = [
        other
        for other in spec.envoy
        if other.domain == rule.domain and other.does != rule.does and other.request_id != NO_SOURCE
    ]
    if others and all(other.caller == NO_SOURCE for other in others):
        does = "settles" if rule.does == "ask" else "asks"
        text = f"no rule of the domain that {does} says whose it is; say it there too, as here"
        yield (*path, "caller"), text
