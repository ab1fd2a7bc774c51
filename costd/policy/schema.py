"""What a policy file may say, field by field; `costd.policy.checks` judges how fields go together.

Scalars arrive as text (see `costd.policy.source`) and each type below reads its own grammar.
Field names are those of docs/reference/policy.md, which a test compares with this file.
"""

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from costd.model.labels import Match
from costd.model.policy import ModelRef, RateUnit, Unit
from costd.model.time import NS_PER_S
from costd.policy import amounts, words

Bool = Annotated[bool, PlainValidator(amounts.read_bool)]
Count = Annotated[int | None, PlainValidator(amounts.read_positive)]
Whole = Annotated[int, PlainValidator(amounts.read_count)]
Positive = Annotated[int, PlainValidator(amounts.read_positive)]
OptionalMoney = Annotated[int | None, PlainValidator(amounts.read_nusd)]
Money = Annotated[int, PlainValidator(amounts.read_nusd)]
Limit = Annotated[tuple[int | None, Unit], PlainValidator(amounts.read_limit)]
Reserve = Annotated[amounts.Reserve | None, PlainValidator(amounts.read_reserve)]
RateLimit = Annotated[tuple[int, RateUnit, int], PlainValidator(amounts.read_rate)]
Burst = Annotated[tuple[int, RateUnit | None] | None, PlainValidator(amounts.read_rate_amount)]
Percent = Annotated[int | None, PlainValidator(amounts.read_percent_bp)]
Burn = Annotated[int | None, PlainValidator(amounts.read_burn_bp)]
Ratio = Annotated[Fraction | None, PlainValidator(amounts.read_fraction)]
Duration = Annotated[int, PlainValidator(amounts.read_duration_ns)]
Moment = Annotated[int | None, PlainValidator(amounts.read_time_ns)]
Share = Annotated[Fraction, PlainValidator(amounts.read_fraction)]
Id = Annotated[str, PlainValidator(words.read_id)]
Text = Annotated[str, PlainValidator(words.read_text)]
Url = Annotated[str, PlainValidator(words.read_url)]
Model = Annotated[ModelRef, PlainValidator(words.read_model)]
Pattern = Annotated[str, PlainValidator(words.read_pattern)]
LabelKey = Annotated[str, PlainValidator(words.read_label_key)]
LabelKeys = Annotated[list[str], PlainValidator(words.read_label_keys)]
Condition = Annotated[Match, PlainValidator(words.read_condition)]
Action = Annotated[words.Action, PlainValidator(words.read_action)]
PublicKey = Annotated[str, PlainValidator(words.read_public_key)]
UnknownPrice = Annotated[ModelRef | None, PlainValidator(words.read_unknown_price)]
Label = Annotated[str, PlainValidator(words.read_label_value)]
Conditions = dict[LabelKey, Condition]


def _spell_out(key: str) -> BeforeValidator:
    """Let a word stand for a mapping with one key: `window: month` for `{kind: month}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class Spec(BaseModel):
    """Base of everything in a policy file: unknown fields are refused, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class UpgradeSpec(Spec):
    """What to tell somebody who was refused."""

    text: Text
    url: Url = ""


NO_UPGRADE = UpgradeSpec.model_construct(text="", url="")


class TierSpec(Spec):
    """One tier and its models, the preferred one first."""

    models: list[Model] = []
    relative_cost: Ratio = None


class TaskClassSpec(Spec):
    """One task class."""

    critical: Bool = False
    min_tier: Id = ""
    tier: Id = ""
    max_output_tokens: Count = None
    ttl: Duration = 0
    takes_steps: Bool = False


class WindowSpec(Spec):
    """One window; a word stands for its kind."""

    kind: Literal[
        "minute", "hour", "day", "week", "month", "quarter", "year", "run", "total", "rolling"
    ]
    time_zone: Label = ""
    starts: Literal[
        "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"
    ] = "monday"


class StepSpec(Spec):
    """One rung of a budget's ladder: at a utilisation or at a burn rate, do this."""

    at: Percent = None
    burn_rate: Burn = None
    do: list[Action]


class BudgetSpec(Spec):
    """One budget."""

    id: Id
    match: Conditions = {}
    per: LabelKeys = []
    window: Annotated[WindowSpec, _spell_out("kind")]
    limit: Limit = (None, Unit.NUSD)
    reserve: Reserve = None
    steps: list[StepSpec] = []
    active: Bool = True
    missing: Literal["shared", "deny"] = "shared"
    shadow: Bool = False
    share: Literal["fleet", "host"] = "fleet"
    was: Id = ""
    upgrade: UpgradeSpec = NO_UPGRADE


class RateSpec(Spec):
    """One token bucket."""

    id: Id
    match: Conditions = {}
    per: LabelKeys = []
    limit: RateLimit
    burst: Burst = None
    missing: Literal["shared", "deny"] = "shared"
    shadow: Bool = False
    share: Literal["fleet", "host"] = "fleet"
    upgrade: UpgradeSpec = NO_UPGRADE


class ModelRuleSpec(Spec):
    """Models allowed or forbidden to a selector."""

    id: Id
    match: Conditions = {}
    allow: list[Pattern] = []
    forbid: list[Pattern] = []
    shadow: Bool = False
    upgrade: UpgradeSpec = NO_UPGRADE


class UnitPriceSpec(Spec):
    """The price of so many of one unit; an amount stands for the price of one."""

    price: Money
    per: Positive = 1


class TokenPricesSpec(Spec):
    """Dollars per million tokens of each kind."""

    input: OptionalMoney = None
    output: OptionalMoney = None
    cached_input: OptionalMoney = None
    cache_write: OptionalMoney = None
    reasoning: OptionalMoney = None


class PriceTierSpec(TokenPricesSpec):
    """Prices for calls with more input than this."""

    above: Positive


class PriceSpec(TokenPricesSpec):
    """A price of one's own."""

    models: Pattern
    request: OptionalMoney = None
    units: dict[Id, Annotated[UnitPriceSpec, _spell_out("price")]] = {}
    tiers: list[PriceTierSpec] = []
    batch: Bool = False
    context_window: Count = None
    from_: Annotated[Moment, Field(alias="from")] = None
    until: Moment = None


class DiscountSpec(Spec):
    """A share off the price of matching models."""

    models: Pattern
    off: Share
    from_: Annotated[Moment, Field(alias="from")] = None
    until: Moment = None


class ExpirySpec(Spec):
    """How long money is held, and how long a late settle still counts."""

    ttl: Duration = 600 * NS_PER_S
    ttl_max: Duration = 86_400 * NS_PER_S
    late_settle: Duration = 604_800 * NS_PER_S


class AllowanceSpec(Spec):
    """Who gets allowances, how large, and for how long; as `AllowanceTerms`."""

    active: Bool = True
    match: Conditions = {}
    share: Share = Fraction(1, 20)
    single_below: Share = Fraction(1, 50)
    calls_max: Positive = 1_000_000
    for_: Annotated[Duration, Field(alias="for")] = 5 * NS_PER_S


class FleetSpec(Spec):
    """How daemons get along with their coordinator; as `FleetTerms`."""

    fail_mode: Literal["closed", "open", "safe"] = "closed"
    safe_share: Share = Fraction(1, 100)
    lease_wait_ms: Whole = 250


class EnvoySourceSpec(Spec):
    """Where a field of an ask comes from; a word stands for the entry of that name."""

    entry: Label = ""
    value: Label = ""


Source = Annotated[EnvoySourceSpec, _spell_out("entry")]
NO_SOURCE = EnvoySourceSpec()


class EnvoyRuleSpec(Spec):
    """What descriptors of Envoy's say; as `EnvoyRule`."""

    id: Id
    domain: Label
    match: Conditions = {}
    does: Literal["ask", "settle"] = "ask"
    request_id: Source = NO_SOURCE
    hits_addend: Literal[
        "nothing", "prompt_tokens", "cached_tokens", "output_tokens", "cost_microusd"
    ] = "nothing"
    labels: dict[LabelKey, Source] = {}
    caller: Source = NO_SOURCE
    task_class: Source = NO_SOURCE
    provider: Source = NO_SOURCE
    model: Source = NO_SOURCE
    tier: Source = NO_SOURCE
    prompt_tokens: Source = NO_SOURCE
    max_output_tokens: Source = NO_SOURCE
    estimated_cost: OptionalMoney = None
    override_grant: Source = NO_SOURCE


class GrantKeySpec(Spec):
    """A public key whose override grants are honoured."""

    id: Id
    public_key: PublicKey
    admin: Bool = False


class PolicySpec(Spec):
    """A whole policy file."""

    version: Literal["1"]
    time_zone: Label = "UTC"
    tiers: dict[Id, TierSpec] = {}
    task_classes: dict[Id, TaskClassSpec] = {}
    default_task_class: Id = ""
    default_tier: Id = ""
    budgets: list[BudgetSpec] = []
    rates: list[RateSpec] = []
    model_rules: list[ModelRuleSpec] = []
    prices: list[PriceSpec] = []
    discounts: list[DiscountSpec] = []
    unmatched: Literal["deny", "allow"] = "deny"
    unknown_price: UnknownPrice = None
    expiry: ExpirySpec = ExpirySpec()
    allowance: AllowanceSpec = AllowanceSpec()
    fleet: FleetSpec = FleetSpec()
    envoy: list[EnvoyRuleSpec] = []
    grant_keys: list[GrantKeySpec] = []
    shadow: Bool = False
