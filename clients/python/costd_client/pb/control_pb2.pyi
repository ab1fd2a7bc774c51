import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from costd_client.pb import admission_pb2 as _admission_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AllowanceState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALLOWANCE_STATE_UNSPECIFIED: _ClassVar[AllowanceState]
    ALLOWANCE_STATE_OPEN: _ClassVar[AllowanceState]
    ALLOWANCE_STATE_DRAINING: _ClassVar[AllowanceState]
    ALLOWANCE_STATE_REVOKED: _ClassVar[AllowanceState]
ALLOWANCE_STATE_UNSPECIFIED: AllowanceState
ALLOWANCE_STATE_OPEN: AllowanceState
ALLOWANCE_STATE_DRAINING: AllowanceState
ALLOWANCE_STATE_REVOKED: AllowanceState

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Status(_message.Message):
    __slots__ = ("version", "policy_revision", "policy_path", "policy_error", "started_ns", "now_ns", "open_reservations_count", "reserved_nusd", "exposure_nusd", "unknown_ceiling_count", "kills_engaged_count", "decisions", "catalogue_version", "data_dir", "name", "durability", "sessions_attached_count", "allowances_open_count", "allowances_draining_count", "allowances_granted_nusd", "allowances_drawn_nusd", "kill_file_error")
    class DecisionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    POLICY_PATH_FIELD_NUMBER: _ClassVar[int]
    POLICY_ERROR_FIELD_NUMBER: _ClassVar[int]
    STARTED_NS_FIELD_NUMBER: _ClassVar[int]
    NOW_NS_FIELD_NUMBER: _ClassVar[int]
    OPEN_RESERVATIONS_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESERVED_NUSD_FIELD_NUMBER: _ClassVar[int]
    EXPOSURE_NUSD_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_CEILING_COUNT_FIELD_NUMBER: _ClassVar[int]
    KILLS_ENGAGED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_VERSION_FIELD_NUMBER: _ClassVar[int]
    DATA_DIR_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_ATTACHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ALLOWANCES_OPEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    ALLOWANCES_DRAINING_COUNT_FIELD_NUMBER: _ClassVar[int]
    ALLOWANCES_GRANTED_NUSD_FIELD_NUMBER: _ClassVar[int]
    ALLOWANCES_DRAWN_NUSD_FIELD_NUMBER: _ClassVar[int]
    KILL_FILE_ERROR_FIELD_NUMBER: _ClassVar[int]
    version: str
    policy_revision: str
    policy_path: str
    policy_error: str
    started_ns: int
    now_ns: int
    open_reservations_count: int
    reserved_nusd: int
    exposure_nusd: int
    unknown_ceiling_count: int
    kills_engaged_count: int
    decisions: _containers.ScalarMap[str, int]
    catalogue_version: str
    data_dir: str
    name: str
    durability: str
    sessions_attached_count: int
    allowances_open_count: int
    allowances_draining_count: int
    allowances_granted_nusd: int
    allowances_drawn_nusd: int
    kill_file_error: str
    def __init__(self, version: _Optional[str] = ..., policy_revision: _Optional[str] = ..., policy_path: _Optional[str] = ..., policy_error: _Optional[str] = ..., started_ns: _Optional[int] = ..., now_ns: _Optional[int] = ..., open_reservations_count: _Optional[int] = ..., reserved_nusd: _Optional[int] = ..., exposure_nusd: _Optional[int] = ..., unknown_ceiling_count: _Optional[int] = ..., kills_engaged_count: _Optional[int] = ..., decisions: _Optional[_Mapping[str, int]] = ..., catalogue_version: _Optional[str] = ..., data_dir: _Optional[str] = ..., name: _Optional[str] = ..., durability: _Optional[str] = ..., sessions_attached_count: _Optional[int] = ..., allowances_open_count: _Optional[int] = ..., allowances_draining_count: _Optional[int] = ..., allowances_granted_nusd: _Optional[int] = ..., allowances_drawn_nusd: _Optional[int] = ..., kill_file_error: _Optional[str] = ...) -> None: ...

class ListBudgetsRequest(_message.Message):
    __slots__ = ("budget", "include_ended", "limit_count")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_ENDED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    budget: str
    include_ended: bool
    limit_count: int
    def __init__(self, budget: _Optional[str] = ..., include_ended: _Optional[bool] = ..., limit_count: _Optional[int] = ...) -> None: ...

class BudgetStatus(_message.Message):
    __slots__ = ("budget", "key", "unit", "limit", "settled", "reserved", "overrun", "granted", "lowered", "late", "unadmitted", "shadow", "window_start_ns", "window_end_ns", "utilisation_bp", "threshold_bp", "active", "reserve", "reserve_used", "window", "in_policy")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    OVERRUN_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    LOWERED_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    UNADMITTED_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    WINDOW_START_NS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_END_NS_FIELD_NUMBER: _ClassVar[int]
    UTILISATION_BP_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_BP_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    RESERVE_USED_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    IN_POLICY_FIELD_NUMBER: _ClassVar[int]
    budget: str
    key: str
    unit: str
    limit: int
    settled: int
    reserved: int
    overrun: int
    granted: int
    lowered: int
    late: int
    unadmitted: int
    shadow: int
    window_start_ns: int
    window_end_ns: int
    utilisation_bp: int
    threshold_bp: int
    active: bool
    reserve: int
    reserve_used: int
    window: str
    in_policy: bool
    def __init__(self, budget: _Optional[str] = ..., key: _Optional[str] = ..., unit: _Optional[str] = ..., limit: _Optional[int] = ..., settled: _Optional[int] = ..., reserved: _Optional[int] = ..., overrun: _Optional[int] = ..., granted: _Optional[int] = ..., lowered: _Optional[int] = ..., late: _Optional[int] = ..., unadmitted: _Optional[int] = ..., shadow: _Optional[int] = ..., window_start_ns: _Optional[int] = ..., window_end_ns: _Optional[int] = ..., utilisation_bp: _Optional[int] = ..., threshold_bp: _Optional[int] = ..., active: _Optional[bool] = ..., reserve: _Optional[int] = ..., reserve_used: _Optional[int] = ..., window: _Optional[str] = ..., in_policy: _Optional[bool] = ...) -> None: ...

class ListBudgetsResponse(_message.Message):
    __slots__ = ("budgets", "truncated")
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    budgets: _containers.RepeatedCompositeFieldContainer[BudgetStatus]
    truncated: bool
    def __init__(self, budgets: _Optional[_Iterable[_Union[BudgetStatus, _Mapping]]] = ..., truncated: _Optional[bool] = ...) -> None: ...

class ListReservationsRequest(_message.Message):
    __slots__ = ("include_closed", "limit_count", "reservation_id")
    INCLUDE_CLOSED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_ID_FIELD_NUMBER: _ClassVar[int]
    include_closed: bool
    limit_count: int
    reservation_id: str
    def __init__(self, include_closed: _Optional[bool] = ..., limit_count: _Optional[int] = ..., reservation_id: _Optional[str] = ...) -> None: ...

class ReservationStatus(_message.Message):
    __slots__ = ("reservation_id", "ask_id", "caller", "state", "task_class", "labels", "tier", "provider", "model", "hold_nusd", "ceiling_nusd", "reported_nusd", "cost_nusd", "admitted_ns", "expires_ns", "budgets")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RESERVATION_ID_FIELD_NUMBER: _ClassVar[int]
    ASK_ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TASK_CLASS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HOLD_NUSD_FIELD_NUMBER: _ClassVar[int]
    CEILING_NUSD_FIELD_NUMBER: _ClassVar[int]
    REPORTED_NUSD_FIELD_NUMBER: _ClassVar[int]
    COST_NUSD_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_NS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    reservation_id: str
    ask_id: str
    caller: str
    state: _admission_pb2.ReservationState
    task_class: str
    labels: _containers.ScalarMap[str, str]
    tier: str
    provider: str
    model: str
    hold_nusd: int
    ceiling_nusd: int
    reported_nusd: int
    cost_nusd: int
    admitted_ns: int
    expires_ns: int
    budgets: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, reservation_id: _Optional[str] = ..., ask_id: _Optional[str] = ..., caller: _Optional[str] = ..., state: _Optional[_Union[_admission_pb2.ReservationState, str]] = ..., task_class: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., tier: _Optional[str] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., hold_nusd: _Optional[int] = ..., ceiling_nusd: _Optional[int] = ..., reported_nusd: _Optional[int] = ..., cost_nusd: _Optional[int] = ..., admitted_ns: _Optional[int] = ..., expires_ns: _Optional[int] = ..., budgets: _Optional[_Iterable[str]] = ...) -> None: ...

class ListReservationsResponse(_message.Message):
    __slots__ = ("reservations", "truncated")
    RESERVATIONS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    reservations: _containers.RepeatedCompositeFieldContainer[ReservationStatus]
    truncated: bool
    def __init__(self, reservations: _Optional[_Iterable[_Union[ReservationStatus, _Mapping]]] = ..., truncated: _Optional[bool] = ...) -> None: ...

class ListUsageRequest(_message.Message):
    __slots__ = ("group_by", "since_ns", "until_ns", "where", "limit_count")
    class WhereEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_NS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    group_by: _containers.RepeatedScalarFieldContainer[str]
    since_ns: int
    until_ns: int
    where: _containers.ScalarMap[str, str]
    limit_count: int
    def __init__(self, group_by: _Optional[_Iterable[str]] = ..., since_ns: _Optional[int] = ..., until_ns: _Optional[int] = ..., where: _Optional[_Mapping[str, str]] = ..., limit_count: _Optional[int] = ...) -> None: ...

class UsageEvent(_message.Message):
    __slots__ = ("sequence", "reservation_id", "ask_id", "task_class", "labels", "tier", "provider", "model", "cost_kind", "usage", "cost_nusd", "hold_nusd", "admitted_ns", "settled_ns", "duration_ns", "outcome", "retry_count", "reason", "price", "closed_as", "calls_count", "verdict")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_ID_FIELD_NUMBER: _ClassVar[int]
    ASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_CLASS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COST_KIND_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    COST_NUSD_FIELD_NUMBER: _ClassVar[int]
    HOLD_NUSD_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_NS_FIELD_NUMBER: _ClassVar[int]
    SETTLED_NS_FIELD_NUMBER: _ClassVar[int]
    DURATION_NS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RETRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    CLOSED_AS_FIELD_NUMBER: _ClassVar[int]
    CALLS_COUNT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    reservation_id: str
    ask_id: str
    task_class: str
    labels: _containers.ScalarMap[str, str]
    tier: str
    provider: str
    model: str
    cost_kind: str
    usage: _admission_pb2.Usage
    cost_nusd: int
    hold_nusd: int
    admitted_ns: int
    settled_ns: int
    duration_ns: int
    outcome: _admission_pb2.Outcome
    retry_count: int
    reason: _admission_pb2.Reason
    price: _admission_pb2.PriceSource
    closed_as: str
    calls_count: int
    verdict: _admission_pb2.Verdict
    def __init__(self, sequence: _Optional[int] = ..., reservation_id: _Optional[str] = ..., ask_id: _Optional[str] = ..., task_class: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., tier: _Optional[str] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., cost_kind: _Optional[str] = ..., usage: _Optional[_Union[_admission_pb2.Usage, _Mapping]] = ..., cost_nusd: _Optional[int] = ..., hold_nusd: _Optional[int] = ..., admitted_ns: _Optional[int] = ..., settled_ns: _Optional[int] = ..., duration_ns: _Optional[int] = ..., outcome: _Optional[_Union[_admission_pb2.Outcome, str]] = ..., retry_count: _Optional[int] = ..., reason: _Optional[_Union[_admission_pb2.Reason, str]] = ..., price: _Optional[_Union[_admission_pb2.PriceSource, _Mapping]] = ..., closed_as: _Optional[str] = ..., calls_count: _Optional[int] = ..., verdict: _Optional[_Union[_admission_pb2.Verdict, str]] = ...) -> None: ...

class UsageGroup(_message.Message):
    __slots__ = ("by", "calls_count", "cost_nusd", "prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "retry_count")
    class ByEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    BY_FIELD_NUMBER: _ClassVar[int]
    CALLS_COUNT_FIELD_NUMBER: _ClassVar[int]
    COST_NUSD_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RETRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    by: _containers.ScalarMap[str, str]
    calls_count: int
    cost_nusd: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    retry_count: int
    def __init__(self, by: _Optional[_Mapping[str, str]] = ..., calls_count: _Optional[int] = ..., cost_nusd: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., reasoning_tokens: _Optional[int] = ..., retry_count: _Optional[int] = ...) -> None: ...

class ListUsageResponse(_message.Message):
    __slots__ = ("events", "groups", "truncated")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[UsageEvent]
    groups: _containers.RepeatedCompositeFieldContainer[UsageGroup]
    truncated: bool
    def __init__(self, events: _Optional[_Iterable[_Union[UsageEvent, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[UsageGroup, _Mapping]]] = ..., truncated: _Optional[bool] = ...) -> None: ...

class ListAlertsRequest(_message.Message):
    __slots__ = ("limit_count", "since_ns")
    LIMIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    limit_count: int
    since_ns: int
    def __init__(self, limit_count: _Optional[int] = ..., since_ns: _Optional[int] = ...) -> None: ...

class Alert(_message.Message):
    __slots__ = ("sequence", "raised_ns", "kind", "rule", "key", "threshold_bp", "utilisation_bp", "message", "amount_nusd")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RAISED_NS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_BP_FIELD_NUMBER: _ClassVar[int]
    UTILISATION_BP_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_NUSD_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    raised_ns: int
    kind: str
    rule: str
    key: str
    threshold_bp: int
    utilisation_bp: int
    message: str
    amount_nusd: int
    def __init__(self, sequence: _Optional[int] = ..., raised_ns: _Optional[int] = ..., kind: _Optional[str] = ..., rule: _Optional[str] = ..., key: _Optional[str] = ..., threshold_bp: _Optional[int] = ..., utilisation_bp: _Optional[int] = ..., message: _Optional[str] = ..., amount_nusd: _Optional[int] = ...) -> None: ...

class ListAlertsResponse(_message.Message):
    __slots__ = ("alerts", "truncated")
    ALERTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    alerts: _containers.RepeatedCompositeFieldContainer[Alert]
    truncated: bool
    def __init__(self, alerts: _Optional[_Iterable[_Union[Alert, _Mapping]]] = ..., truncated: _Optional[bool] = ...) -> None: ...

class ListAuditRequest(_message.Message):
    __slots__ = ("limit_count", "since_ns")
    LIMIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    limit_count: int
    since_ns: int
    def __init__(self, limit_count: _Optional[int] = ..., since_ns: _Optional[int] = ...) -> None: ...

class AuditRecord(_message.Message):
    __slots__ = ("sequence", "at_ns", "actor", "action", "subject", "detail", "count", "task_class", "reason")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AT_NS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TASK_CLASS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    at_ns: int
    actor: str
    action: str
    subject: str
    detail: str
    count: int
    task_class: str
    reason: _admission_pb2.Reason
    def __init__(self, sequence: _Optional[int] = ..., at_ns: _Optional[int] = ..., actor: _Optional[str] = ..., action: _Optional[str] = ..., subject: _Optional[str] = ..., detail: _Optional[str] = ..., count: _Optional[int] = ..., task_class: _Optional[str] = ..., reason: _Optional[_Union[_admission_pb2.Reason, str]] = ...) -> None: ...

class ListAuditResponse(_message.Message):
    __slots__ = ("records", "truncated")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[AuditRecord]
    truncated: bool
    def __init__(self, records: _Optional[_Iterable[_Union[AuditRecord, _Mapping]]] = ..., truncated: _Optional[bool] = ...) -> None: ...

class KillSwitch(_message.Message):
    __slots__ = ("kill_id", "scope", "mode", "max_tier", "reason", "actor", "engaged_ns", "releases_ns", "released_ns", "released_by", "engaged")
    class ScopeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KILL_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MAX_TIER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ENGAGED_NS_FIELD_NUMBER: _ClassVar[int]
    RELEASES_NS_FIELD_NUMBER: _ClassVar[int]
    RELEASED_NS_FIELD_NUMBER: _ClassVar[int]
    RELEASED_BY_FIELD_NUMBER: _ClassVar[int]
    ENGAGED_FIELD_NUMBER: _ClassVar[int]
    kill_id: str
    scope: _containers.ScalarMap[str, str]
    mode: str
    max_tier: str
    reason: str
    actor: str
    engaged_ns: int
    releases_ns: int
    released_ns: int
    released_by: str
    engaged: bool
    def __init__(self, kill_id: _Optional[str] = ..., scope: _Optional[_Mapping[str, str]] = ..., mode: _Optional[str] = ..., max_tier: _Optional[str] = ..., reason: _Optional[str] = ..., actor: _Optional[str] = ..., engaged_ns: _Optional[int] = ..., releases_ns: _Optional[int] = ..., released_ns: _Optional[int] = ..., released_by: _Optional[str] = ..., engaged: _Optional[bool] = ...) -> None: ...

class EngageKillRequest(_message.Message):
    __slots__ = ("kill_id", "scope", "mode", "max_tier", "reason", "actor", "release_after")
    class ScopeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KILL_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MAX_TIER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    RELEASE_AFTER_FIELD_NUMBER: _ClassVar[int]
    kill_id: str
    scope: _containers.ScalarMap[str, str]
    mode: str
    max_tier: str
    reason: str
    actor: str
    release_after: _duration_pb2.Duration
    def __init__(self, kill_id: _Optional[str] = ..., scope: _Optional[_Mapping[str, str]] = ..., mode: _Optional[str] = ..., max_tier: _Optional[str] = ..., reason: _Optional[str] = ..., actor: _Optional[str] = ..., release_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ReleaseKillRequest(_message.Message):
    __slots__ = ("kill_id", "actor", "reason")
    KILL_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    kill_id: str
    actor: str
    reason: str
    def __init__(self, kill_id: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ListKillsRequest(_message.Message):
    __slots__ = ("include_released",)
    INCLUDE_RELEASED_FIELD_NUMBER: _ClassVar[int]
    include_released: bool
    def __init__(self, include_released: _Optional[bool] = ...) -> None: ...

class ListKillsResponse(_message.Message):
    __slots__ = ("kills",)
    KILLS_FIELD_NUMBER: _ClassVar[int]
    kills: _containers.RepeatedCompositeFieldContainer[KillSwitch]
    def __init__(self, kills: _Optional[_Iterable[_Union[KillSwitch, _Mapping]]] = ...) -> None: ...

class DrillRequest(_message.Message):
    __slots__ = ("scope", "reason", "actor", "timeout")
    class ScopeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    scope: _containers.ScalarMap[str, str]
    reason: str
    actor: str
    timeout: _duration_pb2.Duration
    def __init__(self, scope: _Optional[_Mapping[str, str]] = ..., reason: _Optional[str] = ..., actor: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class DrillReport(_message.Message):
    __slots__ = ("drill_id", "generation", "written_ns", "attached_count", "confirmed_count", "p50_ns", "max_ns", "processes", "note")
    DRILL_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_NS_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_COUNT_FIELD_NUMBER: _ClassVar[int]
    P50_NS_FIELD_NUMBER: _ClassVar[int]
    MAX_NS_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    drill_id: str
    generation: int
    written_ns: int
    attached_count: int
    confirmed_count: int
    p50_ns: int
    max_ns: int
    processes: _containers.RepeatedCompositeFieldContainer[DrilledProcess]
    note: str
    def __init__(self, drill_id: _Optional[str] = ..., generation: _Optional[int] = ..., written_ns: _Optional[int] = ..., attached_count: _Optional[int] = ..., confirmed_count: _Optional[int] = ..., p50_ns: _Optional[int] = ..., max_ns: _Optional[int] = ..., processes: _Optional[_Iterable[_Union[DrilledProcess, _Mapping]]] = ..., note: _Optional[str] = ...) -> None: ...

class DrilledProcess(_message.Message):
    __slots__ = ("session_id", "caller", "confirmed_ns", "attached", "left", "allowances_count")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_NS_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    ALLOWANCES_COUNT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    caller: str
    confirmed_ns: int
    attached: bool
    left: bool
    allowances_count: int
    def __init__(self, session_id: _Optional[str] = ..., caller: _Optional[str] = ..., confirmed_ns: _Optional[int] = ..., attached: _Optional[bool] = ..., left: _Optional[bool] = ..., allowances_count: _Optional[int] = ...) -> None: ...

class ListGrantsRequest(_message.Message):
    __slots__ = ("include_expired",)
    INCLUDE_EXPIRED_FIELD_NUMBER: _ClassVar[int]
    include_expired: bool
    def __init__(self, include_expired: _Optional[bool] = ...) -> None: ...

class GrantStatus(_message.Message):
    __slots__ = ("grant_id", "subject", "issuer", "uses_count", "uses_max_count", "used_nusd", "amount_nusd", "expires_ns", "holders")
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    USES_COUNT_FIELD_NUMBER: _ClassVar[int]
    USES_MAX_COUNT_FIELD_NUMBER: _ClassVar[int]
    USED_NUSD_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_NUSD_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    grant_id: str
    subject: str
    issuer: str
    uses_count: int
    uses_max_count: int
    used_nusd: int
    amount_nusd: int
    expires_ns: int
    holders: _containers.RepeatedCompositeFieldContainer[GrantHolder]
    def __init__(self, grant_id: _Optional[str] = ..., subject: _Optional[str] = ..., issuer: _Optional[str] = ..., uses_count: _Optional[int] = ..., uses_max_count: _Optional[int] = ..., used_nusd: _Optional[int] = ..., amount_nusd: _Optional[int] = ..., expires_ns: _Optional[int] = ..., holders: _Optional[_Iterable[_Union[GrantHolder, _Mapping]]] = ...) -> None: ...

class GrantHolder(_message.Message):
    __slots__ = ("daemon", "uses_count", "used_nusd", "unleased_count", "unused_nusd")
    DAEMON_FIELD_NUMBER: _ClassVar[int]
    USES_COUNT_FIELD_NUMBER: _ClassVar[int]
    USED_NUSD_FIELD_NUMBER: _ClassVar[int]
    UNLEASED_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNUSED_NUSD_FIELD_NUMBER: _ClassVar[int]
    daemon: str
    uses_count: int
    used_nusd: int
    unleased_count: int
    unused_nusd: int
    def __init__(self, daemon: _Optional[str] = ..., uses_count: _Optional[int] = ..., used_nusd: _Optional[int] = ..., unleased_count: _Optional[int] = ..., unused_nusd: _Optional[int] = ...) -> None: ...

class ListGrantsResponse(_message.Message):
    __slots__ = ("grants",)
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[GrantStatus]
    def __init__(self, grants: _Optional[_Iterable[_Union[GrantStatus, _Mapping]]] = ...) -> None: ...

class ListAllowancesRequest(_message.Message):
    __slots__ = ("limit_count",)
    LIMIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    limit_count: int
    def __init__(self, limit_count: _Optional[int] = ...) -> None: ...

class AllowanceSums(_message.Message):
    __slots__ = ("calls_count", "amount_nusd", "tokens_count")
    CALLS_COUNT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_NUSD_FIELD_NUMBER: _ClassVar[int]
    TOKENS_COUNT_FIELD_NUMBER: _ClassVar[int]
    calls_count: int
    amount_nusd: int
    tokens_count: int
    def __init__(self, calls_count: _Optional[int] = ..., amount_nusd: _Optional[int] = ..., tokens_count: _Optional[int] = ...) -> None: ...

class AllowanceStatus(_message.Message):
    __slots__ = ("allowance_id", "session_id", "caller", "attached", "state", "task_class", "provider", "model", "tier", "labels", "granted", "drawn", "settled", "reserved_nusd", "expires_ns", "maps_pages", "presumed")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ALLOWANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TASK_CLASS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    DRAWN_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    RESERVED_NUSD_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    MAPS_PAGES_FIELD_NUMBER: _ClassVar[int]
    PRESUMED_FIELD_NUMBER: _ClassVar[int]
    allowance_id: str
    session_id: str
    caller: str
    attached: bool
    state: AllowanceState
    task_class: str
    provider: str
    model: str
    tier: str
    labels: _containers.ScalarMap[str, str]
    granted: AllowanceSums
    drawn: AllowanceSums
    settled: AllowanceSums
    reserved_nusd: int
    expires_ns: int
    maps_pages: bool
    presumed: bool
    def __init__(self, allowance_id: _Optional[str] = ..., session_id: _Optional[str] = ..., caller: _Optional[str] = ..., attached: _Optional[bool] = ..., state: _Optional[_Union[AllowanceState, str]] = ..., task_class: _Optional[str] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., tier: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., granted: _Optional[_Union[AllowanceSums, _Mapping]] = ..., drawn: _Optional[_Union[AllowanceSums, _Mapping]] = ..., settled: _Optional[_Union[AllowanceSums, _Mapping]] = ..., reserved_nusd: _Optional[int] = ..., expires_ns: _Optional[int] = ..., maps_pages: _Optional[bool] = ..., presumed: _Optional[bool] = ...) -> None: ...

class ListAllowancesResponse(_message.Message):
    __slots__ = ("allowances", "truncated")
    ALLOWANCES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    allowances: _containers.RepeatedCompositeFieldContainer[AllowanceStatus]
    truncated: bool
    def __init__(self, allowances: _Optional[_Iterable[_Union[AllowanceStatus, _Mapping]]] = ..., truncated: _Optional[bool] = ...) -> None: ...

class RevokeAllowanceRequest(_message.Message):
    __slots__ = ("allowance_id", "actor", "reason")
    ALLOWANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    allowance_id: str
    actor: str
    reason: str
    def __init__(self, allowance_id: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RevokeAllowanceResponse(_message.Message):
    __slots__ = ("allowance",)
    ALLOWANCE_FIELD_NUMBER: _ClassVar[int]
    allowance: AllowanceStatus
    def __init__(self, allowance: _Optional[_Union[AllowanceStatus, _Mapping]] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Policy(_message.Message):
    __slots__ = ("revision", "path", "yaml", "loaded_ns", "critical_classes")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    YAML_FIELD_NUMBER: _ClassVar[int]
    LOADED_NS_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_CLASSES_FIELD_NUMBER: _ClassVar[int]
    revision: str
    path: str
    yaml: str
    loaded_ns: int
    critical_classes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, revision: _Optional[str] = ..., path: _Optional[str] = ..., yaml: _Optional[str] = ..., loaded_ns: _Optional[int] = ..., critical_classes: _Optional[_Iterable[str]] = ...) -> None: ...

class ReloadPolicyRequest(_message.Message):
    __slots__ = ("actor",)
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    actor: str
    def __init__(self, actor: _Optional[str] = ...) -> None: ...
