"""Builds requests out of what callers write, and checks them as the daemon would."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from google.protobuf.duration_pb2 import Duration

from costd_client.context import ambient
from costd_client.errors import InvalidAsk
from costd_client.ids import new_ask_id
from costd_client.pb import admission_pb2 as pb
from costd_client.usage import read_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    from costd_client.decision import Outcome

MessageT = TypeVar("MessageT", bound="Message")

LABEL_COUNT_MAX = 64
LABEL_KEY_LENGTH_MAX = 64
LABEL_VALUE_LENGTH_MAX = 256
ACCEPTABLE_COUNT_MAX = 64
ASK_ID_LENGTH_MIN = 16
ASK_ID_LENGTH_MAX = 128
RESERVED_LABELS = frozenset({"provider", "model", "tier", "task_class"})
COUNT_MAX = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What every ask of one client starts from."""

    labels: Mapping[str, str] = field(default_factory=dict)
    task_class: str = ""


def build_ask(defaults: Defaults, fields: Mapping[str, Any]) -> pb.AdmitRequest:
    """Build a checked AdmitRequest from keyword arguments.

    Shape:   labels and task class: the client's, overwritten by the surrounding `labels(...)`
             blocks, overwritten by the call's own; `ttl_s` is seconds, None fields are left out.
    Errors:  InvalidAsk naming the field.
    """
    rest = dict(fields)
    around = ambient()
    rest["labels"] = {
        **defaults.labels,
        **around.labels,
        **{key: str(value) for key, value in (rest.get("labels") or {}).items()},
    }
    rest["task_class"] = rest.get("task_class") or around.task_class or defaults.task_class
    rest["override_grant"] = rest.get("override_grant") or around.override_grant
    rest["ask_id"] = rest.get("ask_id") or new_ask_id()
    if isinstance(rest.get("acceptable_models"), str):
        rest["acceptable_models"] = [rest["acceptable_models"]]
    ttl_s = rest.pop("ttl_s", None)
    if ttl_s is not None:
        rest["ttl"] = duration(ttl_s)
    request = _construct(pb.AdmitRequest, rest)
    check_ask(request)
    return request


def check_ask(request: pb.AdmitRequest) -> None:
    """Refuse an ask that the daemon would refuse, so that failing open never lets one through.

    Errors:  InvalidAsk naming the field and the rule.
    """
    if not ASK_ID_LENGTH_MIN <= len(request.ask_id) <= ASK_ID_LENGTH_MAX:
        raise InvalidAsk(
            f"ask_id has {len(request.ask_id)} characters; it must have {ASK_ID_LENGTH_MIN} to "
            f"{ASK_ID_LENGTH_MAX} (leave it out and a UUIDv7 is made)"
        )
    for name in ("prompt_tokens", "max_output_tokens"):
        if not 0 <= getattr(request, name) <= COUNT_MAX:
            raise InvalidAsk(f"{name} is {getattr(request, name)}; it must lie in 0 … {COUNT_MAX}")
    if request.estimated_cost_nusd < 0:
        raise InvalidAsk(f"estimated_cost_nusd is {request.estimated_cost_nusd}; it is negative")
    if len(request.acceptable_models) > ACCEPTABLE_COUNT_MAX:
        raise InvalidAsk(f"acceptable_models has more than {ACCEPTABLE_COUNT_MAX} entries")
    _check_labels(request.labels)


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > LABEL_COUNT_MAX:
        raise InvalidAsk(f"labels has {len(labels)} entries; at most {LABEL_COUNT_MAX} are allowed")
    for key, value in labels.items():
        if not key or len(key) > LABEL_KEY_LENGTH_MAX:
            raise InvalidAsk(f"labels: key {key[:80]!r} must have 1 to 64 characters")
        if len(value) > LABEL_VALUE_LENGTH_MAX:
            raise InvalidAsk(f"labels[{key}] has more than {LABEL_VALUE_LENGTH_MAX} characters")
        if key in RESERVED_LABELS:
            raise InvalidAsk(f"labels[{key}]: {key} has a field of its own; set that instead")
        if not (key.isprintable() and value.isprintable()):
            raise InvalidAsk(f"labels[{key!r}] has characters that cannot be printed")


class Closing(NamedTuple):
    """What is known when a call ends: usage or its cost, how long it took, how it ended."""

    usage: pb.Usage | None = None
    cost_nusd: int | None = None
    duration_ns: int = 0
    outcome: Outcome | int = 0
    retry_count: int = 0
    provider: str = ""
    model: str = ""


def read_closing(
    usage: Any = None, *, cost_nusd: int | None = None, **fields: Any
) -> tuple[pb.Usage | None, int | None]:
    """Read what a caller says a call used: provider usage, costd's fields, or a cost.

    Errors:  InvalidAsk if neither usage nor cost is given, or both are.
    """
    if cost_nusd is not None:
        also = [name for name, value in {"usage": usage, **fields}.items() if value is not None]
        if also:
            raise InvalidAsk(f"give either usage or cost_nusd, not both; drop {', '.join(also)}")
        if isinstance(cost_nusd, bool) or not isinstance(cost_nusd, int) or cost_nusd < 0:
            raise InvalidAsk(f"cost_nusd is {cost_nusd!r}; it must be a whole number from 0")
        return None, cost_nusd
    if usage is None and list(fields.values()).count(None) == len(fields):
        raise InvalidAsk("say what the call used: provider usage, token counts, or cost_nusd")
    return read_usage(usage, **fields), None


def build_closing(
    usage: Any, fields: Mapping[str, Any], duration_s: float, outcome: Outcome, retry_count: int
) -> Closing:
    """Gather what `settle` and `record` are told of a call that ended."""
    read, cost_nusd = read_closing(usage, **fields)
    return Closing(
        usage=read,
        cost_nusd=cost_nusd,
        duration_ns=round(duration_s * 1_000_000_000),
        outcome=outcome,
        retry_count=retry_count,
    )


def build_settle(reservation_id: str, closing: Closing) -> pb.SettleRequest:
    """Build the request that closes a reservation at what the call really cost."""
    return _construct(
        pb.SettleRequest, {"reservation_id": reservation_id, **_closing_fields(closing)}
    )


def build_draw_settlement(fields: dict[str, Any], closing: Closing) -> pb.DrawSettlement:
    """Build the message that closes a call drawn from an allowance."""
    return _construct(pb.DrawSettlement, fields | _closing_fields(closing))


def build_record(ask: pb.AdmitRequest, closing: Closing, *, happened_ns: int) -> pb.RecordRequest:
    """Build the request that charges a call which was made without a decision.

    Ensures: `record_id` is the ask's id, so that the daemon settles the reservation instead if
             the ask had reached it after all. With nothing measured, the ask's own estimate is
             charged, as an expiry would.
    """
    if closing.usage is None and closing.cost_nusd is None:
        closing = _estimated(ask, closing)
    fields = _closing_fields(closing)
    return _construct(
        pb.RecordRequest,
        {
            **fields,
            "record_id": ask.ask_id,
            "task_class": ask.task_class,
            "labels": dict(ask.labels),
            "provider": closing.provider or ask.provider,
            "model": closing.model or ask.model,
            "happened_ns": happened_ns,
            "cost_kind": ask.cost_kind,
            "batch": ask.batch,
        },
    )


def _estimated(ask: pb.AdmitRequest, closing: Closing) -> Closing:
    """Charge what was asked for, where nobody knows what the call used."""
    usage = None
    cost_nusd = ask.estimated_cost_nusd if ask.HasField("estimated_cost_nusd") else None
    if cost_nusd is None:
        usage = pb.Usage(
            prompt_tokens=ask.prompt_tokens,
            output_tokens=ask.max_output_tokens,
            units=dict(ask.units),
        )
    return Closing(
        usage=usage,
        cost_nusd=cost_nusd,
        duration_ns=closing.duration_ns,
        outcome=closing.outcome,
        retry_count=closing.retry_count,
        provider=closing.provider,
        model=closing.model,
    )


def build_extend(reservation_id: str, fields: Mapping[str, Any]) -> pb.ExtendRequest:
    """Build the request that lengthens or enlarges a hold, or reports usage so far."""
    rest = dict(fields)
    ttl_s = rest.pop("ttl_s", None)
    if ttl_s is not None:
        rest["ttl"] = duration(ttl_s)
    return _construct(pb.ExtendRequest, {"reservation_id": reservation_id, **rest})


def duration(seconds: float) -> Duration:
    """Write seconds as a Duration."""
    if not seconds >= 0:
        raise InvalidAsk(f"{seconds!r} seconds is no duration; it must be at least 0")
    value = Duration()
    value.FromNanoseconds(round(seconds * 1_000_000_000))
    return value


def _closing_fields(closing: Closing) -> dict[str, Any]:
    span = Duration()
    span.FromNanoseconds(max(closing.duration_ns, 0))
    return {
        "usage": closing.usage,
        "cost_nusd": closing.cost_nusd,
        "duration": span,
        "outcome": int(closing.outcome),
        "retry_count": closing.retry_count,
        "provider": closing.provider,
        "model": closing.model,
    }


def _construct(kind: Callable[..., MessageT], fields: Mapping[str, Any]) -> MessageT:
    """Build a message; a value of the wrong type or range is the caller's mistake."""
    known = {name: value for name, value in fields.items() if value is not None}
    try:
        return kind(**known)
    except (TypeError, ValueError) as error:
        raise InvalidAsk(f"{_blame(kind, known)}: {error}") from error


def _blame(kind: Callable[..., Any], fields: Mapping[str, Any]) -> str:
    """Find the field that cannot be written."""
    for name, value in fields.items():
        try:
            kind(**{name: value})
        except (TypeError, ValueError):
            return name
    return "request"
