import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from costd.wire.pb import admission_pb2 as _admission_pb2
from costd.wire.pb import control_pb2 as _control_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeaseOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_OUTCOME_UNSPECIFIED: _ClassVar[LeaseOutcome]
    LEASE_OUTCOME_GRANTED: _ClassVar[LeaseOutcome]
    LEASE_OUTCOME_EXHAUSTED: _ClassVar[LeaseOutcome]
    LEASE_OUTCOME_RECALLED: _ClassVar[LeaseOutcome]
    LEASE_OUTCOME_NO_BUDGET: _ClassVar[LeaseOutcome]
    LEASE_OUTCOME_WRONG_WINDOW: _ClassVar[LeaseOutcome]
    LEASE_OUTCOME_NOT_NOW: _ClassVar[LeaseOutcome]
    LEASE_OUTCOME_SET_FAILED: _ClassVar[LeaseOutcome]
    LEASE_OUTCOME_BAD_GRANT: _ClassVar[LeaseOutcome]
LEASE_OUTCOME_UNSPECIFIED: LeaseOutcome
LEASE_OUTCOME_GRANTED: LeaseOutcome
LEASE_OUTCOME_EXHAUSTED: LeaseOutcome
LEASE_OUTCOME_RECALLED: LeaseOutcome
LEASE_OUTCOME_NO_BUDGET: LeaseOutcome
LEASE_OUTCOME_WRONG_WINDOW: LeaseOutcome
LEASE_OUTCOME_NOT_NOW: LeaseOutcome
LEASE_OUTCOME_SET_FAILED: LeaseOutcome
LEASE_OUTCOME_BAD_GRANT: LeaseOutcome

class ToCoordinator(_message.Message):
    __slots__ = ("enrol", "request", "report", "usage", "drilled")
    ENROL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    DRILLED_FIELD_NUMBER: _ClassVar[int]
    enrol: Enrol
    request: LeaseRequest
    report: LeaseReport
    usage: UsageBatch
    drilled: DrillConfirmation
    def __init__(self, enrol: _Optional[_Union[Enrol, _Mapping]] = ..., request: _Optional[_Union[LeaseRequest, _Mapping]] = ..., report: _Optional[_Union[LeaseReport, _Mapping]] = ..., usage: _Optional[_Union[UsageBatch, _Mapping]] = ..., drilled: _Optional[_Union[DrillConfirmation, _Mapping]] = ...) -> None: ...

class ToDaemon(_message.Message):
    __slots__ = ("welcome", "reply", "receipt", "stored", "recall", "policy", "kills", "drill", "late")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    KILLS_FIELD_NUMBER: _ClassVar[int]
    DRILL_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    welcome: Admittance
    reply: LeaseReply
    receipt: ReportReceipt
    stored: UsageReceipt
    recall: Recall
    policy: PublishedPolicy
    kills: KillList
    drill: FleetDrill
    late: LateEnrol
    def __init__(self, welcome: _Optional[_Union[Admittance, _Mapping]] = ..., reply: _Optional[_Union[LeaseReply, _Mapping]] = ..., receipt: _Optional[_Union[ReportReceipt, _Mapping]] = ..., stored: _Optional[_Union[UsageReceipt, _Mapping]] = ..., recall: _Optional[_Union[Recall, _Mapping]] = ..., policy: _Optional[_Union[PublishedPolicy, _Mapping]] = ..., kills: _Optional[_Union[KillList, _Mapping]] = ..., drill: _Optional[_Union[FleetDrill, _Mapping]] = ..., late: _Optional[_Union[LateEnrol, _Mapping]] = ...) -> None: ...

class Enrol(_message.Message):
    __slots__ = ("daemon_id", "name", "version", "boot_id", "epoch", "now_ns", "policy_number", "stands", "books_are_old", "usage_sequence", "usage_first_sequence", "heard_epoch", "heard_sequence")
    DAEMON_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NOW_NS_FIELD_NUMBER: _ClassVar[int]
    POLICY_NUMBER_FIELD_NUMBER: _ClassVar[int]
    STANDS_FIELD_NUMBER: _ClassVar[int]
    BOOKS_ARE_OLD_FIELD_NUMBER: _ClassVar[int]
    USAGE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEARD_EPOCH_FIELD_NUMBER: _ClassVar[int]
    HEARD_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    daemon_id: str
    name: str
    version: str
    boot_id: str
    epoch: int
    now_ns: int
    policy_number: int
    stands: _containers.RepeatedCompositeFieldContainer[Stand]
    books_are_old: bool
    usage_sequence: int
    usage_first_sequence: int
    heard_epoch: int
    heard_sequence: int
    def __init__(self, daemon_id: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., boot_id: _Optional[str] = ..., epoch: _Optional[int] = ..., now_ns: _Optional[int] = ..., policy_number: _Optional[int] = ..., stands: _Optional[_Iterable[_Union[Stand, _Mapping]]] = ..., books_are_old: _Optional[bool] = ..., usage_sequence: _Optional[int] = ..., usage_first_sequence: _Optional[int] = ..., heard_epoch: _Optional[int] = ..., heard_sequence: _Optional[int] = ...) -> None: ...

class Admittance(_message.Message):
    __slots__ = ("epoch", "now_ns", "tenure", "usage_sequence", "reclaimed_keys", "levels", "has_forgotten")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NOW_NS_FIELD_NUMBER: _ClassVar[int]
    TENURE_FIELD_NUMBER: _ClassVar[int]
    USAGE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RECLAIMED_KEYS_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    HAS_FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    now_ns: int
    tenure: _duration_pb2.Duration
    usage_sequence: int
    reclaimed_keys: _containers.RepeatedScalarFieldContainer[bytes]
    levels: _containers.RepeatedCompositeFieldContainer[Level]
    has_forgotten: bool
    def __init__(self, epoch: _Optional[int] = ..., now_ns: _Optional[int] = ..., tenure: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., usage_sequence: _Optional[int] = ..., reclaimed_keys: _Optional[_Iterable[bytes]] = ..., levels: _Optional[_Iterable[_Union[Level, _Mapping]]] = ..., has_forgotten: _Optional[bool] = ...) -> None: ...

class LateEnrol(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class Stand(_message.Message):
    __slots__ = ("counter_key", "amount", "reserve_amount", "settled", "reserved", "reserve_settled", "reserve_reserved", "overrun", "granted", "lowered", "late", "unadmitted", "shadow", "version", "unused_ns")
    COUNTER_KEY_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    RESERVE_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    RESERVE_SETTLED_FIELD_NUMBER: _ClassVar[int]
    RESERVE_RESERVED_FIELD_NUMBER: _ClassVar[int]
    OVERRUN_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    LOWERED_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    UNADMITTED_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UNUSED_NS_FIELD_NUMBER: _ClassVar[int]
    counter_key: bytes
    amount: int
    reserve_amount: int
    settled: int
    reserved: int
    reserve_settled: int
    reserve_reserved: int
    overrun: int
    granted: int
    lowered: int
    late: int
    unadmitted: int
    shadow: int
    version: int
    unused_ns: int
    def __init__(self, counter_key: _Optional[bytes] = ..., amount: _Optional[int] = ..., reserve_amount: _Optional[int] = ..., settled: _Optional[int] = ..., reserved: _Optional[int] = ..., reserve_settled: _Optional[int] = ..., reserve_reserved: _Optional[int] = ..., overrun: _Optional[int] = ..., granted: _Optional[int] = ..., lowered: _Optional[int] = ..., late: _Optional[int] = ..., unadmitted: _Optional[int] = ..., shadow: _Optional[int] = ..., version: _Optional[int] = ..., unused_ns: _Optional[int] = ...) -> None: ...

class Want(_message.Message):
    __slots__ = ("stand", "amount_min", "amount_wanted", "critical")
    STAND_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_MIN_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_WANTED_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_FIELD_NUMBER: _ClassVar[int]
    stand: Stand
    amount_min: int
    amount_wanted: int
    critical: bool
    def __init__(self, stand: _Optional[_Union[Stand, _Mapping]] = ..., amount_min: _Optional[int] = ..., amount_wanted: _Optional[int] = ..., critical: _Optional[bool] = ...) -> None: ...

class LeaseRequest(_message.Message):
    __slots__ = ("request_id", "epoch", "wants", "sequence", "ahead", "override_grant", "traceparent", "tracestate")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WANTS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_GRANT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: int
    wants: _containers.RepeatedCompositeFieldContainer[Want]
    sequence: int
    ahead: bool
    override_grant: str
    traceparent: str
    tracestate: str
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[int] = ..., wants: _Optional[_Iterable[_Union[Want, _Mapping]]] = ..., sequence: _Optional[int] = ..., ahead: _Optional[bool] = ..., override_grant: _Optional[str] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("counter_key", "outcome", "amount", "reserve_amount", "level", "version", "unused_ns", "grant_refusal")
    COUNTER_KEY_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    RESERVE_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UNUSED_NS_FIELD_NUMBER: _ClassVar[int]
    GRANT_REFUSAL_FIELD_NUMBER: _ClassVar[int]
    counter_key: bytes
    outcome: LeaseOutcome
    amount: int
    reserve_amount: int
    level: Level
    version: int
    unused_ns: int
    grant_refusal: _admission_pb2.GrantRefusal
    def __init__(self, counter_key: _Optional[bytes] = ..., outcome: _Optional[_Union[LeaseOutcome, str]] = ..., amount: _Optional[int] = ..., reserve_amount: _Optional[int] = ..., level: _Optional[_Union[Level, _Mapping]] = ..., version: _Optional[int] = ..., unused_ns: _Optional[int] = ..., grant_refusal: _Optional[_Union[_admission_pb2.GrantRefusal, str]] = ...) -> None: ...

class Level(_message.Message):
    __slots__ = ("counter_key", "limit", "reserve", "others_used", "others_reserve_used")
    COUNTER_KEY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    OTHERS_USED_FIELD_NUMBER: _ClassVar[int]
    OTHERS_RESERVE_USED_FIELD_NUMBER: _ClassVar[int]
    counter_key: bytes
    limit: int
    reserve: int
    others_used: int
    others_reserve_used: int
    def __init__(self, counter_key: _Optional[bytes] = ..., limit: _Optional[int] = ..., reserve: _Optional[int] = ..., others_used: _Optional[int] = ..., others_reserve_used: _Optional[int] = ...) -> None: ...

class LeaseReply(_message.Message):
    __slots__ = ("request_id", "epoch", "grants", "retry_after", "now_ns")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    NOW_NS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    epoch: int
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    retry_after: _duration_pb2.Duration
    now_ns: int
    def __init__(self, request_id: _Optional[str] = ..., epoch: _Optional[int] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., now_ns: _Optional[int] = ...) -> None: ...

class LeaseReport(_message.Message):
    __slots__ = ("epoch", "sequence", "stands", "policy_number", "policy_problem", "now_ns", "outbox_count", "overspend_bound_nusd", "clients_count", "kills_version")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STANDS_FIELD_NUMBER: _ClassVar[int]
    POLICY_NUMBER_FIELD_NUMBER: _ClassVar[int]
    POLICY_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    NOW_NS_FIELD_NUMBER: _ClassVar[int]
    OUTBOX_COUNT_FIELD_NUMBER: _ClassVar[int]
    OVERSPEND_BOUND_NUSD_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_COUNT_FIELD_NUMBER: _ClassVar[int]
    KILLS_VERSION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    stands: _containers.RepeatedCompositeFieldContainer[Stand]
    policy_number: int
    policy_problem: str
    now_ns: int
    outbox_count: int
    overspend_bound_nusd: int
    clients_count: int
    kills_version: int
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., stands: _Optional[_Iterable[_Union[Stand, _Mapping]]] = ..., policy_number: _Optional[int] = ..., policy_problem: _Optional[str] = ..., now_ns: _Optional[int] = ..., outbox_count: _Optional[int] = ..., overspend_bound_nusd: _Optional[int] = ..., clients_count: _Optional[int] = ..., kills_version: _Optional[int] = ...) -> None: ...

class ReportReceipt(_message.Message):
    __slots__ = ("epoch", "sequence", "tenure", "now_ns", "levels")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TENURE_FIELD_NUMBER: _ClassVar[int]
    NOW_NS_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    tenure: _duration_pb2.Duration
    now_ns: int
    levels: _containers.RepeatedCompositeFieldContainer[Level]
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., tenure: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., now_ns: _Optional[int] = ..., levels: _Optional[_Iterable[_Union[Level, _Mapping]]] = ...) -> None: ...

class Recall(_message.Message):
    __slots__ = ("epoch", "counter_keys")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    COUNTER_KEYS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    counter_keys: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, epoch: _Optional[int] = ..., counter_keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class UsageBatch(_message.Message):
    __slots__ = ("epoch", "events")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    events: _containers.RepeatedCompositeFieldContainer[_control_pb2.UsageEvent]
    def __init__(self, epoch: _Optional[int] = ..., events: _Optional[_Iterable[_Union[_control_pb2.UsageEvent, _Mapping]]] = ...) -> None: ...

class UsageReceipt(_message.Message):
    __slots__ = ("epoch", "sequence")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    sequence: int
    def __init__(self, epoch: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class PublishedPolicy(_message.Message):
    __slots__ = ("number", "revision", "yaml", "actor", "published_ns")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    YAML_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_NS_FIELD_NUMBER: _ClassVar[int]
    number: int
    revision: str
    yaml: str
    actor: str
    published_ns: int
    def __init__(self, number: _Optional[int] = ..., revision: _Optional[str] = ..., yaml: _Optional[str] = ..., actor: _Optional[str] = ..., published_ns: _Optional[int] = ...) -> None: ...

class KillList(_message.Message):
    __slots__ = ("version", "kills")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KILLS_FIELD_NUMBER: _ClassVar[int]
    version: int
    kills: _containers.RepeatedCompositeFieldContainer[FleetKill]
    def __init__(self, version: _Optional[int] = ..., kills: _Optional[_Iterable[_Union[FleetKill, _Mapping]]] = ...) -> None: ...

class FleetKill(_message.Message):
    __slots__ = ("kill", "scope")
    KILL_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    kill: _control_pb2.KillSwitch
    scope: _containers.RepeatedCompositeFieldContainer[ScopeMatch]
    def __init__(self, kill: _Optional[_Union[_control_pb2.KillSwitch, _Mapping]] = ..., scope: _Optional[_Iterable[_Union[ScopeMatch, _Mapping]]] = ...) -> None: ...

class ScopeMatch(_message.Message):
    __slots__ = ("key", "values", "negated")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    NEGATED_FIELD_NUMBER: _ClassVar[int]
    key: str
    values: _containers.RepeatedScalarFieldContainer[str]
    negated: bool
    def __init__(self, key: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ..., negated: _Optional[bool] = ...) -> None: ...

class FleetDrill(_message.Message):
    __slots__ = ("drill_id", "timeout")
    DRILL_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    drill_id: str
    timeout: _duration_pb2.Duration
    def __init__(self, drill_id: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class DrillConfirmation(_message.Message):
    __slots__ = ("drill_id", "clients_count", "unconfirmed_count", "slowest", "finished")
    DRILL_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNCONFIRMED_COUNT_FIELD_NUMBER: _ClassVar[int]
    SLOWEST_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    drill_id: str
    clients_count: int
    unconfirmed_count: int
    slowest: _duration_pb2.Duration
    finished: bool
    def __init__(self, drill_id: _Optional[str] = ..., clients_count: _Optional[int] = ..., unconfirmed_count: _Optional[int] = ..., slowest: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., finished: _Optional[bool] = ...) -> None: ...
