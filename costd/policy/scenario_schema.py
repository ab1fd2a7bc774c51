"""What a file of expected decisions may say; see docs/reference/policy.md."""

from typing import Annotated, Literal

from pydantic import Field, PlainValidator

from costd.model.policy import ModelRef
from costd.policy import amounts, words
from costd.policy.schema import (
    Bool,
    Conditions,
    Duration,
    Id,
    Label,
    LabelKey,
    Moment,
    OptionalMoney,
    Percent,
    Spec,
    Text,
    Url,
)

Tokens = Annotated[int | None, PlainValidator(amounts.read_count)]
Model = Annotated[ModelRef | None, PlainValidator(words.read_model)]
Models = list[Annotated[ModelRef, PlainValidator(words.read_model)]]
Labels = dict[LabelKey, Label]
Units = dict[Id, Annotated[int, PlainValidator(amounts.read_count)]]
VerdictName = Literal["", "allow", "degrade", "deny"]


class AskSpec(Spec):
    """What is asked; fields as in `costd.v1.AdmitRequest`."""

    task_class: Id = ""
    labels: Labels = Field(default_factory=dict)
    model: Model = None
    tier: Id = ""
    prompt_tokens: Tokens = None
    max_output_tokens: Tokens = None
    estimated_cost: OptionalMoney = None
    acceptable_models: Models = Field(default_factory=list)
    ttl: Duration = 0
    batch: Bool = False
    units: Units = Field(default_factory=dict)


class UsageSpec(Spec):
    """What a provider measured, or the cost itself."""

    cost: OptionalMoney = None
    prompt_tokens: Tokens = None
    cached_tokens: Tokens = None
    cache_write_tokens: Tokens = None
    output_tokens: Tokens = None
    reasoning_tokens: Tokens = None
    units: Units = Field(default_factory=dict)


class SpendSpec(UsageSpec):
    """Spend that nobody asked for."""

    task_class: Id = ""
    labels: Labels = Field(default_factory=dict)
    model: Model = None


class SettleSpec(UsageSpec):
    """Which ask to settle, at what."""

    ask: Id


class KillSpec(Spec):
    """A kill switch to engage."""

    id: Id
    scope: Conditions = Field(default_factory=dict)
    mode: Literal["deny_all", "critical_only", "max_tier"] = "deny_all"
    max_tier: Id = ""


class DirectivesSpec(Spec):
    """The directives of a decision, all of them: those left out must not be asked for."""

    max_output_tokens: Tokens = None
    max_retries: Tokens = None
    compression: Bool = False
    cache: Bool = False
    batch: Bool = False


NO_DIRECTIVES_STATED = DirectivesSpec()


class ExpectSpec(Spec):
    """What the decision must say; fields left out may say anything."""

    verdict: VerdictName = ""
    reason: Id = ""
    tier: Id = ""
    model: Model = None
    directives: DirectivesSpec = NO_DIRECTIVES_STATED
    hold: OptionalMoney = None
    rule: Id = ""
    tightest: Id = ""
    threshold: Percent = None
    upgrade: Url = ""
    shadow: VerdictName = ""


class EntrySpec(Spec):
    """One step: when, one action, and for an ask what is expected."""

    at: Moment = None
    as_: Annotated[Id, Field(alias="as")] = ""
    ask: AskSpec = AskSpec()
    spend: SpendSpec = SpendSpec()
    settle: SettleSpec = SettleSpec.model_construct(ask="")
    void: Id = ""
    kill: KillSpec = KillSpec.model_construct(id="")
    release: Annotated[str, PlainValidator(words.read_release)] = ""
    expect: ExpectSpec = ExpectSpec()


class ScenariosSpec(Spec):
    """A file of expected decisions: named timelines, each on a fresh engine."""

    scenarios: dict[Text, list[EntrySpec]]
