import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_ALLOW: _ClassVar[Verdict]
    VERDICT_DEGRADE: _ClassVar[Verdict]
    VERDICT_DENY: _ClassVar[Verdict]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_OK: _ClassVar[Reason]
    REASON_STEP: _ClassVar[Reason]
    REASON_MODEL_FORBIDDEN: _ClassVar[Reason]
    REASON_BUDGET_EXHAUSTED: _ClassVar[Reason]
    REASON_RATE_LIMITED: _ClassVar[Reason]
    REASON_STEP_DENY: _ClassVar[Reason]
    REASON_KILL_SWITCH: _ClassVar[Reason]
    REASON_NO_BUDGET: _ClassVar[Reason]
    REASON_LABEL_MISSING: _ClassVar[Reason]
    REASON_PRICE_UNKNOWN: _ClassVar[Reason]
    REASON_ESTIMATE_MISSING: _ClassVar[Reason]
    REASON_CONTEXT_TOO_LONG: _ClassVar[Reason]
    REASON_GRANT: _ClassVar[Reason]
    REASON_SHADOW: _ClassVar[Reason]
    REASON_NO_CANDIDATE: _ClassVar[Reason]
    REASON_NO_LEASE: _ClassVar[Reason]

class GrantRefusal(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRANT_REFUSAL_UNSPECIFIED: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_MALFORMED: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_BAD_SIGNATURE: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_EXPIRED: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_NOT_YET_VALID: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_WRONG_AUDIENCE: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_WRONG_SCOPE: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_WRONG_CLASS: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_USED_UP: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_AMOUNT_EXCEEDED: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_KILL_SWITCH: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_NOT_NEEDED: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_HARD_RULE: _ClassVar[GrantRefusal]
    GRANT_REFUSAL_NO_LEASE: _ClassVar[GrantRefusal]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_OK: _ClassVar[Outcome]
    OUTCOME_ERROR: _ClassVar[Outcome]
    OUTCOME_CANCELLED: _ClassVar[Outcome]
    OUTCOME_TIMEOUT: _ClassVar[Outcome]

class ReservationState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESERVATION_STATE_UNSPECIFIED: _ClassVar[ReservationState]
    RESERVATION_STATE_HELD: _ClassVar[ReservationState]
    RESERVATION_STATE_SETTLED: _ClassVar[ReservationState]
    RESERVATION_STATE_VOIDED: _ClassVar[ReservationState]
    RESERVATION_STATE_EXPIRED: _ClassVar[ReservationState]

class RevocationReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REVOCATION_REASON_UNSPECIFIED: _ClassVar[RevocationReason]
    REVOCATION_REASON_KILL_SWITCH: _ClassVar[RevocationReason]
    REVOCATION_REASON_POLICY: _ClassVar[RevocationReason]
    REVOCATION_REASON_LIMIT: _ClassVar[RevocationReason]
    REVOCATION_REASON_OPERATOR: _ClassVar[RevocationReason]
VERDICT_UNSPECIFIED: Verdict
VERDICT_ALLOW: Verdict
VERDICT_DEGRADE: Verdict
VERDICT_DENY: Verdict
REASON_UNSPECIFIED: Reason
REASON_OK: Reason
REASON_STEP: Reason
REASON_MODEL_FORBIDDEN: Reason
REASON_BUDGET_EXHAUSTED: Reason
REASON_RATE_LIMITED: Reason
REASON_STEP_DENY: Reason
REASON_KILL_SWITCH: Reason
REASON_NO_BUDGET: Reason
REASON_LABEL_MISSING: Reason
REASON_PRICE_UNKNOWN: Reason
REASON_ESTIMATE_MISSING: Reason
REASON_CONTEXT_TOO_LONG: Reason
REASON_GRANT: Reason
REASON_SHADOW: Reason
REASON_NO_CANDIDATE: Reason
REASON_NO_LEASE: Reason
GRANT_REFUSAL_UNSPECIFIED: GrantRefusal
GRANT_REFUSAL_MALFORMED: GrantRefusal
GRANT_REFUSAL_BAD_SIGNATURE: GrantRefusal
GRANT_REFUSAL_EXPIRED: GrantRefusal
GRANT_REFUSAL_NOT_YET_VALID: GrantRefusal
GRANT_REFUSAL_WRONG_AUDIENCE: GrantRefusal
GRANT_REFUSAL_WRONG_SCOPE: GrantRefusal
GRANT_REFUSAL_WRONG_CLASS: GrantRefusal
GRANT_REFUSAL_USED_UP: GrantRefusal
GRANT_REFUSAL_AMOUNT_EXCEEDED: GrantRefusal
GRANT_REFUSAL_KILL_SWITCH: GrantRefusal
GRANT_REFUSAL_NOT_NEEDED: GrantRefusal
GRANT_REFUSAL_HARD_RULE: GrantRefusal
GRANT_REFUSAL_NO_LEASE: GrantRefusal
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_OK: Outcome
OUTCOME_ERROR: Outcome
OUTCOME_CANCELLED: Outcome
OUTCOME_TIMEOUT: Outcome
RESERVATION_STATE_UNSPECIFIED: ReservationState
RESERVATION_STATE_HELD: ReservationState
RESERVATION_STATE_SETTLED: ReservationState
RESERVATION_STATE_VOIDED: ReservationState
RESERVATION_STATE_EXPIRED: ReservationState
REVOCATION_REASON_UNSPECIFIED: RevocationReason
REVOCATION_REASON_KILL_SWITCH: RevocationReason
REVOCATION_REASON_POLICY: RevocationReason
REVOCATION_REASON_LIMIT: RevocationReason
REVOCATION_REASON_OPERATOR: RevocationReason

class AdmitRequest(_message.Message):
    __slots__ = ("ask_id", "estimated_cost_nusd", "prompt_tokens", "max_output_tokens", "task_class", "labels", "provider", "model", "tier", "acceptable_models", "override_grant", "ttl", "batch", "cost_kind", "units")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class UnitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ASK_ID_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_COST_NUSD_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TASK_CLASS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    ACCEPTABLE_MODELS_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_GRANT_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    COST_KIND_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    ask_id: str
    estimated_cost_nusd: int
    prompt_tokens: int
    max_output_tokens: int
    task_class: str
    labels: _containers.ScalarMap[str, str]
    provider: str
    model: str
    tier: str
    acceptable_models: _containers.RepeatedScalarFieldContainer[str]
    override_grant: str
    ttl: _duration_pb2.Duration
    batch: bool
    cost_kind: str
    units: _containers.ScalarMap[str, int]
    def __init__(self, ask_id: _Optional[str] = ..., estimated_cost_nusd: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., task_class: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., tier: _Optional[str] = ..., acceptable_models: _Optional[_Iterable[str]] = ..., override_grant: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., batch: _Optional[bool] = ..., cost_kind: _Optional[str] = ..., units: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Directives(_message.Message):
    __slots__ = ("max_output_tokens", "max_retries", "compression", "cache", "batch", "stop")
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    max_output_tokens: int
    max_retries: int
    compression: bool
    cache: bool
    batch: bool
    stop: bool
    def __init__(self, max_output_tokens: _Optional[int] = ..., max_retries: _Optional[int] = ..., compression: _Optional[bool] = ..., cache: _Optional[bool] = ..., batch: _Optional[bool] = ..., stop: _Optional[bool] = ...) -> None: ...

class Binding(_message.Message):
    __slots__ = ("rule", "kind", "key", "limit", "used", "unit", "window_start_ns", "window_end_ns", "resets_ns")
    RULE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_START_NS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_END_NS_FIELD_NUMBER: _ClassVar[int]
    RESETS_NS_FIELD_NUMBER: _ClassVar[int]
    rule: str
    kind: str
    key: str
    limit: int
    used: int
    unit: str
    window_start_ns: int
    window_end_ns: int
    resets_ns: int
    def __init__(self, rule: _Optional[str] = ..., kind: _Optional[str] = ..., key: _Optional[str] = ..., limit: _Optional[int] = ..., used: _Optional[int] = ..., unit: _Optional[str] = ..., window_start_ns: _Optional[int] = ..., window_end_ns: _Optional[int] = ..., resets_ns: _Optional[int] = ...) -> None: ...

class WouldPass(_message.Message):
    __slots__ = ("tier", "provider", "model", "amount_nusd")
    TIER_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_NUSD_FIELD_NUMBER: _ClassVar[int]
    tier: str
    provider: str
    model: str
    amount_nusd: int
    def __init__(self, tier: _Optional[str] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., amount_nusd: _Optional[int] = ...) -> None: ...

class PriceSource(_message.Message):
    __slots__ = ("source", "version", "provider", "model", "price_id", "assumed")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRICE_ID_FIELD_NUMBER: _ClassVar[int]
    ASSUMED_FIELD_NUMBER: _ClassVar[int]
    source: str
    version: str
    provider: str
    model: str
    price_id: str
    assumed: bool
    def __init__(self, source: _Optional[str] = ..., version: _Optional[str] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., price_id: _Optional[str] = ..., assumed: _Optional[bool] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("verdict", "reason", "ask_id", "reservation_id", "tier", "provider", "model", "directives", "hold_nusd", "ceiling_nusd", "expires_ns", "tightest_budget", "tightest_key", "utilisation_bp", "threshold_bp", "binding", "would_pass", "upgrade_text", "upgrade_url", "grant_refusal", "grant_id", "shadow_verdict", "shadow_reason", "policy_revision", "price", "replayed", "state", "message", "source", "asked_tier")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ASK_ID_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_ID_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVES_FIELD_NUMBER: _ClassVar[int]
    HOLD_NUSD_FIELD_NUMBER: _ClassVar[int]
    CEILING_NUSD_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    TIGHTEST_BUDGET_FIELD_NUMBER: _ClassVar[int]
    TIGHTEST_KEY_FIELD_NUMBER: _ClassVar[int]
    UTILISATION_BP_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_BP_FIELD_NUMBER: _ClassVar[int]
    BINDING_FIELD_NUMBER: _ClassVar[int]
    WOULD_PASS_FIELD_NUMBER: _ClassVar[int]
    UPGRADE_TEXT_FIELD_NUMBER: _ClassVar[int]
    UPGRADE_URL_FIELD_NUMBER: _ClassVar[int]
    GRANT_REFUSAL_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    SHADOW_VERDICT_FIELD_NUMBER: _ClassVar[int]
    SHADOW_REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ASKED_TIER_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    reason: Reason
    ask_id: str
    reservation_id: str
    tier: str
    provider: str
    model: str
    directives: Directives
    hold_nusd: int
    ceiling_nusd: int
    expires_ns: int
    tightest_budget: str
    tightest_key: str
    utilisation_bp: int
    threshold_bp: int
    binding: Binding
    would_pass: _containers.RepeatedCompositeFieldContainer[WouldPass]
    upgrade_text: str
    upgrade_url: str
    grant_refusal: GrantRefusal
    grant_id: str
    shadow_verdict: Verdict
    shadow_reason: Reason
    policy_revision: str
    price: PriceSource
    replayed: bool
    state: ReservationState
    message: str
    source: str
    asked_tier: str
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., reason: _Optional[_Union[Reason, str]] = ..., ask_id: _Optional[str] = ..., reservation_id: _Optional[str] = ..., tier: _Optional[str] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., directives: _Optional[_Union[Directives, _Mapping]] = ..., hold_nusd: _Optional[int] = ..., ceiling_nusd: _Optional[int] = ..., expires_ns: _Optional[int] = ..., tightest_budget: _Optional[str] = ..., tightest_key: _Optional[str] = ..., utilisation_bp: _Optional[int] = ..., threshold_bp: _Optional[int] = ..., binding: _Optional[_Union[Binding, _Mapping]] = ..., would_pass: _Optional[_Iterable[_Union[WouldPass, _Mapping]]] = ..., upgrade_text: _Optional[str] = ..., upgrade_url: _Optional[str] = ..., grant_refusal: _Optional[_Union[GrantRefusal, str]] = ..., grant_id: _Optional[str] = ..., shadow_verdict: _Optional[_Union[Verdict, str]] = ..., shadow_reason: _Optional[_Union[Reason, str]] = ..., policy_revision: _Optional[str] = ..., price: _Optional[_Union[PriceSource, _Mapping]] = ..., replayed: _Optional[bool] = ..., state: _Optional[_Union[ReservationState, str]] = ..., message: _Optional[str] = ..., source: _Optional[str] = ..., asked_tier: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens", "units")
    class UnitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_WRITE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    units: _containers.ScalarMap[str, int]
    def __init__(self, prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., cache_write_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., reasoning_tokens: _Optional[int] = ..., units: _Optional[_Mapping[str, int]] = ...) -> None: ...

class SettleRequest(_message.Message):
    __slots__ = ("reservation_id", "usage", "cost_nusd", "duration", "outcome", "retry_count", "provider", "model")
    RESERVATION_ID_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    COST_NUSD_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RETRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    reservation_id: str
    usage: Usage
    cost_nusd: int
    duration: _duration_pb2.Duration
    outcome: Outcome
    retry_count: int
    provider: str
    model: str
    def __init__(self, reservation_id: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., cost_nusd: _Optional[int] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., retry_count: _Optional[int] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class Settlement(_message.Message):
    __slots__ = ("reservation_id", "state", "cost_nusd", "hold_nusd", "overrun_nusd", "price", "replayed", "late")
    RESERVATION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COST_NUSD_FIELD_NUMBER: _ClassVar[int]
    HOLD_NUSD_FIELD_NUMBER: _ClassVar[int]
    OVERRUN_NUSD_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    reservation_id: str
    state: ReservationState
    cost_nusd: int
    hold_nusd: int
    overrun_nusd: int
    price: PriceSource
    replayed: bool
    late: bool
    def __init__(self, reservation_id: _Optional[str] = ..., state: _Optional[_Union[ReservationState, str]] = ..., cost_nusd: _Optional[int] = ..., hold_nusd: _Optional[int] = ..., overrun_nusd: _Optional[int] = ..., price: _Optional[_Union[PriceSource, _Mapping]] = ..., replayed: _Optional[bool] = ..., late: _Optional[bool] = ...) -> None: ...

class VoidRequest(_message.Message):
    __slots__ = ("reservation_id",)
    RESERVATION_ID_FIELD_NUMBER: _ClassVar[int]
    reservation_id: str
    def __init__(self, reservation_id: _Optional[str] = ...) -> None: ...

class ExtendRequest(_message.Message):
    __slots__ = ("reservation_id", "additional_cost_nusd", "additional_output_tokens", "ttl", "usage_so_far")
    RESERVATION_ID_FIELD_NUMBER: _ClassVar[int]
    ADDITIONAL_COST_NUSD_FIELD_NUMBER: _ClassVar[int]
    ADDITIONAL_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    USAGE_SO_FAR_FIELD_NUMBER: _ClassVar[int]
    reservation_id: str
    additional_cost_nusd: int
    additional_output_tokens: int
    ttl: _duration_pb2.Duration
    usage_so_far: Usage
    def __init__(self, reservation_id: _Optional[str] = ..., additional_cost_nusd: _Optional[int] = ..., additional_output_tokens: _Optional[int] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., usage_so_far: _Optional[_Union[Usage, _Mapping]] = ...) -> None: ...

class Extension(_message.Message):
    __slots__ = ("reservation_id", "extended", "reason", "directives", "hold_nusd", "expires_ns", "binding", "reported_nusd")
    RESERVATION_ID_FIELD_NUMBER: _ClassVar[int]
    EXTENDED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVES_FIELD_NUMBER: _ClassVar[int]
    HOLD_NUSD_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    BINDING_FIELD_NUMBER: _ClassVar[int]
    REPORTED_NUSD_FIELD_NUMBER: _ClassVar[int]
    reservation_id: str
    extended: bool
    reason: Reason
    directives: Directives
    hold_nusd: int
    expires_ns: int
    binding: Binding
    reported_nusd: int
    def __init__(self, reservation_id: _Optional[str] = ..., extended: _Optional[bool] = ..., reason: _Optional[_Union[Reason, str]] = ..., directives: _Optional[_Union[Directives, _Mapping]] = ..., hold_nusd: _Optional[int] = ..., expires_ns: _Optional[int] = ..., binding: _Optional[_Union[Binding, _Mapping]] = ..., reported_nusd: _Optional[int] = ...) -> None: ...

class RecordRequest(_message.Message):
    __slots__ = ("record_id", "task_class", "labels", "provider", "model", "usage", "cost_nusd", "happened_ns", "duration", "outcome", "retry_count", "cost_kind", "batch")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_CLASS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    COST_NUSD_FIELD_NUMBER: _ClassVar[int]
    HAPPENED_NS_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RETRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    COST_KIND_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    record_id: str
    task_class: str
    labels: _containers.ScalarMap[str, str]
    provider: str
    model: str
    usage: Usage
    cost_nusd: int
    happened_ns: int
    duration: _duration_pb2.Duration
    outcome: Outcome
    retry_count: int
    cost_kind: str
    batch: bool
    def __init__(self, record_id: _Optional[str] = ..., task_class: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., cost_nusd: _Optional[int] = ..., happened_ns: _Optional[int] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., retry_count: _Optional[int] = ..., cost_kind: _Optional[str] = ..., batch: _Optional[bool] = ...) -> None: ...

class ClientMessage(_message.Message):
    __slots__ = ("hello", "request", "report")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    request: AllowanceRequest
    report: Report
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., request: _Optional[_Union[AllowanceRequest, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ...) -> None: ...

class DaemonMessage(_message.Message):
    __slots__ = ("welcome", "grant", "acknowledgement", "revocation", "generation")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGEMENT_FIELD_NUMBER: _ClassVar[int]
    REVOCATION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    grant: AllowanceGrant
    acknowledgement: Acknowledgement
    revocation: Revocation
    generation: Generation
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., grant: _Optional[_Union[AllowanceGrant, _Mapping]] = ..., acknowledgement: _Optional[_Union[Acknowledgement, _Mapping]] = ..., revocation: _Optional[_Union[Revocation, _Mapping]] = ..., generation: _Optional[_Union[Generation, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("session_id", "maps_pages", "held_allowance_ids")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    MAPS_PAGES_FIELD_NUMBER: _ClassVar[int]
    HELD_ALLOWANCE_IDS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    maps_pages: bool
    held_allowance_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., maps_pages: _Optional[bool] = ..., held_allowance_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("scope_labels", "report_sequence", "daemon_page", "client_page", "generation", "good_allowance_ids", "unnamed_allowance_ids")
    SCOPE_LABELS_FIELD_NUMBER: _ClassVar[int]
    REPORT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DAEMON_PAGE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_PAGE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    GOOD_ALLOWANCE_IDS_FIELD_NUMBER: _ClassVar[int]
    UNNAMED_ALLOWANCE_IDS_FIELD_NUMBER: _ClassVar[int]
    scope_labels: _containers.RepeatedScalarFieldContainer[str]
    report_sequence: int
    daemon_page: str
    client_page: str
    generation: int
    good_allowance_ids: _containers.RepeatedScalarFieldContainer[str]
    unnamed_allowance_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, scope_labels: _Optional[_Iterable[str]] = ..., report_sequence: _Optional[int] = ..., daemon_page: _Optional[str] = ..., client_page: _Optional[str] = ..., generation: _Optional[int] = ..., good_allowance_ids: _Optional[_Iterable[str]] = ..., unnamed_allowance_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class AllowanceRequest(_message.Message):
    __slots__ = ("request_id", "typical", "calls_count")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TYPICAL_FIELD_NUMBER: _ClassVar[int]
    CALLS_COUNT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    typical: AdmitRequest
    calls_count: int
    def __init__(self, request_id: _Optional[str] = ..., typical: _Optional[_Union[AdmitRequest, _Mapping]] = ..., calls_count: _Optional[int] = ...) -> None: ...

class AllowanceGrant(_message.Message):
    __slots__ = ("request_id", "allowance", "retry_after")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOWANCE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    allowance: Allowance
    retry_after: _duration_pb2.Duration
    def __init__(self, request_id: _Optional[str] = ..., allowance: _Optional[_Union[Allowance, _Mapping]] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Allowance(_message.Message):
    __slots__ = ("allowance_id", "decision", "amount_nusd", "calls_count", "tokens_count", "lifetime", "call_ttl", "price_table", "context_window", "output_tokens_default", "output_tokens_max", "slot", "serial")
    ALLOWANCE_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_NUSD_FIELD_NUMBER: _ClassVar[int]
    CALLS_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_COUNT_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_FIELD_NUMBER: _ClassVar[int]
    CALL_TTL_FIELD_NUMBER: _ClassVar[int]
    PRICE_TABLE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_WINDOW_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    allowance_id: str
    decision: Decision
    amount_nusd: int
    calls_count: int
    tokens_count: int
    lifetime: _duration_pb2.Duration
    call_ttl: _duration_pb2.Duration
    price_table: PriceTable
    context_window: int
    output_tokens_default: int
    output_tokens_max: int
    slot: int
    serial: int
    def __init__(self, allowance_id: _Optional[str] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ..., amount_nusd: _Optional[int] = ..., calls_count: _Optional[int] = ..., tokens_count: _Optional[int] = ..., lifetime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., call_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., price_table: _Optional[_Union[PriceTable, _Mapping]] = ..., context_window: _Optional[int] = ..., output_tokens_default: _Optional[int] = ..., output_tokens_max: _Optional[int] = ..., slot: _Optional[int] = ..., serial: _Optional[int] = ...) -> None: ...

class PriceTable(_message.Message):
    __slots__ = ("scale", "per_request", "bands")
    SCALE_FIELD_NUMBER: _ClassVar[int]
    PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    BANDS_FIELD_NUMBER: _ClassVar[int]
    scale: int
    per_request: int
    bands: _containers.RepeatedCompositeFieldContainer[PriceBand]
    def __init__(self, scale: _Optional[int] = ..., per_request: _Optional[int] = ..., bands: _Optional[_Iterable[_Union[PriceBand, _Mapping]]] = ...) -> None: ...

class PriceBand(_message.Message):
    __slots__ = ("above_tokens", "input", "output")
    ABOVE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    above_tokens: int
    input: int
    output: int
    def __init__(self, above_tokens: _Optional[int] = ..., input: _Optional[int] = ..., output: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("sequence", "drawn", "settlements", "labels", "returned_allowance_ids", "generation")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DRAWN_FIELD_NUMBER: _ClassVar[int]
    SETTLEMENTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RETURNED_ALLOWANCE_IDS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    drawn: _containers.RepeatedCompositeFieldContainer[Drawn]
    settlements: _containers.RepeatedCompositeFieldContainer[DrawSettlement]
    labels: _containers.RepeatedCompositeFieldContainer[Labels]
    returned_allowance_ids: _containers.RepeatedScalarFieldContainer[str]
    generation: int
    def __init__(self, sequence: _Optional[int] = ..., drawn: _Optional[_Iterable[_Union[Drawn, _Mapping]]] = ..., settlements: _Optional[_Iterable[_Union[DrawSettlement, _Mapping]]] = ..., labels: _Optional[_Iterable[_Union[Labels, _Mapping]]] = ..., returned_allowance_ids: _Optional[_Iterable[str]] = ..., generation: _Optional[int] = ...) -> None: ...

class Drawn(_message.Message):
    __slots__ = ("allowance_id", "calls_count", "amount_nusd", "tokens_count")
    ALLOWANCE_ID_FIELD_NUMBER: _ClassVar[int]
    CALLS_COUNT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_NUSD_FIELD_NUMBER: _ClassVar[int]
    TOKENS_COUNT_FIELD_NUMBER: _ClassVar[int]
    allowance_id: str
    calls_count: int
    amount_nusd: int
    tokens_count: int
    def __init__(self, allowance_id: _Optional[str] = ..., calls_count: _Optional[int] = ..., amount_nusd: _Optional[int] = ..., tokens_count: _Optional[int] = ...) -> None: ...

class Labels(_message.Message):
    __slots__ = ("labels",)
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.ScalarMap[str, str]
    def __init__(self, labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class DrawSettlement(_message.Message):
    __slots__ = ("allowance_id", "ask_id", "hold_nusd", "tokens_count", "voided", "usage", "cost_nusd", "duration", "outcome", "retry_count", "provider", "model", "cost_kind", "labels_index", "prompt_tokens", "max_output_tokens", "settled_ns")
    ALLOWANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ASK_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_NUSD_FIELD_NUMBER: _ClassVar[int]
    TOKENS_COUNT_FIELD_NUMBER: _ClassVar[int]
    VOIDED_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    COST_NUSD_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RETRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COST_KIND_FIELD_NUMBER: _ClassVar[int]
    LABELS_INDEX_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SETTLED_NS_FIELD_NUMBER: _ClassVar[int]
    allowance_id: str
    ask_id: str
    hold_nusd: int
    tokens_count: int
    voided: bool
    usage: Usage
    cost_nusd: int
    duration: _duration_pb2.Duration
    outcome: Outcome
    retry_count: int
    provider: str
    model: str
    cost_kind: str
    labels_index: int
    prompt_tokens: int
    max_output_tokens: int
    settled_ns: int
    def __init__(self, allowance_id: _Optional[str] = ..., ask_id: _Optional[str] = ..., hold_nusd: _Optional[int] = ..., tokens_count: _Optional[int] = ..., voided: _Optional[bool] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., cost_nusd: _Optional[int] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., retry_count: _Optional[int] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., cost_kind: _Optional[str] = ..., labels_index: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., settled_ns: _Optional[int] = ...) -> None: ...

class Acknowledgement(_message.Message):
    __slots__ = ("sequence", "problems")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sequence: _Optional[int] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class Revocation(_message.Message):
    __slots__ = ("allowance_id", "reason")
    ALLOWANCE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    allowance_id: str
    reason: RevocationReason
    def __init__(self, allowance_id: _Optional[str] = ..., reason: _Optional[_Union[RevocationReason, str]] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("generation", "scope_labels", "confirm")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SCOPE_LABELS_FIELD_NUMBER: _ClassVar[int]
    CONFIRM_FIELD_NUMBER: _ClassVar[int]
    generation: int
    scope_labels: _containers.RepeatedScalarFieldContainer[str]
    confirm: bool
    def __init__(self, generation: _Optional[int] = ..., scope_labels: _Optional[_Iterable[str]] = ..., confirm: _Optional[bool] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("decision", "candidates")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    candidates: _containers.RepeatedCompositeFieldContainer[CandidateReport]
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[CandidateReport, _Mapping]]] = ...) -> None: ...

class CandidateReport(_message.Message):
    __slots__ = ("tier", "provider", "model", "hold_nusd", "outcome", "why", "rules")
    TIER_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HOLD_NUSD_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    tier: str
    provider: str
    model: str
    hold_nusd: int
    outcome: str
    why: str
    rules: _containers.RepeatedCompositeFieldContainer[RuleReport]
    def __init__(self, tier: _Optional[str] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., hold_nusd: _Optional[int] = ..., outcome: _Optional[str] = ..., why: _Optional[str] = ..., rules: _Optional[_Iterable[_Union[RuleReport, _Mapping]]] = ...) -> None: ...

class RuleReport(_message.Message):
    __slots__ = ("binding", "passed", "reason", "note")
    BINDING_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    binding: Binding
    passed: bool
    reason: Reason
    note: str
    def __init__(self, binding: _Optional[_Union[Binding, _Mapping]] = ..., passed: _Optional[bool] = ..., reason: _Optional[_Union[Reason, str]] = ..., note: _Optional[str] = ...) -> None: ...
