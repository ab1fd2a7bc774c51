"""The versioned, immutable rules in force."""

from enum import StrEnum
from fractions import Fraction

import msgspec

from costd.model.labels import Selector
from costd.model.price import UnitPrice
from costd.model.time import NEVER_NS


class WindowKind(StrEnum):
    """How a window begins and ends."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"
    RUN = "run"
    TOTAL = "total"


class Window(msgspec.Struct, frozen=True):
    """A half-open span `[start, end)` of the calendar in one IANA time zone."""

    kind: WindowKind
    time_zone: str = "UTC"
    week_starts: int = 0
    """0 is Monday, as in `datetime.weekday()`."""


class Unit(StrEnum):
    """What a budget counts."""

    NUSD = "nusd"
    TOKENS = "tokens"
    CALLS = "calls"


class RateUnit(StrEnum):
    """What a token bucket counts."""

    REQUESTS = "requests"
    PROMPT_TOKENS = "prompt_tokens"
    OUTPUT_TOKENS = "output_tokens"
    TOKENS = "tokens"
    NUSD = "nusd"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One rung of a budget's ladder, reached at a utilisation or at a burn rate.

    Exactly one of `at_bp` (basis points of what the class at hand can draw) and `burn_bp` (pace
    as basis points of the pace that would last to the window's end) is set.
    """

    at_bp: int | None = None
    burn_bp: int | None = None
    max_retries: int | None = None
    max_output_tokens: int | None = None
    compression: bool = False
    cache: bool = False
    batch: bool = False
    tiers_down: int = 0
    switch_provider: bool = False
    economy: bool = False
    deny: bool = False
    halt: bool = False
    alert: bool = True


class Share(StrEnum):
    """Whose a budget or a rate is, where daemons have a coordinator; alone, all is a daemon's."""

    FLEET = "fleet"
    """One for all daemons; each spends what the coordinator lends it."""
    HOST = "host"
    """Every daemon has one of its own, of the full size."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Money, tokens or calls allowed to a selector per window; without a limit it only tracks."""

    budget_id: str
    selector: Selector
    window: Window
    unit: Unit = Unit.NUSD
    per: tuple[str, ...] = ()
    limit: int | None = None
    reserve: int = 0
    """The part of the limit, in its unit, that only critical classes draw."""
    steps: tuple[Step, ...] = ()
    active: bool = True
    missing_deny: bool = False
    shadow: bool = False
    share: Share = Share.FLEET
    was: str = ""
    upgrade_text: str = ""
    upgrade_url: str = ""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A token bucket: `amount` units every `interval_ns`, at most `burst` at once."""

    rate_id: str
    selector: Selector
    unit: RateUnit
    amount: int
    interval_ns: int
    burst: int
    per: tuple[str, ...] = ()
    missing_deny: bool = False
    shadow: bool = False
    share: Share = Share.FLEET
    upgrade_text: str = ""
    upgrade_url: str = ""


class ModelRule(msgspec.Struct, frozen=True, kw_only=True):
    """Models allowed or forbidden to a selector; patterns are `provider/model` with `*`."""

    rule_id: str
    selector: Selector
    allow: tuple[str, ...] = ()
    """If any are given, only these models may be used."""
    forbid: tuple[str, ...] = ()
    shadow: bool = False
    upgrade_text: str = ""
    upgrade_url: str = ""


class ModelRef(msgspec.Struct, frozen=True):
    """A model as the catalogue spells it."""

    provider: str
    model: str

    def __str__(self) -> str:
        """Write it as `provider/model`."""
        return f"{self.provider}/{self.model}" if self.provider else self.model


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """A class of models; the policy lists tiers from best to plainest."""

    name: str
    models: tuple[ModelRef, ...] = ()
    relative_cost: Fraction | None = None
    """Cost of an ask at this tier, as a share of what it costs at the first tier."""


class TaskClass(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of work; a critical one keeps its tier and may draw the reserve."""

    name: str
    critical: bool = False
    min_tier: str = ""
    tier: str = ""
    max_output_tokens: int | None = None
    ttl_ns: int = 0
    takes_steps: bool = False
    """A critical class that opts in to cheaper directives and tiers, down to `min_tier`."""


class GrantKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key whose override grants are honoured."""

    key_id: str
    public_key: str
    admin: bool = False


class PolicyPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A price the policy states itself; beats the catalogue where `models` matches.

    `models` is a pattern `provider/model` with `*`. `units` are as in `Price.units`, `minus`
    included. In force in `[from_ns, until_ns)` of wall time. `batch` prices serve batch asks.
    """

    models: str
    units: tuple[UnitPrice, ...]
    from_ns: int = 0
    until_ns: int = NEVER_NS
    batch: bool = False
    context_window: int | None = None


class Discount(msgspec.Struct, frozen=True, kw_only=True):
    """A share off the price of matching models: they cost `(1 - share)` of it."""

    models: str
    share: Fraction
    from_ns: int = 0
    until_ns: int = NEVER_NS


class AllowanceTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets allowances, how large, and for how long."""

    active: bool = True
    selector: Selector = Selector()
    """Whose; the facts are those of the scope."""
    share: Fraction = Fraction(1, 20)
    """Of what is left in a budget, at most so much at once."""
    single_below: Fraction = Fraction(1, 50)
    """A budget that has less than this share of its limit left is drawn call by call."""
    calls_count_max: int = 1_000_000
    lifetime_ns: int = 5_000_000_000


class FailMode(StrEnum):
    """What a daemon does where it lacks a lease and can ask nobody for one."""

    CLOSED = "closed"
    """Refuse."""
    OPEN = "open"
    """Admit, counted as `unadmitted`."""
    SAFE = "safe"
    """Admit so until a small share of the limit is used that way, by each daemon and window."""


class FleetTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How a daemon that has a coordinator gets along with it."""

    fail_mode: FailMode = FailMode.CLOSED
    safe_share: Fraction = Fraction(1, 100)
    """Of a budget's limit, what `SAFE` admits at most."""
    lease_wait_ns: int = 250_000_000
    """The longest an ask waits for the coordinator to lend more."""


class EnvoySource(msgspec.Struct, frozen=True):
    """Where one field of an ask comes from: an entry of the descriptor, or else this value."""

    entry: str = ""
    value: str = ""

    def __str__(self) -> str:
        """Write it for people: `user`, `user or 'nobody'`, `'nobody'`."""
        return " or ".join([self.entry] * bool(self.entry) + [repr(self.value)] * bool(self.value))


class EnvoyRule(msgspec.Struct, frozen=True, kw_only=True):
    """What descriptors of Envoy's say: those of a domain that have these entries."""

    rule_id: str
    domain: str
    selector: Selector = Selector()
    """Over the descriptor's entries."""
    settles: bool = False
    """The call has ended; otherwise it is asked for."""
    request_id: EnvoySource = EnvoySource()
    """What the end of a call has in common with its ask; without it, an ask is charged at once."""
    hits_addend: str = ""
    """What Envoy's `hits_addend` counts, a field of an ask or of its usage; empty for nothing."""
    labels: dict[str, EnvoySource] = {}
    fields: dict[str, EnvoySource] = {}
    """Fields of the ask by name: task_class, model, prompt_tokens, …"""
    estimated_cost_nusd: int | None = None


class PolicySet(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one policy file says."""

    revision: str
    tiers: tuple[Tier, ...] = ()
    task_classes: dict[str, TaskClass] = {}
    default_task_class: str = ""
    default_tier: str = ""
    budgets: tuple[Budget, ...] = ()
    rates: tuple[Rate, ...] = ()
    model_rules: tuple[ModelRule, ...] = ()
    grant_keys: tuple[GrantKey, ...] = ()
    unmatched_allow: bool = False
    unknown_price_assume: ModelRef | None = None
    """Whose price an unknown model is charged at; None denies it."""
    prices: tuple[PolicyPrice, ...] = ()
    discounts: tuple[Discount, ...] = ()
    ttl_ns: int = 600_000_000_000
    ttl_ns_max: int = 86_400_000_000_000
    late_settle_ns: int = 604_800_000_000_000
    shadow: bool = False
    allowance: AllowanceTerms = AllowanceTerms()
    fleet: FleetTerms = FleetTerms()
    envoy: tuple[EnvoyRule, ...] = ()
