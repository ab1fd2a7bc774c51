import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListDaemonsRequest(_message.Message):
    __slots__ = ("limit_count",)
    LIMIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    limit_count: int
    def __init__(self, limit_count: _Optional[int] = ...) -> None: ...

class DaemonStatus(_message.Message):
    __slots__ = ("daemon_id", "name", "version", "attached", "epoch", "seen_ns", "tenure_ends_ns", "policy_number", "policy_problem", "clock_offset_ns", "outbox_count", "clients_count", "leased_nusd", "presumed_nusd", "overspend_bound_nusd", "kills_current")
    DAEMON_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEEN_NS_FIELD_NUMBER: _ClassVar[int]
    TENURE_ENDS_NS_FIELD_NUMBER: _ClassVar[int]
    POLICY_NUMBER_FIELD_NUMBER: _ClassVar[int]
    POLICY_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    CLOCK_OFFSET_NS_FIELD_NUMBER: _ClassVar[int]
    OUTBOX_COUNT_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEASED_NUSD_FIELD_NUMBER: _ClassVar[int]
    PRESUMED_NUSD_FIELD_NUMBER: _ClassVar[int]
    OVERSPEND_BOUND_NUSD_FIELD_NUMBER: _ClassVar[int]
    KILLS_CURRENT_FIELD_NUMBER: _ClassVar[int]
    daemon_id: str
    name: str
    version: str
    attached: bool
    epoch: int
    seen_ns: int
    tenure_ends_ns: int
    policy_number: int
    policy_problem: str
    clock_offset_ns: int
    outbox_count: int
    clients_count: int
    leased_nusd: int
    presumed_nusd: int
    overspend_bound_nusd: int
    kills_current: bool
    def __init__(self, daemon_id: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., attached: _Optional[bool] = ..., epoch: _Optional[int] = ..., seen_ns: _Optional[int] = ..., tenure_ends_ns: _Optional[int] = ..., policy_number: _Optional[int] = ..., policy_problem: _Optional[str] = ..., clock_offset_ns: _Optional[int] = ..., outbox_count: _Optional[int] = ..., clients_count: _Optional[int] = ..., leased_nusd: _Optional[int] = ..., presumed_nusd: _Optional[int] = ..., overspend_bound_nusd: _Optional[int] = ..., kills_current: _Optional[bool] = ...) -> None: ...

class ListDaemonsResponse(_message.Message):
    __slots__ = ("daemons", "truncated", "overspend_bound_nusd", "policy_number", "kills_version", "coordinators")
    DAEMONS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    OVERSPEND_BOUND_NUSD_FIELD_NUMBER: _ClassVar[int]
    POLICY_NUMBER_FIELD_NUMBER: _ClassVar[int]
    KILLS_VERSION_FIELD_NUMBER: _ClassVar[int]
    COORDINATORS_FIELD_NUMBER: _ClassVar[int]
    daemons: _containers.RepeatedCompositeFieldContainer[DaemonStatus]
    truncated: bool
    overspend_bound_nusd: int
    policy_number: int
    kills_version: int
    coordinators: _containers.RepeatedCompositeFieldContainer[CoordinatorStatus]
    def __init__(self, daemons: _Optional[_Iterable[_Union[DaemonStatus, _Mapping]]] = ..., truncated: _Optional[bool] = ..., overspend_bound_nusd: _Optional[int] = ..., policy_number: _Optional[int] = ..., kills_version: _Optional[int] = ..., coordinators: _Optional[_Iterable[_Union[CoordinatorStatus, _Mapping]]] = ...) -> None: ...

class CoordinatorStatus(_message.Message):
    __slots__ = ("instance_id", "version", "address", "seen_ns")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SEEN_NS_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    version: str
    address: str
    seen_ns: int
    def __init__(self, instance_id: _Optional[str] = ..., version: _Optional[str] = ..., address: _Optional[str] = ..., seen_ns: _Optional[int] = ...) -> None: ...

class ListLeasesRequest(_message.Message):
    __slots__ = ("budget", "daemon", "include_ended", "limit_count")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    DAEMON_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_ENDED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    budget: str
    daemon: str
    include_ended: bool
    limit_count: int
    def __init__(self, budget: _Optional[str] = ..., daemon: _Optional[str] = ..., include_ended: _Optional[bool] = ..., limit_count: _Optional[int] = ...) -> None: ...

class LeaseStatus(_message.Message):
    __slots__ = ("budget", "key", "unit", "window_end_ns", "daemon", "daemon_id", "amount", "settled", "reserved", "unused", "reserve_amount", "presumed", "tenure_ends_ns", "lost")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_END_NS_FIELD_NUMBER: _ClassVar[int]
    DAEMON_FIELD_NUMBER: _ClassVar[int]
    DAEMON_ID_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    UNUSED_FIELD_NUMBER: _ClassVar[int]
    RESERVE_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    PRESUMED_FIELD_NUMBER: _ClassVar[int]
    TENURE_ENDS_NS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    budget: str
    key: str
    unit: str
    window_end_ns: int
    daemon: str
    daemon_id: str
    amount: int
    settled: int
    reserved: int
    unused: int
    reserve_amount: int
    presumed: bool
    tenure_ends_ns: int
    lost: int
    def __init__(self, budget: _Optional[str] = ..., key: _Optional[str] = ..., unit: _Optional[str] = ..., window_end_ns: _Optional[int] = ..., daemon: _Optional[str] = ..., daemon_id: _Optional[str] = ..., amount: _Optional[int] = ..., settled: _Optional[int] = ..., reserved: _Optional[int] = ..., unused: _Optional[int] = ..., reserve_amount: _Optional[int] = ..., presumed: _Optional[bool] = ..., tenure_ends_ns: _Optional[int] = ..., lost: _Optional[int] = ...) -> None: ...

class ListLeasesResponse(_message.Message):
    __slots__ = ("leases", "truncated")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[LeaseStatus]
    truncated: bool
    def __init__(self, leases: _Optional[_Iterable[_Union[LeaseStatus, _Mapping]]] = ..., truncated: _Optional[bool] = ...) -> None: ...

class ReclaimLeasesRequest(_message.Message):
    __slots__ = ("daemon", "budget", "actor", "reason")
    DAEMON_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    daemon: str
    budget: str
    actor: str
    reason: str
    def __init__(self, daemon: _Optional[str] = ..., budget: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ReclaimLeasesResponse(_message.Message):
    __slots__ = ("leases", "reclaimed_nusd")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    RECLAIMED_NUSD_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[LeaseStatus]
    reclaimed_nusd: int
    def __init__(self, leases: _Optional[_Iterable[_Union[LeaseStatus, _Mapping]]] = ..., reclaimed_nusd: _Optional[int] = ...) -> None: ...

class TopUpBudgetRequest(_message.Message):
    __slots__ = ("budget", "key", "amount", "top_up_id", "actor", "reason")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    TOP_UP_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    budget: str
    key: str
    amount: int
    top_up_id: str
    actor: str
    reason: str
    def __init__(self, budget: _Optional[str] = ..., key: _Optional[str] = ..., amount: _Optional[int] = ..., top_up_id: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class TopUpBudgetResponse(_message.Message):
    __slots__ = ("limit", "topped_up", "window_end_ns")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    TOPPED_UP_FIELD_NUMBER: _ClassVar[int]
    WINDOW_END_NS_FIELD_NUMBER: _ClassVar[int]
    limit: int
    topped_up: int
    window_end_ns: int
    def __init__(self, limit: _Optional[int] = ..., topped_up: _Optional[int] = ..., window_end_ns: _Optional[int] = ...) -> None: ...

class PublishPolicyRequest(_message.Message):
    __slots__ = ("yaml", "actor", "note", "after_number")
    YAML_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    AFTER_NUMBER_FIELD_NUMBER: _ClassVar[int]
    yaml: str
    actor: str
    note: str
    after_number: int
    def __init__(self, yaml: _Optional[str] = ..., actor: _Optional[str] = ..., note: _Optional[str] = ..., after_number: _Optional[int] = ...) -> None: ...

class PolicyVersion(_message.Message):
    __slots__ = ("number", "revision", "yaml", "actor", "published_ns", "note", "daemons_count")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    YAML_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_NS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    DAEMONS_COUNT_FIELD_NUMBER: _ClassVar[int]
    number: int
    revision: str
    yaml: str
    actor: str
    published_ns: int
    note: str
    daemons_count: int
    def __init__(self, number: _Optional[int] = ..., revision: _Optional[str] = ..., yaml: _Optional[str] = ..., actor: _Optional[str] = ..., published_ns: _Optional[int] = ..., note: _Optional[str] = ..., daemons_count: _Optional[int] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ("number", "limit_count")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    number: int
    limit_count: int
    def __init__(self, number: _Optional[int] = ..., limit_count: _Optional[int] = ...) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies", "truncated")
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[PolicyVersion]
    truncated: bool
    def __init__(self, policies: _Optional[_Iterable[_Union[PolicyVersion, _Mapping]]] = ..., truncated: _Optional[bool] = ...) -> None: ...

class RollbackPolicyRequest(_message.Message):
    __slots__ = ("number", "actor", "note")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    number: int
    actor: str
    note: str
    def __init__(self, number: _Optional[int] = ..., actor: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class DrillFleetRequest(_message.Message):
    __slots__ = ("reason", "actor", "timeout")
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    actor: str
    timeout: _duration_pb2.Duration
    def __init__(self, reason: _Optional[str] = ..., actor: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class FleetDrillReport(_message.Message):
    __slots__ = ("drill_id", "daemons_count", "confirmed_count", "p50_ns", "p99_ns", "max_ns", "clients_count", "unconfirmed_clients_count", "clients_max_ns", "daemons", "elsewhere_count")
    DRILL_ID_FIELD_NUMBER: _ClassVar[int]
    DAEMONS_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_COUNT_FIELD_NUMBER: _ClassVar[int]
    P50_NS_FIELD_NUMBER: _ClassVar[int]
    P99_NS_FIELD_NUMBER: _ClassVar[int]
    MAX_NS_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNCONFIRMED_CLIENTS_COUNT_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_MAX_NS_FIELD_NUMBER: _ClassVar[int]
    DAEMONS_FIELD_NUMBER: _ClassVar[int]
    ELSEWHERE_COUNT_FIELD_NUMBER: _ClassVar[int]
    drill_id: str
    daemons_count: int
    confirmed_count: int
    p50_ns: int
    p99_ns: int
    max_ns: int
    clients_count: int
    unconfirmed_clients_count: int
    clients_max_ns: int
    daemons: _containers.RepeatedCompositeFieldContainer[DrilledDaemon]
    elsewhere_count: int
    def __init__(self, drill_id: _Optional[str] = ..., daemons_count: _Optional[int] = ..., confirmed_count: _Optional[int] = ..., p50_ns: _Optional[int] = ..., p99_ns: _Optional[int] = ..., max_ns: _Optional[int] = ..., clients_count: _Optional[int] = ..., unconfirmed_clients_count: _Optional[int] = ..., clients_max_ns: _Optional[int] = ..., daemons: _Optional[_Iterable[_Union[DrilledDaemon, _Mapping]]] = ..., elsewhere_count: _Optional[int] = ...) -> None: ...

class DrilledDaemon(_message.Message):
    __slots__ = ("name", "daemon_id", "heard_ns", "clients_count", "unconfirmed_clients_count", "clients_max_ns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DAEMON_ID_FIELD_NUMBER: _ClassVar[int]
    HEARD_NS_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNCONFIRMED_CLIENTS_COUNT_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_MAX_NS_FIELD_NUMBER: _ClassVar[int]
    name: str
    daemon_id: str
    heard_ns: int
    clients_count: int
    unconfirmed_clients_count: int
    clients_max_ns: int
    def __init__(self, name: _Optional[str] = ..., daemon_id: _Optional[str] = ..., heard_ns: _Optional[int] = ..., clients_count: _Optional[int] = ..., unconfirmed_clients_count: _Optional[int] = ..., clients_max_ns: _Optional[int] = ...) -> None: ...
